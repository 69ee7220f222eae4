"""Proves, in real processes, what those that share a run exchange; and that one process alone exchanges nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.shared_run import run
from utils import ranks
from utils.adam import adam

IN_EACH = """
import sys
import numpy as np
import torch
from gsz.errors import UserError
from utils import ranks

ranks.start()
rank, count = ranks.rank(), ranks.count()
assert count == 3 and ranks.is_first() == (rank == 0)

items = list(range(7))
assert ranks.share(items) == items[rank::3]
assert ranks.gathered([item * item for item in ranks.share(items)]) == [item * item for item in items]
assert ranks.gathered(ranks.share([5])) == [5], "some have nothing to do"
dealt = ranks.dealt(iter(range(100)))
assert [next(dealt), next(dealt)] == [rank, rank + 3]
assert len(set(ranks.gathered([ranks.own((1, 2))]))) == 3

vector, matrix = torch.full((4,), float(rank)), torch.full((2, 3), 10.0 * rank)
ranks.total(vector, matrix)
assert (vector == 3.0).all() and (matrix == 30.0).all()

parameter, unused = torch.zeros(5, requires_grad=True), torch.zeros(2, requires_grad=True)
(parameter * (rank + 1)).sum().backward()
ranks.average_gradients([parameter, unused])
assert (parameter.grad == 2.0).all() and unused.grad is None

highest = torch.arange(3.0) * (rank == torch.arange(3))
ranks.largest(highest)
assert highest.tolist() == [0.0, 1.0, 2.0]

computed = []
value = ranks.once(lambda: computed.append(rank) or {"tensor": torch.ones(3), "array": np.zeros(2), "rank": rank})
assert value["rank"] == 0 and value["tensor"].sum() == 3.0 and computed == [0] * (rank == 0)

ranks.check_same("round 1", [torch.zeros(3), torch.zeros(0, 2, 3)])
try:
    ranks.check_same("round 2", [torch.zeros(3) if rank != 1 else torch.tensor([0.0, 0.0, -0.0])])
except UserError as error:
    assert str(error).startswith("round 2: process 1 of 3 no longer holds the model that process 0 holds"), error
else:
    sys.exit("a difference of one bit went unnoticed")
"""


def test_what_processes_exchange(tmp_path: Path):
    script = tmp_path / "in_each.py"
    script.write_text(IN_EACH)
    run(3, script)


def test_one_process_exchanges_nothing():
    items, vector = [1, 2, 3], torch.ones(2)
    assert ranks.share(items) == ranks.gathered(items) == items
    ranks.total(vector)
    ranks.largest(vector)
    assert vector.tolist() == [1.0, 1.0] and ranks.once(lambda: vector) is vector
    assert ranks.own((1, 2)) == (1, 2)


def test_steps_of_several_views_come_to_the_place_of_single_ones(monkeypatch):
    """Adam on noisy gradients of a slope: what counts is how far it gets in as many views."""

    def after(views: int, batch: int) -> float:
        monkeypatch.setattr(ranks, "count", lambda: batch)
        noise = torch.Generator().manual_seed(0)
        place = torch.zeros(2000, requires_grad=True)
        optimizer = adam([{"params": [place], "lr": 0.01}])
        for _ in range(views // batch):
            place.grad = (0.1 + torch.randn(batch, 2000, generator=noise)).mean(0)
            optimizer.step()
        return float(place.detach().mean())

    alone = after(800, 1)
    assert alone < -0.5
    assert abs(after(800, 4) / alone - 1.0) < 0.1
