"""Rounding to the native grid with gradients, for fine-tuning; what of it needs PyTorch."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gsz.contract import ModelT
from gsz.memory import ReusedArrays
from gsz.native import symbols
from gsz.native.steps import Steps
from gsz.splats import Splats, parameter_shapes

if TYPE_CHECKING:
    from gsz.native.gpu import GpuSteps

ResultT = TypeVar("ResultT")

ROWS_AT_ONCE = 1 << 15
"""So many Gaussians are worth a thread's while, and what is computed on their way fits a processor's cache."""


class Snapped:
    """What was found out about a model when it was rounded, for as long as it stays as it was.

    Args:
        splats: a model of tensors.
        finenesses: of its Gaussians, where they are known.
    """

    def __init__(self, splats: Splats, finenesses: symbols.Finenesses | None):
        self._tensors = [(weakref.ref(tensor), tensor._version) for tensor in _of_fineness(splats)]
        self._finenesses = finenesses

    def finenesses(self, splats: Splats) -> symbols.Finenesses | None:
        """Of all Gaussians, if this is the model."""
        tensors = zip(self._tensors, _of_fineness(splats), strict=True)
        is_the_model = all(known() is tensor and version == tensor._version for (known, version), tensor in tensors)
        return self._finenesses if is_the_model else None


class Workspace:
    """Memory that serves again, a step after the other."""

    def __init__(self) -> None:
        self._arrays = ReusedArrays()
        self._symbols: list[symbols.Symbols] = []

    def blank_model(self, count: int, sh_degree: int) -> Splats:
        """A model whose values are yet to be filled in."""
        return Splats(*self._arrays.blank(list(parameter_shapes(count, sh_degree).values())))

    @contextmanager
    def blank_symbols(self, count: int) -> Iterator[symbols.Symbols]:
        """Symbols of at most :data:`ROWS_AT_ONCE` Gaussians without harmonics, for one thread at a time."""
        lent = self._symbols.pop() if self._symbols else symbols.Symbols.blank(ROWS_AT_ONCE, 0)
        yield lent.rows(slice(0, count))
        self._symbols.append(lent)


def _of_fineness(splats: Splats) -> tuple[Tensor, Tensor]:
    """The tensors that it depends on."""
    return splats.log_scales, splats.opacity_logits


def snap(steps: Steps | GpuSteps, splats: ModelT, workspace: Workspace) -> tuple[ModelT, Snapped]:
    """``splats``, a model of tensors, as a decoder will return it; gradients go straight through the rounding.

    Args:
        steps: on the device of the model; or none's, for what is rounded on the CPU wherever it is.
        workspace: where the snapped model comes to lie on the CPU.
    """
    fineness = symbols.Finenesses.blank(len(splats)) if isinstance(steps, Steps) else None
    tensors = [tensor for _, tensor in splats.named_parameters()]
    snapped = type(splats)(*_Snap.apply(steps, fineness, workspace, *tensors))
    return snapped, Snapped(splats, fineness)


class _Snap(torch.autograd.Function):
    """Round to the grid; in the backward pass, straight through the rounding."""

    @staticmethod
    def forward(
        ctx: Any,
        steps: Steps | GpuSteps,
        fineness: symbols.Finenesses | None,
        workspace: Workspace,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        model = Splats(*tensors)
        ctx.save_for_backward(model.log_scales, model.quaternions)
        if isinstance(steps, Steps):
            assert fineness is not None
            frames = symbols.Frames.blank(len(model))
            snapped = _snap_on_cpu(steps, model, workspace, fineness, frames)
            ctx.back = partial(_shape_gradients, frames)
        else:
            snapped = steps.snap(model)
            ctx.back = steps.shape_gradients
        return tuple(tensor for _, tensor in snapped.named_parameters())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, log_scales, quaternions, *others = gradients
        log_scales, quaternions = ctx.back(*ctx.saved_tensors, log_scales, quaternions)
        return (None, None, None, means, log_scales, quaternions, *others)


def _snap_on_cpu(
    steps: Steps, splats: Splats, workspace: Workspace, fineness: symbols.Finenesses, frames: symbols.Frames
) -> Splats:
    """Rows by rows, so that symbols need not leave the processor's cache; ``fineness`` and ``frames`` are filled in.

    A model that is elsewhere goes to the CPU and back.
    """
    model = splats.numpy()
    snapped = workspace.blank_model(len(model), model.sh_degree)

    def of_rows(rows: slice) -> None:
        part, into = rows_of(model, rows), rows_of(snapped, rows)
        with workspace.blank_symbols(len(part)) as scratch:
            quantized = symbols.Quantized(scratch, fineness.rows(rows), frames.rows(rows))
            symbols.quantize_into(quantized, part, steps)
            symbols.dequantize_into(into, scratch, quantized.finenesses, steps)
        symbols.snap_sh(part.sh_rest, quantized.finenesses.sh, steps, into.sh_rest)

    in_threads(of_rows, len(model))
    return snapped.map(lambda array: torch.from_numpy(array).to(splats.means.device))


def _shape_gradients(
    frames: symbols.Frames,
    log_scales: Tensor,
    quaternions: Tensor,
    log_scale_gradient: Tensor,
    quaternion_gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """:func:`gsz.native.symbols.shape_gradients` of tensors, by kernels for the CPU."""
    tensors = quaternions, quaternion_gradient, log_scale_gradient
    given = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
    found = np.empty_like(given[1]), np.empty_like(given[2])

    def of_rows(rows: slice) -> None:
        symbols.shape_gradients(frames.rows(rows), *(array[rows] for array in (*given, *found)))

    in_threads(of_rows, len(quaternions))
    d_quaternions, d_log_scales = (torch.from_numpy(array).to(quaternions.device) for array in found)
    return d_log_scales, d_quaternions


def rows_of(splats: ModelT, rows: slice) -> ModelT:
    """Some of the Gaussians, in the same memory."""
    return splats.map(lambda tensor: tensor[rows])


def in_threads(work: Callable[[slice], ResultT], count: int) -> list[ResultT]:
    """What ``work`` returns for rows ``0`` to ``count``, a few at a time, on as many threads as PyTorch may use.

    Kernels run without Python's lock. Which rows go together does not depend on the number of threads.
    """
    parts = _equal_parts(count)
    helpers = min(torch.get_num_threads(), len(parts)) - 1
    if helpers < 1:
        return list(map(work, parts))
    waiting = deque(enumerate(parts))
    results: dict[int, ResultT] = {}

    def take_parts() -> None:
        while waiting:
            try:
                number, rows = waiting.popleft()
            except IndexError:  # Another thread took the last one in the meantime.
                return
            results[number] = work(rows)

    # The calling thread works as well: waking another one takes as long as a few rows do.
    pool = _threads(helpers, os.getpid())
    helping = [pool.submit(take_parts) for _ in range(helpers)]
    try:
        take_parts()
    finally:
        wait(helping)
    for helper in helping:
        helper.result()
    return [results[number] for number in range(len(parts))]


def _equal_parts(count: int) -> list[slice]:
    """Rows ``0`` to ``count`` in as few parts of at most :data:`ROWS_AT_ONCE` as two threads can share evenly."""
    if count <= ROWS_AT_ONCE:
        return [slice(0, count)] if count else []
    parts = 2 * -(-count // (2 * ROWS_AT_ONCE))
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(first, end) for first, end in pairwise(ends)]


@cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay between calls. A process that was forked has none of its parent's, and gets its own."""
    return ThreadPoolExecutor(count, thread_name_prefix=f"gsz-{process}")
