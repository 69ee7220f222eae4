"""The operations of :mod:`gaussian_renderer.cpu.simd` that pixels need, on sixteen lanes."""

from __future__ import annotations

from gaussian_renderer.cpu.simd import (
    FLOATS,
    INTS,
    and_not,
    any_lane,
    constant,
    exp2,
    horizontal_sum,
    less_int,
    load_of,
    multiply_add,
    select,
    splat_int_of,
    splat_of,
    store,
    store_int,
    store_sums,
    subtract_product,
)

__all__ = [
    "LANES",
    "and_not",
    "any_lane",
    "exp2",
    "horizontal_sum",
    "lane_columns",
    "lane_rows",
    "less_int",
    "load",
    "load_int",
    "multiply_add",
    "select",
    "splat",
    "splat_int",
    "store",
    "store_int",
    "store_sums",
    "subtract_product",
]

LANES = 16

splat, splat_int = splat_of(LANES), splat_int_of(LANES)
load, load_int = load_of(FLOATS[LANES]), load_of(INTS[LANES])
lane_columns = constant([float(lane % 4) for lane in range(LANES)])
lane_rows = constant([float(lane // 4) for lane in range(LANES)])
