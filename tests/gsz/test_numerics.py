"""Proves that what a file holds and what a decoder returns do not depend on the processor or on a library's version.

Grids are made of operations that IEEE 754 rounds in one way only. Here those of NumPy, Numba and PyTorch are held on
millions of numbers against integer arithmetic, so that a processor or library that rounds otherwise is caught by name:
on some machines PyTorch's square root is not the right one, which grids must not notice. Logarithms and exponentials
are our own, and a scan of the package's source finds those of a library.
"""

from __future__ import annotations

import ast
import math
import operator
import struct
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numba import njit
from torch import Tensor

from gsz import registry
from gsz.rounding import elementary, tensors
from gsz.rounding.arrays import Float64s
from gsz.rounding.levels import OPACITY_LOGITS, OPACITY_MIDPOINTS
from gsz.sog.levels import Ranges
from gsz.spz.levels import TABLES
from tests.gsz.test_codec_device import as_elsewhere, models, same_bits, snap_and_pull

COUNT = 1_000_000
ROOT = Path(__file__).parents[2]


@njit
def kernel_root(values):
    roots = np.empty_like(values)
    for index in range(values.size):
        roots[index] = math.sqrt(values[index])
    return roots


@njit
def kernel_quotient(first, second):
    quotients = np.empty_like(first)
    for index in range(first.size):
        quotients[index] = first[index] / second[index]
    return quotients


@njit
def kernel_dot(a, b, c, d):
    """Where a compiler would contract a product and a sum into one rounding, if it might."""
    sums = np.empty_like(a)
    for index in range(a.size):
        sums[index] = a[index] * b[index] + c[index] * d[index]
    return sums


def in_torch(function: Callable[..., Tensor]) -> Callable[..., Float64s]:
    return lambda *arrays: function(*(torch.from_numpy(array) for array in arrays)).numpy()


ROOTS: dict[str, Callable[[Float64s], Float64s]] = {
    "NumPy's sqrt": np.sqrt,
    "Numba's sqrt": kernel_root,
    "gsz.rounding.tensors.square_root": in_torch(tensors.square_root),
}


