"""Memory that serves again must never be lent to two at once."""

import numpy as np
import torch

from gsz.memory import ReusedArrays

SHAPES = [(5, 3), (5,)]


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_what_nobody_has_any_more_is_lent_again():
    lender = ReusedArrays()
    first = [address(array) for array in lender.blank(SHAPES)]
    assert [address(array) for array in lender.blank(SHAPES)] == first


def test_what_somebody_still_has_stays_theirs():
    """A view and a tensor keep the memory as well as the array itself does."""
    lender = ReusedArrays()
    for keep in (lambda array: array, lambda array: array[1:], lambda array: torch.from_numpy(array).view(-1)):
        kept = keep(lender.blank(SHAPES)[0])
        kept[...] = 1.0
        for array in lender.blank(SHAPES):
            array[...] = 2.0
        assert (kept == 1.0).all()


def test_other_shapes_get_other_memory():
    lender = ReusedArrays()
    lender.blank(SHAPES)
    assert [array.shape for array in lender.blank([(7, 3), (7,)])] == [(7, 3), (7,)]
