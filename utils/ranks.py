"""The processes that share one run, as ``torchrun`` starts them: who does what, and what they exchange.

Every process, or *rank*, holds the whole model and works on its own views; sums and averages go through here, and
nothing else does. What one rank alone computes or reads comes to the others by :func:`once`, and only the first writes.
All ranks so take the same decisions and call these functions in the same order, which is what lets them meet.

Without ``torchrun`` a run has one rank, nothing is exchanged, and every function here does what it would do alone.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gsz.errors import UserError
from utils import interrupts
from utils.messages import pack, unpack

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another that is alive. One that dies is noticed at once."""


class _Exchange:
    """Time that this process has spent in exchanges, waiting for the others included."""

    began = 0.0
    seconds = 0.0


def start() -> None:
    """Meet the other ranks, if ``torchrun`` has started any. The cores of a machine are shared out among its ranks.

    What is on GPUs goes from one to another by NCCL, one GPU a rank; all else, and GPUs that ranks share, by gloo.

    Raises:
        UserError: the others do not come.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        return
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), _take_gpu(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    _Exchange.began = time.perf_counter()
    with _exchanging():
        dist.init_process_group("cpu:gloo,cuda:nccl" if here <= gpus else "gloo", timeout=_PATIENCE)
    atexit.register(leave)  # The threads of the exchange must not outlive the interpreter.
    interrupts.speak_if(is_first_to_speak)


def leave() -> bool:
    """End the sharing; from here on a process is alone. Returns whether it is the one that goes on, the first."""
    first = is_first()
    if dist.is_initialized():
        dist.destroy_process_group()
    return first


def _take_gpu(number: int) -> int:
    """Hide all GPUs but one from this process, and return how many there are. None may have been used before."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return len(gpus)


def rank() -> int:
    """Which of the ranks this process is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether it falls to this process to write and to tell."""
    return rank() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Those of the items that this rank works on: every N-th, beginning with its own number."""
    return items[rank() :: count()]


def dealt(items: Iterable[T]) -> Iterator[T]:
    """As :func:`share`, of items that need not end."""
    return islice(items, rank(), None, count())


def own(seed: tuple[int, ...]) -> tuple[int, ...]:
    """A seed for random numbers that differ from rank to rank."""
    return seed if count() == 1 else (*seed, rank())


def total(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the ranks, the same bits on all of them."""
    if count() == 1:
        return
    flat = _flat(tensors)
    with _exchanging():
        dist.all_reduce(flat)
    _unflatten(flat, tensors)


def average_gradients(tensors: Iterable[Tensor]) -> None:
    """Replace the gradient of each tensor that has one, on all ranks or on none, by its mean over the ranks."""
    if count() == 1:
        return
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    flat = _flat(gradients)
    with _exchanging():
        dist.all_reduce(flat)
    _unflatten(flat.div_(count()), gradients)


def largest(tensor: Tensor) -> None:
    """Replace each number of a tensor by the largest that any rank has in its place."""
    if count() > 1:
        with _exchanging():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)


def gathered(mine: Sequence[T]) -> list[T]:
    """The results of all ranks on their :func:`share` of some items, in the order of the items."""
    if count() == 1:
        return list(mine)
    packed = pack(list(mine))
    shares = [unpack(_sent(packed, sender)) for sender in range(count())]
    return [shares[index % count()][index // count()] for index in range(sum(map(len, shares)))]


def once(compute: Callable[[], T]) -> T:
    """What the first rank computes, for all of them; on the others nothing is computed.

    It has to be something that :func:`utils.messages.pack` can send.
    """
    if count() == 1:
        return compute()
    return unpack(_sent(pack(compute()) if is_first() else b"", 0))


def check_same(what: str, tensors: Iterable[Tensor]) -> None:
    """See that all ranks hold the same bits.

    Raises:
        UserError: they do not.
    """
    if count() == 1:
        return
    checksum = 0
    for tensor in tensors:
        checksum = zlib.crc32(tensor.detach().cpu().numpy().tobytes(), checksum)
    checksums = gathered([checksum])
    others = [str(rank) for rank, each in enumerate(checksums) if each != checksums[0]]
    if others:
        raise UserError(
            f"{what}: process {', '.join(others)} of {count()} no longer holds the model that process 0 holds; go on "
            "with --resume, and if it happens again, use machines with the same GPUs and the same packages"
        )


def time_spent() -> str:
    """What part of its time this process has spent in exchanges, for the user."""
    whole = time.perf_counter() - _Exchange.began
    return f"{_Exchange.seconds:.1f} of {whole:.1f} s in exchanges and waiting for the others"


@contextmanager
def _exchanging() -> Iterator[None]:
    """Count the time of an exchange, and turn the loss of a rank into a line for the user."""
    began = time.perf_counter()
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.debug("%s", error)
        raise UserError(f"another process of this run has ended; go on with: {interrupts.advice()}") from error
    finally:
        _Exchange.seconds += time.perf_counter() - began


def _sent(mine: bytes, sender: int) -> bytes:
    """The bytes that one rank has, on all of them; what others have is not looked at."""
    length = torch.tensor([len(mine)])
    with _exchanging():
        dist.broadcast(length, sender)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if rank() == sender:
            data.numpy()[:] = np.frombuffer(mine, np.uint8)
        dist.broadcast(data, sender)
    return data.numpy().tobytes()


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def is_first_to_speak() -> bool:
    """Whether no other rank has said yet why the run ends. One line is enough for all of them."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=2), wait_for_workers=False)
        return store.add(f"spoken/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True