def squares() -> tuple[Float64s, Float64s]:
    """Numbers from 2**52 to 2**54, and their roots by integer arithmetic alone."""
    rng = np.random.default_rng(0)
    roots = rng.integers((1 << 26) + 1, 1 << 27, COUNT // 4)
    values = np.concatenate(
        [
            rng.integers(1 << 52, 1 << 53, COUNT // 2),
            rng.integers(1 << 52, 1 << 53, COUNT // 4) << 1,
            # The hard ones: squares of short numbers and their neighbors.
            roots * roots + rng.integers(-1, 2, len(roots)),
        ]
    ).astype(np.float64)
    nearest = [(math.isqrt(int(value) << 54) + 1) >> 1 for value in values.tolist()]
    return values, np.array(nearest, np.float64) * 2.0**-26


@pytest.mark.parametrize("name", ROOTS)
def test_square_roots_are_the_nearest_numbers(name: str) -> None:
    """The root of ``v`` is the whole number nearest to that of ``v * 2**52``, times ``2**-26``, and likewise for other
    exponents."""
    values, roots = squares()
    for exponent in (0, -450, -101, 60, 400):
        found = ROOTS[name](values * 4.0**exponent)
        assert_all(name, found, roots * 2.0**exponent, values * 4.0**exponent)
    for value in (0.0, 1.0, 4.0, np.inf):
        assert ROOTS[name](np.array([value]))[0] == math.sqrt(value)


def assert_all(name: str, found: npt.NDArray[Any], right: npt.NDArray[Any], *arguments: npt.NDArray[Any]) -> None:
    wrong = np.flatnonzero(found != right)
    if len(wrong):
        first = int(wrong[0])
        given = ", ".join(float(argument[first]).hex() for argument in arguments)
        pytest.fail(
            f"{name} is not correctly rounded on this processor for {len(wrong)} of {len(right)} numbers: "
            f"of {given} it is {float(found[first]).hex()}, and {float(right[first]).hex()} would be right"
        )


OPERATIONS: dict[str, tuple[Callable[..., Any], dict[str, Callable[..., Any]]]] = {
    "sum": (operator.add, {"NumPy": np.add, "PyTorch": in_torch(torch.add)}),
    "difference": (operator.sub, {"NumPy": np.subtract, "PyTorch": in_torch(torch.sub)}),
    "product": (operator.mul, {"NumPy": np.multiply, "PyTorch": in_torch(torch.mul)}),
    "quotient": (
        operator.truediv,
        {"NumPy": np.divide, "Numba": kernel_quotient, "PyTorch": in_torch(torch.div)},
    ),
    "whole number": (lambda first, _: float(round(first)), {
        "NumPy": lambda first, _: np.rint(first),
        "PyTorch": lambda first, _: in_torch(torch.round)(first),
    }),
    "floor": (lambda first, _: float(math.floor(first)), {
        "NumPy": lambda first, _: np.floor(first),
        "PyTorch": lambda first, _: in_torch(torch.floor)(first),
    }),
    "fraction and exponent": (lambda first, _: math.ldexp(*math.frexp(first)) * math.frexp(first)[1], {
        "NumPy": lambda first, _: np.ldexp(*np.frexp(first)) * np.frexp(first)[1],
        "PyTorch": lambda first, _: first * in_torch(lambda tensor: torch.frexp(tensor).exponent.double())(first),
    }),
    "float32 number": (lambda first, _: struct.unpack("f", struct.pack("f", first))[0], {
        "NumPy": lambda first, _: first.astype(np.float32).astype(np.float64),
        "PyTorch": lambda first, _: in_torch(Tensor.float)(first).astype(np.float64),
    }),
}  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "library"), [(name, library) for name, (_, found) in OPERATIONS.items() for library in found]
)
def test_operations_are_rounded_as_ieee_754_asks(operation: str, library: str) -> None:
    """Against Python's own numbers, which are the processor's."""
    reference, libraries = OPERATIONS[operation]
    first, second = numbers(0), numbers(1)
    right = np.array(list(map(reference, first.tolist(), second.tolist())))
    assert_all(f"{library}'s {operation}", libraries[library](first, second), right, first, second)


def numbers(seed: int) -> Float64s:
    rng = np.random.default_rng(seed)
    return np.ldexp(rng.uniform(-2, 2, COUNT), rng.integers(-30, 30, COUNT))


def test_pythons_own_numbers_are_rounded_as_ieee_754_asks() -> None:
    """Which the tests above rely on: against fractions of whole numbers, divided beyond the reach of the processor."""
    whole = [int(value) for value in np.random.default_rng(2).integers(1 << 52, 1 << 53, 20_000).tolist()]
    for first, second in zip(whole[::2], whole[1::2], strict=True):
        shifted = (first << 200) / (second << 200)
        assert float(first) / float(second) == shifted
        assert float(first) * float(second) == (first * second << 1) / 2
        assert float(first) + float(second) * 2.0**-20 == ((first << 20) + second) / (1 << 20)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_round_products_before_they_add_them(dtype: type) -> None:
    a, b, c, d = (numbers(seed).astype(dtype) for seed in range(4))
    assert_all("Numba's sum of products", kernel_dot(a, b, c, d), a * b + c * d, a, b, c, d)


@pytest.fixture
def wrong_roots(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """PyTorch's square roots become the neighbors of the right ones, above or below, at random; how many there were."""
    calls, rng = [0], np.random.default_rng(0)

    def wrong(values: Tensor) -> Tensor:
        calls[0] += values.numel()
        roots = np.sqrt(values.numpy())
        return torch.from_numpy(np.nextafter(roots, rng.choice([0.0, np.inf], roots.shape)))

    monkeypatch.setattr(torch, "sqrt", wrong)
    monkeypatch.setattr(Tensor, "sqrt", wrong)
    return calls


def test_wrong_square_roots_are_noticed_and_corrected(wrong_roots: list[int]) -> None:
    values, roots = squares()
    assert np.mean(in_torch(torch.sqrt)(values) != roots) > 0.5
    assert_all("square_root", in_torch(tensors.square_root)(values), roots, values)


@pytest.mark.parametrize("name", ["sog", "spz", "spz:version=2"])
def test_grids_do_not_notice_wrong_square_roots(
    name: str, monkeypatch: pytest.MonkeyPatch, wrong_roots: list[int]
) -> None:
    """In tensors as on a device whose library is as careless as that of some processors."""
    for case, splats in models().items():
        grid = registry.codec(name).fit(splats)
        kernels = snap_and_pull(grid, splats)
        with monkeypatch.context() as patched:
            as_elsewhere(patched)
            found = snap_and_pull(grid, splats)
        assert all(same_bits(values, found[key]) for key, values in kernels.items()), case
    assert wrong_roots[0] > 0


def exact(function: Callable[[Decimal], Decimal], values: Float64s) -> list[Decimal]:
    with localcontext() as context:
        context.prec = 50
        return [function(Decimal(value)) for value in values.tolist()]


LN2 = Decimal(2).ln()


@pytest.mark.parametrize(("function", "reference", "low", "high"), [
    (elementary.log, Decimal.ln, 1e-30, 1e30),
    (elementary.log, Decimal.ln, 0.7, 1.5),
    (elementary.log2, lambda value: value.ln() / Decimal(2).ln(), 1e-30, 1e30),
    (elementary.exp2, lambda value: (value * Decimal(2).ln()).exp(), -60, 60),
    (elementary.signed_exp, lambda value: value.exp() - 1, 1e-12, 89),
    (elementary.logit, lambda value: (value / (1 - value)).ln(), 0.001, 0.4),
])  # fmt: skip
def test_logarithms_and_exponentials_are_near_the_true_ones(
    function: Callable[[Float64s], Float64s], reference: Callable[[Decimal], Decimal], low: float, high: float
) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(low, high, 500) if low < 0 else np.exp(rng.uniform(np.log(low), np.log(high), 500))
    for value, found, true in zip(values, function(values).tolist(), exact(reference, values), strict=True):
        assert abs(Decimal(found) / true - 1) < Decimal("3e-15"), float(value).hex()


def nearest_float32(values: list[Decimal]) -> npt.NDArray[np.float32]:
    """Decimals that are no ties, through float64 numbers that are not near a tie either."""
    return np.array([float(value) for value in values], np.float32)


def test_tables_are_the_nearest_numbers_to_the_true_ones() -> None:
    """So that any careful decoder has the same, however it computes its logarithms and exponentials."""
    byte = np.arange(1, 255)

    def logit(share: float) -> Decimal:
        return (Decimal(share) / (1 - Decimal(share))).ln()

    inner = nearest_float32(exact(lambda level: (level / (255 - level)).ln(), byte.astype(np.float64)))
    np.testing.assert_array_equal(OPACITY_LOGITS[1:-1], inner)
    np.testing.assert_array_equal(TABLES.here.opacity_logits[1:-1], inner)
    halves = np.arange(255) + 0.5
    np.testing.assert_array_equal(
        OPACITY_MIDPOINTS, nearest_float32(exact(lambda level: (level / (255 - level)).ln(), halves))
    )
    ranges = Ranges(np.array([-3.0, -0.001, -88.0]), np.array([4.0, 0.002, 80.0]), np.zeros(1), np.zeros(1))
    means = ranges.tables().here.means.reshape(3, -1)
    levels = np.random.default_rng(0).integers(0, 65536, 300)
    for axis in range(3):
        logs = ranges.lows[axis] + (ranges.highs[axis] - ranges.lows[axis]) * (levels / 65535)
        true = exact(lambda log: (abs(log).exp() - 1).copy_sign(log), logs)
        np.testing.assert_array_equal(means[axis, levels], nearest_float32(true))


TRANSCENDENTAL = (
    "exp exp2 expm1 log log10 log1p log2 logaddexp logaddexp2 logit sigmoid logsigmoid softmax softplus power pow "
    "float_power cbrt rsqrt hypot norm geomspace logspace sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh"
)
RANDOM = "normal standard_normal gumbel exponential laplace gamma"
SUMS = "mean average nanmean std var fsum einsum dot vdot inner matmul tensordot addmm addmv baddbmm"
CONTRACTED = "interp polyfit lerp addcmul addcdiv"
LIBRARY_FUNCTIONS = frozenset(" ".join([TRANSCENDENTAL, RANDOM, SUMS, CONTRACTED]).split())
"""What libraries compute in an order or to a precision of their own. Square roots are tested above."""

ALLOWED = {
    # An estimate of a file's size, for a loss.
    "gsz/native/rate.py": {"exp2", "log2", "sigmoid", "lerp"},
    # Gradients by learned steps, of which a grid has what is rounded to sixteenths of an octave.
    "gsz/native/learning.py": {"exp", "matmul", "mean", "sigmoid"},
    # Unit quaternions times units: of each sum only one term is not 0.
    "gsz/native/symbols.py": {"matmul"},
    # Whether a model looks activated.
    "gsz/cleaning.py": {"exp"},
    # What training with a filter left in a PLY file is made up for before there is a grid.
    "gsz/ply.py": {"exp", "expm1", "log", "logaddexp"},
}


def library_calls(path: Path) -> set[str]:
    """Names of functions of NumPy, ``math`` and PyTorch that a module uses, and of methods of their arrays."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            found.add("matmul")
        if isinstance(node, ast.Attribute) and node.attr in LIBRARY_FUNCTIONS:
            library = node.value.id if isinstance(node.value, ast.Name) else ""
            found |= set() if library in ("elementary", "opacities", "frames") else {node.attr}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "gsz").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_number_of_a_file_comes_from_a_function_of_a_library(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert library_calls(path) <= ALLOWED.get(name, set()), f"{name}: use gsz.rounding.elementary, or say why not"


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # Importing it is an error from here on.
import numpy as np
import gsz.registry, gsz.splats
rng = np.random.default_rng(0)
splats = gsz.splats.Splats.from_arrays(
    means=rng.normal(size=(300, 3)), log_scales=rng.normal(-4, 1, (300, 3)), quaternions=rng.normal(size=(300, 4)),
    opacity_logits=rng.normal(size=300), sh_dc=rng.normal(size=(300, 3)), sh_rest=rng.normal(0, 0.1, (300, 15, 3)))
codec = gsz.registry.codec(sys.argv[1])
decoded = codec.decode(codec.fit(splats).encode(splats))
assert len(decoded) == 300 and all(type(array) is np.ndarray for _, array in decoded.named_parameters())
assert sys.modules["torch"] is None
assert not [name for name in sys.modules if name.split(".")[0] in ("scene", "utils", "tqdm")]
"""


@pytest.mark.parametrize("spec", ["sog", "sog:palette=100", "spz", "spz:version=2", "spz:version=4"])
def test_files_are_written_and_read_without_pytorch(spec: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, spec], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.cuda
def test_square_roots_of_a_gpu_are_the_nearest_numbers() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    values, roots = squares()
    found = tensors.square_root(torch.from_numpy(values).cuda()).cpu().numpy()
    assert_all(f"CUDA's sqrt on {torch.cuda.get_device_name()}", found, roots, values)
