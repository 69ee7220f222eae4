"""Proves that a model can be compressed without photographs: from its cameras.json, and from nothing but its .ply.

That its own renders are the targets, unrounded; that cameras are placed outside of objects and within rooms, upright,
in free space, with nothing in their way, and the same for the same seed; that what the run writes is enough for
render.py and metrics.py; and that what cannot be used is refused in one line.
"""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import render
import train
from compress import regrow
from compress.judging import Judge, against_photographs
from compress.loop import Result
from compress.views import Views
from gaussian_renderer import render as render_view
from gsz.errors import UserError
from programs import compression, measuring
from programs.own_renders import OwnRenders, known_cameras
from programs.placed_views import MAX_NEAR_SHARE, Looker, hidden_share, kinds_by_likelihood, placed_cameras
from quality.metrics import measure
from quality.summary import ViewMetrics
from scene import Camera, model_dir, open_scene
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from scene.placement import CameraPlacer, FreeSpace, PlacementOptions, Shape, estimate_up
from tests.tiny_run import tiny_splats, write_tiny_scene
from utils import cli

SCHEDULE = ["--first_iterations", "2", "--round_iterations", "2", "--final_iterations", "3", "--max_rounds", "2"]
SMALL = ["--view_count", "24", "--view_size", "64x48"]
BLACK = torch.zeros(3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory as INRIA's archive has them: model, cameras.json and a cfg_args that leads nowhere."""
    folder = tmp_path_factory.mktemp("archive")
    source, trained = write_tiny_scene(folder)
    scene = open_scene(SceneOptions(source_path=source), validation_every=0)
    model_dir.write_cameras(trained, scene.train)
    model_dir.write_options(trained, {"source_path": "/home/someone/data", "white_background": False})
    shutil.rmtree(source)
    return trained


def compress(out: Path, *arguments: str) -> Result:
    result = train.train(train.parse(["-m", str(out), "--eval", *SCHEDULE, *SMALL, *arguments]))
    assert result is not None
    return result


def ply_of(checkpoint: Path) -> Path:
    return model_dir.checkpoint_path(checkpoint, 7000)


# --- Models to look at -----------------------------------------------------------------------------------------------


def blobs(positions: np.ndarray, size: float = 0.05, scales: np.ndarray | None = None) -> GaussianModel:
    """Opaque blobs at the positions, of one size or with scales of their own along the world's axes."""
    count = len(positions)
    random = np.random.default_rng(0)
    return GaussianModel.from_arrays(
        means=positions,
        log_scales=np.log(np.full((count, 3), size) if scales is None else scales),
        quaternions=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        opacity_logits=np.full((count, 1), 3.0),
        sh_dc=random.normal(0, 1, (count, 1, 3)),
        sh_rest=np.zeros((count, 0, 3)),
    )


def ball(
    center: tuple[float, float, float] = (5.0, -2.0, 1.0), radius: float = 2.0, count: int = 2500
) -> GaussianModel:
    random = np.random.default_rng(1)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return blobs(np.array(center) + radius * directions * random.random((count, 1)) ** (1 / 3))


def box_surface(low: np.ndarray, high: np.ndarray, count: int, seed: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    points = random.uniform(low, high, (count, 3))
    axis, end = random.integers(0, 3, count), random.integers(0, 2, count)
    points[np.arange(count), axis] = np.where(end == 1, high[axis], low[axis])
    return points


def room() -> GaussianModel:
    """A hollow box of 8 x 3 x 6, twice as finely made of blobs where a shelf stands on one wall."""
    low, high = np.array([-4.0, -3.0, -3.0]), np.array([4.0, 0.0, 3.0])
    walls = box_surface(low, high, 4000)
    shelf = box_surface(np.array([-4.0, -2.0, -1.0]), np.array([-3.5, 0.0, 1.0]), 500, seed=3)
    return blobs(np.concatenate([walls, shelf]), size=0.1)


def floor(normal: np.ndarray, count: int = 3000) -> GaussianModel:
    """Flat blobs on a disc of that normal, with a ball of round ones on it."""
    random = np.random.default_rng(4)
    turn = Rotation.align_vectors(normal[None], [[0.0, 0.0, 1.0]])[0]
    disc = np.concatenate([random.uniform(-3, 3, (count, 2)), random.normal(0, 0.01, (count, 1))], axis=1)
    x, y, z, w = turn.as_quat()
    flat = blobs(turn.apply(disc), scales=np.tile([0.1, 0.1, 0.002], (count, 1)))
    flat.quaternions[:] = torch.tensor([w, x, y, z], dtype=torch.float32)
    return GaussianModel.concatenate([flat, ball((0, 0, 0), 1.0, 500)])


# --- Object or room --------------------------------------------------------------------------------------------------


def test_an_object_is_looked_at_from_around():
    splats = ball()
    shape = Shape.of(splats)
    assert shape.kind == "orbit"
    np.testing.assert_allclose(shape.center, [5, -2, 1], atol=0.15)
    assert 1.8 < shape.radius < 2.1
    cameras = placed_cameras(splats, PlacementOptions(view_count=16, view_size="80x60"))
    offsets = np.stack([camera.center for camera in cameras]) - shape.center
    assert np.linalg.norm(offsets, axis=1).min() > 2.0
    forward = np.stack([camera.world_to_camera[2, :3] for camera in cameras])
    cosines = -(forward * offsets).sum(1) / np.linalg.norm(offsets, axis=1)
    assert cosines.min() > 0.9
    azimuths = np.arctan2(offsets[:, 2], offsets[:, 0])
    assert np.diff(np.sort(azimuths)).max() < np.pi / 2


def test_far_surroundings_do_not_move_the_center_or_blow_up_the_radius():
    far = blobs(np.random.default_rng(5).normal(0, 40, (200, 3)), size=1.0)
    shape = Shape.of(GaussianModel.concatenate([ball(), far]))
    assert shape.kind == "orbit"
    np.testing.assert_allclose(shape.center, [5, -2, 1], atol=0.5)
    assert 1.8 < shape.radius < 4.0


def test_a_room_is_looked_at_from_within():
    splats = room()
    assert Shape.of(splats).kind == "inside"
    cameras = placed_cameras(splats, PlacementOptions(view_count=16, view_size="80x60"))
    centers = np.stack([camera.center for camera in cameras])
    assert (centers > [-4, -3, -3]).all() and (centers < [4, 0, 3]).all()
    forward = np.stack([camera.world_to_camera[2, :3] for camera in cameras])
    assert np.linalg.norm(forward.mean(0)) < 0.6  # They look every way around.


def sphere(count: int = 1500) -> np.ndarray:
    directions = np.random.default_rng(11).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


HOLLOW = {
    "sphere": blobs(2.0 * sphere(), size=0.15),
    "cube": blobs(box_surface(-np.ones(3), np.ones(3), 2500), size=0.06),
    "egg": blobs(sphere() * (3.0, 1.0, 1.5) + 10.0, size=0.12),
    "thick sphere": blobs(np.concatenate([2.0 * sphere(), 1.9 * sphere()[::2]]), size=0.15),
}


@pytest.mark.parametrize("splats", HOLLOW.values(), ids=HOLLOW)
def test_what_is_hollow_and_closed_is_looked_at_from_outside(splats: GaussianModel):
    """Its middle is as empty as a room's, but from outside there is nothing that one cannot see."""
    shape = Shape.of(splats)
    assert shape.kind == "inside"
    assert hidden_share(splats, shape) < 0.005
    cameras = placed_cameras(splats, PlacementOptions(view_count=12, view_size="80x60"))
    offsets = np.stack([camera.center for camera in cameras]) - shape.center
    assert np.linalg.norm(offsets, axis=1).min() > np.median(
        np.linalg.norm(splats.means.numpy() - shape.center, axis=1)
    )


def test_a_room_hides_what_is_in_it():
    """The shelf has a ninth of the blobs, a third of them too near to its wall to count as hidden behind it."""
    assert 0.02 < hidden_share(room(), Shape.of(room())) < 0.11
    assert kinds_by_likelihood(room()) == ["inside", "orbit"]
    open_top = room()
    open_top = open_top.select(open_top.means[:, 1] > -2.99)
    assert kinds_by_likelihood(open_top)[0] == "inside"


def test_where_one_side_has_no_views_the_other_is_tried():
    """A circle of stones is empty in the middle, and each stone hides its inside; but nowhere is one surrounded."""
    angles = np.arange(6) * np.pi / 3
    stones = [ball((3 * np.cos(angle), 0.0, 3 * np.sin(angle)), 0.5, 400) for angle in angles]
    circle = GaussianModel.concatenate(stones)
    assert kinds_by_likelihood(circle) == ["inside", "orbit"]
    cameras = placed_cameras(circle, PlacementOptions(view_count=8, view_size="80x60"))
    assert min(np.linalg.norm(camera.center) for camera in cameras) > 1.5
    with pytest.raises(UserError, match=r"no free place.* and 4\d\d have too little around them\); try --views orbit"):
        placed_cameras(circle, PlacementOptions(views="inside", view_count=8, view_size="80x60"))


@pytest.mark.parametrize("kind", ["orbit", "inside"])
def test_the_choice_can_be_overruled(kind):
    assert CameraPlacer(ball(), PlacementOptions(views=kind)).kind == kind
    assert CameraPlacer(room(), PlacementOptions(views=kind)).kind == kind


# --- Up --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [[0.0, -1.0, 0.0], [0.3, -0.9, 0.1], [0.0, 0.0, 1.0], [-0.2, 0.1, 0.9]])
def test_up_is_what_the_floor_faces(up):
    expected = np.array(up) / np.linalg.norm(up)
    for sign in (1.0, -1.0):
        assert estimate_up(floor(sign * expected)) @ expected > 0.99


def test_without_a_floor_up_is_colmaps():
    np.testing.assert_array_equal(estimate_up(ball()), [0, -1, 0])


def test_cameras_stand_upright():
    placer = CameraPlacer(ball(), PlacementOptions())
    for _ in range(10):
        camera = next(placer).check("placed")
        assert camera.world_to_camera[1, :3] @ placer.shape.up < 0.0  # The image's y axis points down.
        assert abs(camera.world_to_camera[0, :3] @ placer.shape.up) < 1e-9  # Its x axis is level.


# --- Free space ------------------------------------------------------------------------------------------------------


def density_by_definition(splats: GaussianModel, position: np.ndarray) -> float:
    """The largest opacity times exp(-d' C^-1 d / 2), by matrices and nothing else."""
    w, x, y, z = splats.rotations.numpy().astype(np.float64).T
    rotations = Rotation.from_quat(np.stack([x, y, z, w], axis=1)).as_matrix()
    scales = splats.scales.numpy().astype(np.float64)
    covariances = rotations @ (scales[:, :, None] ** 2 * np.eye(3)) @ rotations.transpose(0, 2, 1)
    offsets = position - splats.means.numpy()
    distances = np.einsum("ni,nij,nj->n", offsets, np.linalg.inv(covariances), offsets)
    return float((splats.opacities.numpy().ravel() * np.exp(-0.5 * distances)).max())


def test_density_is_that_of_the_definition():
    splats = tiny_splats(60)
    space = FreeSpace(splats)
    for position in np.random.default_rng(6).normal(0, 0.5, (20, 3)):
        expected = density_by_definition(splats, position)
        assert space.density(position) == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("make", [tiny_splats, ball, room, lambda: floor(np.array([0.0, -1.0, 0.0]))])
def test_no_camera_stands_inside_a_gaussian(make: Callable[[], GaussianModel]):
    splats = make()
    for camera in placed_cameras(splats, PlacementOptions(view_count=12, view_size="80x60")):
        assert density_by_definition(splats, camera.center) < 0.06


# --- Rejected views --------------------------------------------------------------------------------------------------


def camera_at(position: list[float], target: list[float]) -> Camera:
    placer = CameraPlacer(ball(), PlacementOptions(view_size="80x60"))
    return placer._camera(np.array(position), np.array(target) - np.array(position))


def test_a_wall_before_the_camera_is_noticed():
    wall = blobs(box_surface(np.array([-1, -1, -3.6]), np.array([1, 1, -3.5]), 400), size=0.1)
    splats = GaussianModel.concatenate([ball((0, 0, 0), 1.0), wall])
    look = Looker(splats, near=0.8)
    free, blocked = look(camera_at([4, 0, 0], [0, 0, 0])), look(camera_at([0, 0, -4], [0, 0, 0]))
    away = look(camera_at([4, 0, 0], [8, 0, 0]))
    assert free.near_share == 0.0 and free.coverage > 0.05 and free.fault("orbit") is None
    assert blocked.near_share > 0.5 and "right before" in (blocked.fault("orbit") or "")
    assert away.coverage == 0.0 and "nothing" in (away.fault("orbit") or "")
    # A blob of 0.05 at a distance of 4 covers 1 / 80 of the focal length, which is 0.87 widths.
    assert free.blur == pytest.approx(0.05 / 4 * 0.866, rel=0.3)


def test_views_through_fog_are_replaced_by_others():
    """A third of the shells lies behind a curtain of huge blobs."""
    random = np.random.default_rng(7)
    curtain = np.stack([np.full(300, -1.25), *random.uniform(-3, 3, (2, 300))], axis=1)
    thick = blobs(curtain, scales=np.tile([0.03, 0.5, 0.5], (300, 1)))
    splats = GaussianModel.concatenate([ball((0, 0, 0), 1.0, 1500), thick])
    options = PlacementOptions(view_count=24, view_size="80x60")
    cameras = placed_cameras(splats, options)
    assert len(cameras) == 24
    assert sum(camera.center[0] < -1.4 for camera in cameras) == 0
    candidates = CameraPlacer(splats, options)
    assert sum(next(candidates).center[0] < -1.4 for _ in range(24)) >= 3
    look = Looker(splats, 0.2 * candidates.shape.radius)
    assert all(look(camera).near_share <= MAX_NEAR_SHARE for camera in cameras)


def test_sides_that_photographs_taught_nothing_are_left_out():
    """A wall of blobs whose colours depend on the direction, with a dull one at its back."""
    random = np.random.default_rng(9)
    front, back = (np.stack([np.full(600, x), *random.uniform(-1, 1, (2, 600))], axis=1) for x in (0.1, -0.1))
    splats = blobs(np.concatenate([front, back]), size=0.08)
    splats.sh_rest = torch.zeros(1200, 3, 3)
    splats.sh_rest[:600, 2] = 0.3
    cameras = placed_cameras(splats, PlacementOptions(view_count=12, view_size="80x60"))
    assert all(camera.center[0] > 0 for camera in cameras)


def test_a_model_that_cannot_be_seen_is_refused():
    faint = ball()
    faint.opacity_logits[:] = -9.0
    with pytest.raises(UserError) as caught:
        placed_cameras(faint, PlacementOptions(view_count=4, view_size="80x60"))
    message = str(caught.value)
    assert (
        "only 0 of 80 cameras placed around it see the model well (--views orbit: 80 show next to nothing)" in message
    )
    assert "--views inside: " in message and "; look at it in a viewer" in message and "\n" not in message
    with pytest.raises(UserError, match=r"see the model well \(--views orbit.*; try --views inside"):
        placed_cameras(faint, PlacementOptions(views="orbit", view_count=4, view_size="80x60"))


def test_a_solid_has_no_place_inside():
    solid = blobs(np.random.default_rng(8).uniform(-1, 1, (4000, 3)), size=0.2)
    with pytest.raises(UserError, match=r"no free place.*\(--views inside: of 500 places, .*; try --views orbit"):
        next(CameraPlacer(solid, PlacementOptions(views="inside")))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_length_does_not_matter(scale: float):
    splats = ball((0, 0, 0))
    splats.means *= scale
    splats.log_scales += np.log(scale)
    look = Looker(splats, 0.0)
    for camera in placed_cameras(splats, PlacementOptions(view_count=4, view_size="80x60")):
        assert look(camera).coverage > 0.02


def test_one_gaussian_is_enough():
    cameras = placed_cameras(blobs(np.zeros((1, 3))), PlacementOptions(view_count=4, view_size="80x60"))
    assert len(cameras) == 4


# --- The same again --------------------------------------------------------------------------------------------------


def test_the_seed_fixes_the_cameras():
    options = PlacementOptions(view_count=8, view_size="80x60")
    first, again, other = (
        np.stack([camera.world_to_camera for camera in placed_cameras(room(), options, seed=seed)])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


# --- Targets ---------------------------------------------------------------------------------------------------------


def test_targets_are_unrounded_renders(checkpoint: Path):
    splats = GaussianModel.load_ply(ply_of(checkpoint))
    camera = known_cameras(checkpoint)[0]
    target = OwnRenders(splats, BLACK).load(camera)
    assert torch.equal(target, render_view(camera, splats, BLACK).image.clamp(0, 1))
    assert not target.requires_grad
    levels = target * 255
    assert (levels - levels.round()).abs().max() > 0.2


def test_quality_is_measured_as_if_there_were_photographs(checkpoint: Path):
    splats = GaussianModel.load_ply(ply_of(checkpoint))
    cameras = known_cameras(checkpoint)[:2]
    exact = Views(cameras, OwnRenders(splats, BLACK).load, BLACK, 1.0)
    judge = Judge(exact, assumed=ViewMetrics(30.0, 0.9))
    verdict = judge.judge(splats)
    assert verdict.measured.psnr == judge.evaluate(splats).psnr == float("inf")
    assert (verdict.counted.psnr, verdict.counted.ssim) == (pytest.approx(30.0), pytest.approx(0.9))
    changed = replace(splats, sh_dc=splats.sh_dc + 0.1)
    for camera in cameras:
        verdict = replace(judge, views=exact.at([camera])).judge(changed)
        error = 10 ** (-verdict.measured.psnr / 10)
        assert 10 ** (-verdict.counted.psnr / 10) == pytest.approx(error + 1e-3, rel=1e-4)
    assert judge.judge(changed).counted.ssim < 0.9
    assert Judge(exact).judge(changed).estimated is None


def test_assumed_quality_is_what_independent_errors_give():
    """The original differs from photographs by noise, the compressed model from the original by other noise."""
    random = torch.Generator().manual_seed(0)
    photograph = torch.rand((48, 64, 3), generator=random) * 0.5 + 0.25
    original = photograph + 0.05 * torch.randn(photograph.shape, generator=random)
    compressed = original + 0.02 * torch.randn(photograph.shape, generator=random)
    expected = measure(compressed, photograph)
    assumed = against_photographs(measure(compressed, original), measure(original, photograph))
    assert assumed.psnr == pytest.approx(expected.psnr, abs=0.05)
    assert assumed.ssim == pytest.approx(expected.ssim, abs=0.005)


# --- Whole runs ------------------------------------------------------------------------------------------------------


def check_run(out: Path, result: Result, views: int) -> None:
    """What every run without photographs leaves, and that render.py and metrics.py go on from there."""
    rows = list(csv.DictReader((out / "journal.csv").open()))
    assert rows[0]["stage"] == "uncompressed" and float(rows[0]["psnr"]) == math.inf, "it is its own target"
    assert float(rows[0]["estimated_psnr"]) == pytest.approx(27.0, abs=1e-3)
    assert float(rows[1]["psnr"]) > float(rows[1]["estimated_psnr"])
    assert rows[-1]["stage"] == "final" and int(rows[-1]["bytes"]) == result.path.stat().st_size
    options = model_dir.read_options(out)
    assert options["source_path"] is None and Path(options["pretrained_ply"]).is_file()
    assert len(model_dir.read_cameras(out)) == views

    render.main(["-m", str(out)])
    assert len(list((out / "train" / f"ours_{result.iterations}" / "gt").glob("*.png"))) == views - -(-views // 8)
    test = out / "test" / f"ours_{result.iterations}"
    assert len(list((test / "gt").glob("*.png"))) == -(-views // 8)
    first = sorted(known_cameras(out), key=lambda camera: camera.name)[0]
    shown = measuring.read_image(test / "gt" / "00000.png")
    original = OwnRenders(GaussianModel.load_ply(options["pretrained_ply"]), BLACK).load(first)
    assert (shown - original).abs().max() <= 0.5 / 255 + 1e-6
    summary = measuring.measure_model_dir(out, None)[test.name]
    assert summary.metrics.psnr > 20.0


def test_a_run_with_the_cameras_alone(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = compress(tmp_path, "--pretrained_dir", str(checkpoint))
    output = capsys.readouterr().out
    assert "the model's own renders at the 24 cameras" in output
    assert "uncompressed: 150 Gaussians, the original itself" in output, "nothing is shown that was not measured"
    assert "to the original's renders (estimated to photographs: " in output
    check_run(tmp_path, result, views=24)
    assert model_dir.read_cameras(tmp_path)[0].width == model_dir.read_cameras(checkpoint)[0].width


def test_a_run_with_nothing_but_the_ply(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = compress(tmp_path, "--pretrained_ply", str(ply_of(checkpoint)))
    assert "at 24 placed cameras" in capsys.readouterr().out
    check_run(tmp_path, result, views=24)
    assert (model_dir.read_cameras(tmp_path)[0].width, model_dir.read_cameras(tmp_path)[0].height) == (64, 48)


def test_a_directory_without_cameras_is_like_a_lone_ply(checkpoint: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint / "point_cloud", bare / "point_cloud")
    first = compress(tmp_path / "a", "--pretrained_dir", str(bare))
    second = compress(tmp_path / "b", "--pretrained_ply", str(ply_of(checkpoint)))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_gaussians_are_split_by_default_only_where_cameras_are_known(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Placed cameras also see what nobody photographed, and a split there costs what photographs show."""
    shares: list[int] = []
    choose = regrow.choose

    def watched(scores, costs, gains, dropped, at_most) -> regrow.Change:
        shares.append(at_most)
        return choose(scores, costs, gains, dropped, at_most)

    monkeypatch.setattr(regrow, "choose", watched)
    one_round = ["--max_rounds", "1"]
    compress(tmp_path / "placed", "--pretrained_ply", str(ply_of(checkpoint)), *one_round)
    assert not shares and "no Gaussians are split (regrow_fraction: 0)" in capsys.readouterr().out
    compress(tmp_path / "given", "--pretrained_ply", str(ply_of(checkpoint)), "--regrow_fraction", "0.1", *one_round)
    assert shares == [15]
    compress(tmp_path / "known", "--pretrained_dir", str(checkpoint), *one_round)
    assert shares == [15, 15]
    assert "no Gaussians are split" not in capsys.readouterr().out


def test_the_checkpoints_background_is_kept(checkpoint: Path, tmp_path: Path):
    white = tmp_path / "white"
    shutil.copytree(checkpoint, white)
    model_dir.write_options(white, {"source_path": "/home/someone/data", "white_background": True})
    compress(tmp_path / "out", "--pretrained_dir", str(white))
    assert model_dir.read_options(tmp_path / "out")["white_background"] is True
    render.main(["-m", str(tmp_path / "out"), "--skip_train"])
    corners = [measuring.read_image(path)[0, 0].min() for path in (tmp_path / "out" / "test").rglob("gt/*.png")]
    assert max(corners) == 1.0


@pytest.mark.parametrize("with_photographs", [False, True])
@pytest.mark.parametrize("text", ["Namespace(white_background={})", "Namespace(a=Odd(), white_background={})"])
def test_the_checkpoints_background_counts_with_photographs_too(tmp_path: Path, with_photographs: bool, text: str):
    arguments = ["-m", str(tmp_path / "out"), "--pretrained_dir", str(tmp_path)]
    arguments += ["-s", str(tmp_path / "scene")] if with_photographs else []
    for white in (True, False):
        (tmp_path / "cfg_args").write_text(text.format(white))
        options = compression.with_background_of_checkpoint(train.parse(arguments))
        assert options.scene.white_background is white
    (tmp_path / "cfg_args").write_text("nothing that could be read")
    assert compression.with_background_of_checkpoint(train.parse(arguments)).scene.white_background is False


# --- What is refused -------------------------------------------------------------------------------------------------


def broken(checkpoint: Path, folder: Path, content: str) -> Path:
    shutil.copytree(checkpoint, folder)
    (folder / "cameras.json").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "not valid JSON"),
        ("{}", "not a list of cameras"),
        ("[]", "holds no cameras"),
        ('[{"img_name": "a", "width": 8}]', "cameras.json"),
    ],
)
def test_broken_cameras_end_in_one_line(
    checkpoint: Path, tmp_path: Path, content: str, message: str, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    folder = broken(checkpoint, tmp_path / "broken", content)
    monkeypatch.setattr(sys, "argv", ["train.py", "--pretrained_dir", str(folder), "-m", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit_info:
        cli.run(train.main)
    assert exit_info.value.code == cli.EXIT_BAD_INPUT
    error = capsys.readouterr().err.strip()
    assert message in error and "cameras.json" in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_cameras_of_one_name_are_refused(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "twice"
    shutil.copytree(checkpoint, folder)
    cameras = known_cameras(checkpoint)
    model_dir.write_cameras(folder, [*cameras, cameras[3]])
    with pytest.raises(UserError, match="2 cameras have the name 'view_003'"):
        compress(tmp_path / "out", "--pretrained_dir", str(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--view_count", "0"], "--view_count 0"),
        (["--view_size", "800"], "--view_size 800: must be WIDTHxHEIGHT"),
        (["--view_size", "4x9999999"], "--view_size"),
        (["--sh_degree", "1"], "use --sh_degree 3"),
    ],
)
def test_options_that_make_no_sense_are_refused(checkpoint: Path, tmp_path: Path, arguments: list[str], message: str):
    with pytest.raises(UserError, match=message):
        compress(tmp_path / "out", "--pretrained_ply", str(ply_of(checkpoint)), *arguments)


def test_render_says_where_the_original_is_missing(checkpoint: Path, tmp_path: Path):
    ply = tmp_path / "original.ply"
    shutil.copy(ply_of(checkpoint), ply)
    compress(tmp_path / "out", "--pretrained_ply", str(ply))
    moved = ply.rename(tmp_path / "moved.ply")
    with pytest.raises(UserError, match=r"original\.ply.*--pretrained_ply"):
        render.main(["-m", str(tmp_path / "out")])
    render.main(["-m", str(tmp_path / "out"), "--skip_train", "--pretrained_ply", str(moved)])
    assert any((tmp_path / "out" / "test").rglob("gt/*.png"))
