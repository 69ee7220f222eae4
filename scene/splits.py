"""Which views train, validate and test, and at which size, by nothing but their names and the options."""

from __future__ import annotations

import logging
from pathlib import Path

from gsz.errors import UserError
from scene.cameras import MAX_SIDE, Camera

log = logging.getLogger(__name__)

TEST_EVERY = 8
"""With ``--eval``, every eighth view by name is for testing, as in 3DGS and Mip-NeRF 360 (``llffhold``)."""

AUTOMATIC_WIDTH_LIMIT = 1600
"""With ``-r -1``, wider photographs are scaled down to this width, as in 3DGS."""

FEW_VIEWS = 20
"""Where there are fewer views to train on, one in :data:`FEW_VIEWS_EVERY` is held out for validation: one or two views
would say little."""
FEW_VIEWS_EVERY = 5


def at_resolution_option(cameras: list[Camera], resolution: int) -> list[Camera]:
    """The cameras at the size that the option ``-r`` asks for, rounded as 3DGS rounds.

    Raises:
        UserError: the option is neither -1 nor positive, or leaves no pixel.
    """
    if resolution != -1 and not 0 < resolution <= MAX_SIDE:
        raise UserError(f"-r {resolution}: must be 1, 2, 4, 8, a width in pixels, or -1")
    if resolution == -1 and any(camera.width > AUTOMATIC_WIDTH_LIMIT for camera in cameras):
        log.info(
            "photographs wider than %d pixels are scaled down to that; -r 1 keeps their size", AUTOMATIC_WIDTH_LIMIT
        )
    return [camera.at_resolution(*_size(camera.width, camera.height, resolution)) for camera in cameras]


def _size(width: int, height: int, resolution: int) -> tuple[int, int]:
    if resolution in (1, 2, 4, 8):
        size = round(width / resolution), round(height / resolution)
    else:
        if resolution == -1:
            divisor = max(1.0, width / AUTOMATIC_WIDTH_LIMIT)
        else:
            divisor = width / resolution
        # 3DGS cuts the fraction off here, so that a width may come out one less than what was asked for. It is kept:
        # views must have the size INRIA's programs give them for the numbers to be comparable.
        size = int(width / divisor), int(height / divisor)
    if min(size) < 1:
        raise UserError(f"-r {resolution}: leaves no pixel of a {width}x{height} photograph; give a larger size")
    return size


def split_test(views: list[Camera], own_test: list[Camera], hold_out: bool) -> tuple[list[Camera], list[Camera]]:
    """Training and test views, each sorted by name.

    Args:
        own_test: Views that the scene itself sets apart for testing; where there are none, every eighth view tests.
        hold_out: The option ``--eval``. Without it all views train.
    """

    def by_name(cameras: list[Camera]) -> list[Camera]:
        return sorted(cameras, key=lambda camera: camera.name)

    if not hold_out:
        return by_name(views + own_test), []
    if own_test:
        return by_name(views), by_name(own_test)
    ordered = by_name(views)
    return [view for i, view in enumerate(ordered) if i % TEST_EVERY], ordered[::TEST_EVERY]


def split_validation(training: list[Camera], every: int, source: Path) -> tuple[list[Camera], list[Camera]]:
    """Views to train on and views to validate on.

    The middle one of each group of ``every`` is held out: its neighbors on both sides are trained on, so that it
    measures what the model shows between known views and not beyond them.

    Raises:
        UserError: ``every`` is out of range, or there is one view.
    """
    if every < 0 or every == 1:
        raise UserError(f"validation_every = {every}: must be 0 (hold out none) or at least 2")
    if every == 0:
        return training, []
    if len(training) < 2:
        raise UserError(f"{source}: has one training view, and validation needs another; add photographs")
    if len(training) < FEW_VIEWS:
        every = min(every, FEW_VIEWS_EVERY)
        log.info("%s: only %d training views; one in %d of them is for validation", source, len(training), every)
    held_out = set(range(every // 2, len(training), every)) or {len(training) // 2}
    train = [view for i, view in enumerate(training) if i not in held_out]
    return train, [training[i] for i in sorted(held_out)]
