"""Proves that pretrain.py trains as the 3DGS paper says and can be stopped at any checkpoint.

Densification: clones stay where they were, split children are distributed as their parent is and are 1.6 times smaller,
thresholds and the cap on the number hold, and an optimiser's rows follow their Gaussians. Schedules have the paper's
values. On a small scene of eight views the error falls, the model directory is complete, and a training that is stopped
and resumed ends in the same bytes as one that is not. Damaged checkpoints and unusable scenes give one-line errors.
"""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gaussian_renderer import render
from gsz.errors import UserError
from pretraining.checkpoint import load_checkpoint
from pretraining.checkpoint_files import latest_checkpoint
from pretraining.densify import (
    NEWBORN,
    DensityRules,
    ScreenStatistics,
    carry,
    choose_candidates,
    densify_and_prune,
    reset_opacities,
    rotate,
    split_in_two,
)
from pretraining.initial import mean_squared_neighbour_distance, splats_at_points
from pretraining.optimizer import SplatAdam
from pretraining.schedule import Schedule
from programs.options import PretrainOptions as Options
from programs.training import initial_splats
from programs.training import run as pretrain
from scene import PointCloud, open_scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from scene.options import SceneOptions
from tests.shared_run import run as run_shared

REPOSITORY = Path(__file__).resolve().parents[2]


def some_splats(count: int, *, scale: float | np.ndarray = 0.1, opacity: float = 0.5, seed: int = 0) -> GaussianModel:
    random = np.random.default_rng(seed)
    return GaussianModel.from_arrays(
        means=random.normal(size=(count, 3)),
        log_scales=np.log(np.broadcast_to(scale, (count, 3))),
        quaternions=random.normal(size=(count, 4)),
        opacity_logits=np.full(count, math.log(opacity / (1 - opacity))),
        sh_dc=random.normal(size=(count, 3)),
        sh_rest=random.normal(size=(count, 15, 3)),
    )


def statistics_of(gradients: list[float]) -> ScreenStatistics:
    statistics = ScreenStatistics(len(gradients))
    statistics.gradient_sum = torch.tensor(gradients) * 4
    statistics.views.fill_(4)
    return statistics


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------- densification


def test_small_gaussians_with_high_gradients_are_cloned_in_place() -> None:
    splats = some_splats(4, scale=0.005)
    grown, origin = densify_and_prune(
        splats,
        statistics_of([1e-3, 0, 3e-4, 1e-5]),
        DensityRules(),
        extent=1.0,
        prune_large=False,
        generator=generator(),
    )
    assert origin.tolist() == [0, 1, 2, 3, NEWBORN, NEWBORN]
    for (_, before), (_, after) in zip(splats.named_parameters(), grown.named_parameters(), strict=True):
        assert torch.equal(after[:4], before)
        assert torch.equal(after[4:], before[[0, 2]])


def test_large_gaussians_with_high_gradients_are_replaced_by_two_smaller_ones() -> None:
    splats = some_splats(3, scale=np.array([0.5, 0.02, 0.1]))
    grown, origin = densify_and_prune(
        splats, statistics_of([0, 1e-3, 0]), DensityRules(), extent=1.0, prune_large=False, generator=generator()
    )
    assert origin.tolist() == [0, 2, NEWBORN, NEWBORN]
    torch.testing.assert_close(grown.scales[2:], splats.scales[[1, 1]] / 1.6)
    for name in ("quaternions", "opacity_logits", "sh_dc", "sh_rest"):
        assert torch.equal(getattr(grown, name)[2:], getattr(splats, name)[[1, 1]])
    assert not torch.equal(grown.means[2], grown.means[3])


def test_split_children_are_distributed_as_their_parent() -> None:
    parent = some_splats(1, scale=np.array([2.0, 0.5, 0.05]))
    count = 20_000
    children = split_in_two(parent.select(torch.zeros(count, dtype=torch.long)), generator())
    offsets = (children.means - parent.means).double()
    axes = rotate(parent.rotations.expand(3, 4), torch.eye(3)).double().T
    # In the parent's own axes, in units of its standard deviations, the offsets are a standard normal distribution.
    whitened = offsets @ axes / parent.scales.double()
    assert len(children) == 2 * count
    torch.testing.assert_close(whitened.mean(0), torch.zeros(3).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(whitened.T @ whitened / len(whitened), torch.eye(3).double(), atol=0.04, rtol=0)


def test_rotate_agrees_with_the_rotation_matrix_of_a_quaternion() -> None:
    quarter_turn_about_z = torch.tensor([[math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)]])
    torch.testing.assert_close(
        rotate(quarter_turn_about_z, torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([[-2.0, 1.0, 3.0]])
    )


def test_faint_gaussians_are_pruned_and_large_ones_only_after_the_first_reset() -> None:
    scales = np.array([[0.05] * 3, [0.05] * 3, [0.3, 0.05, 0.05]])
    splats = some_splats(3, scale=scales)
    splats.opacity_logits[1] = math.log(0.004 / 0.996)
    arguments = (statistics_of([0, 0, 0]), DensityRules(), 1.0)
    assert densify_and_prune(splats, *arguments, prune_large=False, generator=generator())[1].tolist() == [0, 2]
    assert densify_and_prune(splats, *arguments, prune_large=True, generator=generator())[1].tolist() == [0]


def test_screen_radius_prunes_where_it_is_asked_to() -> None:
    splats, statistics = some_splats(2, scale=0.05), statistics_of([0, 0])
    statistics.max_radii = torch.tensor([5.0, 30.0])
    rules = DensityRules(max_screen_radius=20)
    _, origin = densify_and_prune(splats, statistics, rules, 1.0, prune_large=True, generator=generator())
    assert origin.tolist() == [0]


def test_the_cap_takes_the_highest_gradients_first() -> None:
    splats = some_splats(4)
    gradients = torch.tensor([3e-4, 9e-4, 1e-5, 5e-4])
    assert choose_candidates(splats, gradients, DensityRules()).tolist() == [True, True, False, True]
    assert choose_candidates(splats, gradients, DensityRules(max_gaussians=6)).tolist() == [False, True, False, True]
    assert not choose_candidates(splats, gradients, DensityRules(max_gaussians=4)).any()
    # A Gaussian that is about to be pruned makes room, and its own offspring is not worth any.
    splats.opacity_logits[1] = -10.0
    assert choose_candidates(splats, gradients, DensityRules(max_gaussians=4)).tolist() == [False, False, False, True]


@pytest.mark.parametrize("scale", [0.005, 0.05])
def test_the_cap_is_never_exceeded(scale: float) -> None:
    splats = some_splats(50, scale=scale)
    gradients = np.random.default_rng(0).uniform(0, 1e-3, 50).tolist()
    rules = DensityRules(max_gaussians=57)
    grown, _ = densify_and_prune(splats, statistics_of(gradients), rules, 1.0, prune_large=False, generator=generator())
    assert len(grown) == 57


def test_densifying_no_gaussians_gives_none() -> None:
    grown, origin = densify_and_prune(
        GaussianModel.empty(), statistics_of([]), DensityRules(), 1.0, prune_large=True, generator=generator()
    )
    assert len(grown) == 0
    assert len(origin) == 0


def test_rows_follow_their_origin() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    assert carry(rows, torch.tensor([2, NEWBORN, 0])).tolist() == [[4, 5], [0, 0], [0, 1]]


def test_optimizer_rows_follow_their_gaussians() -> None:
    optimizer = SplatAdam(some_splats(3))
    rates = Schedule().learning_rates(1, extent=1.0)
    for _, tensor in optimizer.splats.named_parameters():
        tensor.grad = torch.randn(tensor.shape, generator=generator(1))
    optimizer.step(rates)
    before = optimizer.moments()
    optimizer.replace(optimizer.splats.select(torch.tensor([2, 0, 0])), torch.tensor([2, 0, NEWBORN]))
    after = optimizer.moments()
    for old, new in ((before.first, after.first), (before.second, after.second)):
        for (name, old_rows), (_, new_rows) in zip(old.named_parameters(), new.named_parameters(), strict=True):
            assert torch.equal(new_rows[:2], old_rows[[2, 0]]), name
            assert old_rows.any()
            assert not new_rows[2].any()
    assert after.steps == before.steps == dict.fromkeys(rates, 1)
    # The replaced tensors are the ones that are trained from now on.
    means = optimizer.splats.means.detach().clone()
    optimizer.splats.means.grad = torch.ones(3, 3)
    optimizer.step(rates)
    assert not torch.equal(optimizer.splats.means, means)


def test_opacity_reset_caps_and_forgets() -> None:
    optimizer = SplatAdam(some_splats(2))
    with torch.no_grad():
        optimizer.splats.opacity_logits[1] = -8.0
    optimizer.splats.opacity_logits.grad = torch.ones(2, 1)
    optimizer.step(dict.fromkeys(Schedule().learning_rates(1, 1.0), 0.0))
    optimizer.overwrite("opacity_logits", reset_opacities(optimizer.splats.opacity_logits.detach()))
    torch.testing.assert_close(optimizer.splats.opacities.detach(), torch.tensor([[0.01], [1 / (1 + math.exp(8))]]))
    assert not optimizer.moments().first.opacity_logits.any()
    assert not optimizer.moments().second.opacity_logits.any()


def test_statistics_are_in_normalized_device_coordinates_and_over_the_views_that_see() -> None:
    statistics = ScreenStatistics(2)
    statistics.add(torch.tensor([[0.03, 0.04], [0.0, 0.0]]), torch.tensor([7, 0], dtype=torch.int32), 200, 200)
    statistics.add(torch.tensor([[0.0, 0.01], [0.0, 0.0]]), torch.tensor([3, 0], dtype=torch.int32), 200, 400)
    torch.testing.assert_close(statistics.mean_gradients(), torch.tensor([(5.0 + 2.0) / 2, 0.0]))
    assert statistics.max_radii.tolist() == [7, 0]


# --------------------------------------------------------------------------------------------- schedule and beginning


def test_schedule_has_the_values_of_the_paper() -> None:
    schedule = Schedule()
    rates = schedule.learning_rates(0, extent=5.0)
    assert rates["means"] == pytest.approx(5 * 1.6e-4)
    assert rates["sh_rest"] == pytest.approx(0.0025 / 20)
    assert schedule.learning_rates(15_000, 5.0)["means"] == pytest.approx(5 * 1.6e-5)
    assert schedule.learning_rates(30_000, 5.0)["means"] == pytest.approx(5 * 1.6e-6)
    assert schedule.learning_rates(40_000, 5.0)["means"] == pytest.approx(5 * 1.6e-6)
    assert [schedule.sh_degree(i, 3) for i in (1, 999, 1000, 2999, 3000, 30_000)] == [0, 0, 1, 2, 3, 3]
    assert schedule.sh_degree(30_000, 1) == 1
    densified = [i for i in range(1, 30_001) if schedule.densifies(i)]
    assert (densified[0], densified[-1], len(densified)) == (600, 14_900, 144)
    assert [i for i in range(1, 30_001) if schedule.resets_opacity(i, False)] == [3000, 6000, 9000, 12_000]
    assert [i for i in range(1, 30_001) if schedule.resets_opacity(i, True)] == [500, 3000, 6000, 9000, 12_000]
    assert not schedule.prunes_large(3000)
    assert schedule.prunes_large(3100)


@pytest.mark.parametrize("views", [1, 3, 8])
def test_what_happens_at_an_iteration_happens_once_whatever_the_step(views: int) -> None:
    schedule = Schedule()
    steps = [(min(done + views, 30_000), min(views, 30_000 - done)) for done in range(0, 30_000, views)]
    assert sum(schedule.densifies(*step) for step in steps) == 144
    assert sum(schedule.resets_opacity(at, False, done) for at, done in steps) == 4
    assert sum(schedule.resets_opacity(at, True, done) for at, done in steps) == 5


def test_a_shorter_training_may_compress_the_schedule() -> None:
    short = Schedule().scaled_to(3000)
    assert (short.densify_from_iter, short.densify_until_iter, short.opacity_reset_interval) == (50, 1500, 300)
    assert short.sh_degree_interval == 100
    assert short.position_rate(3000) == pytest.approx(1.6e-6)
    assert short.densification_interval == 100
    assert Schedule().scaled_to(30_000) == Schedule()


def test_initial_scales_come_from_the_three_nearest_neighbors() -> None:
    line = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0], [100, 0, 0]])
    expected = [(1 + 9 + 49) / 3, (1 + 4 + 36) / 3]
    assert mean_squared_neighbour_distance(line)[:2] == pytest.approx(expected)
    splats = splats_at_points(PointCloud(line.astype(np.float32), np.full((5, 3), 51, np.uint8)), sh_degree=2)
    torch.testing.assert_close(splats.scales[0], torch.full((3,), math.sqrt(expected[0])))
    torch.testing.assert_close(splats.opacities, torch.full((5, 1), 0.1))
    torch.testing.assert_close(splats.sh_dc * 0.28209479 + 0.5, torch.full((5, 1, 3), 0.2))
    assert splats.sh_rest.shape == (5, 8, 3)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_or_coincident_points_get_a_finite_scale(count: int) -> None:
    splats = splats_at_points(PointCloud(np.zeros((count, 3), np.float32), np.zeros((count, 3), np.uint8)), sh_degree=0)
    torch.testing.assert_close(splats.scales, torch.full((count, 3), math.sqrt(1e-7)))


# ------------------------------------------------------------------------------------------------- whole trainings

WIDTH, HEIGHT, VIEWS = 32, 24, 8
# Everything that happens in a training happens within these 60 iterations.
ITERATIONS, STOP = 60, 25
SCHEDULE = Schedule(
    position_lr_max_steps=ITERATIONS,
    densify_from_iter=5,
    densify_until_iter=50,
    densification_interval=10,
    opacity_reset_interval=20,
    sh_degree_interval=15,
)


@pytest.fixture(scope="session")
def blender_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight views, and two to test on, of a ball of coloured blobs, in the layout of the Blender scenes."""
    folder = tmp_path_factory.mktemp("blobs")
    blobs = some_splats(40, scale=0.25, opacity=0.9, seed=7)
    blobs.means *= 0.4
    blobs.sh_rest *= 0.05
    fov_x = 0.9
    focal = WIDTH / (2 * math.tan(fov_x / 2))
    for split, angles in (("train", np.arange(VIEWS)), ("test", np.array([0.5, 4.5]))):
        frames = []
        for index, angle in enumerate(angles * 2 * math.pi / VIEWS):
            # OpenGL axes: the camera looks along -z, here at the origin, from four units away.
            right = np.array([-math.sin(angle), math.cos(angle), 0])
            backward = np.array([math.cos(angle), math.sin(angle), 0])
            pose = np.eye(4)
            pose[:3, :4] = np.stack([right, np.array([0, 0, 1.0]), backward, 4 * backward], axis=1)
            world_to_camera = np.linalg.inv(pose @ np.diag([1, -1, -1, 1]))
            camera = Camera("view", WIDTH, HEIGHT, focal, focal, WIDTH / 2, HEIGHT / 2, world_to_camera)
            image = render(camera, blobs, torch.zeros(3), backend="cpu").image.clamp(0, 1)
            name = f"{split}/r_{index}"
            (folder / split).mkdir(exist_ok=True)
            Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(folder / f"{name}.png")
            frames.append({"file_path": f"./{name}", "transform_matrix": pose.tolist()})
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": fov_x, "frames": frames}))
    return folder


def options_for(scene: Path, model_path: Path, **changes: Any) -> Options:
    options = Options(
        model_path=model_path,
        scene=SceneOptions(source_path=scene, eval=True),
        schedule=SCHEDULE,
        iterations=ITERATIONS,
        random_points=300,
        backend="cpu",
    )
    return replace(options, **changes)


def report_of(output: str, iteration: int, views: str) -> float:
    """The PSNR that was printed."""
    match = re.search(rf"iteration {iteration}, \d+ {views} views: PSNR ([\d.]+) dB", output)
    assert match, output
    return float(match[1])


def test_training_lowers_the_error_and_writes_a_model_directory(
    blender_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = replace(SCHEDULE, opacity_reset_interval=1000)
    options = options_for(blender_scene, tmp_path, schedule=schedule, iterations=200)
    path = pretrain(replace(options, save_iterations=(30,), test_iterations=(1,)))
    output = capsys.readouterr().out
    for views in ("test", "training"):
        assert report_of(output, 200, views) > report_of(output, 1, views) + 4
    assert path == tmp_path / "point_cloud/iteration_200/point_cloud.ply"
    assert str(path) in output.splitlines()[-1]
    for name in ("point_cloud/iteration_30/point_cloud.ply", "cameras.json", "cfg_args", "input.ply"):
        assert (tmp_path / name).is_file(), name
    trained = GaussianModel.load_ply(path)
    assert trained.sh_degree == 3
    assert trained.sh_rest.any()
    assert len(trained) != 300


def test_a_resumed_training_ends_in_the_same_bytes(blender_scene: Path, tmp_path: Path) -> None:
    whole = pretrain(options_for(blender_scene, tmp_path / "whole"))
    pretrain(options_for(blender_scene, tmp_path / "parts", iterations=STOP, checkpoint_iterations=(10, STOP)))
    assert latest_checkpoint(tmp_path / "parts") == tmp_path / "parts" / f"chkpnt{STOP}.npz"
    resumed = pretrain(options_for(blender_scene, tmp_path / "parts", resume=True))
    assert resumed.read_bytes() == whole.read_bytes()
    # The seed is what makes the difference.
    other = pretrain(options_for(blender_scene, tmp_path / "other", seed=1))
    assert other.read_bytes() != whole.read_bytes()


@pytest.mark.parametrize("changes", [{}, {"iterations": STOP, "checkpoint_iterations": (STOP,)}], ids=["whole", "part"])
def test_a_training_is_not_replaced_unasked(blender_scene: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = pretrain(options_for(blender_scene, tmp_path, **changes))
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds a training already; --resume goes on with it, --overwrite begins anew"):
        pretrain(options_for(blender_scene, tmp_path, **changes, seed=1))
    assert path.read_bytes() == before
    pretrain(options_for(blender_scene, tmp_path, **changes, seed=1, overwrite=True))
    assert path.read_bytes() != before


def test_processes_that_share_a_training_make_one_model(blender_scene: Path, tmp_path: Path) -> None:
    """Of the same bytes every time, interrupted or not, and with as many Gaussians as views that ask for them."""
    schedule = [f"--{name}={value}" for name, value in asdict(SCHEDULE).items()]
    arguments = ["-s", str(blender_scene), "--eval", "--random_points", "300", "--backend", "cpu", *schedule]

    def train(out: str, iterations: int, *more: str) -> str:
        where = ["-m", str(tmp_path / out), f"--iterations={iterations}"]
        return run_shared(2, REPOSITORY / "pretrain.py", *where, *arguments, *more)

    def model(out: str) -> bytes:
        return (tmp_path / out / f"point_cloud/iteration_{ITERATIONS}/point_cloud.ply").read_bytes()

    printed = train("whole", ITERATIONS)
    train("parts", 25, "--checkpoint_iterations", "23")  # Steps of two: it ends with the 24th.
    train("parts", ITERATIONS, "--resume")
    assert model("parts") == model("whole")
    pretrain(options_for(blender_scene, tmp_path / "alone"))
    shared, alone = (
        GaussianModel.load_ply(tmp_path / out / f"point_cloud/iteration_{ITERATIONS}/point_cloud.ply")
        for out in ("whole", "alone")
    )
    assert abs(len(shared) / len(alone) - 1) < 0.2
    assert printed.count("wrote ") == 1 and "2 processes shared the training" in printed
    # One process goes on with what two have begun.
    pretrain(options_for(blender_scene, tmp_path / "parts", iterations=ITERATIONS + 3, resume=True))


def test_the_cap_holds_in_training(blender_scene: Path, tmp_path: Path) -> None:
    scene = options_for(blender_scene, tmp_path)
    free = pretrain(replace(scene, model_path=tmp_path / "free", density=DensityRules(densify_grad_threshold=1e-6)))
    assert len(GaussianModel.load_ply(free)) > 350
    capped = DensityRules(densify_grad_threshold=1e-6, max_gaussians=350)
    path = pretrain(replace(scene, model_path=tmp_path / "capped", density=capped))
    assert 300 < len(GaussianModel.load_ply(path)) <= 350
    # More points than the cap to begin with: some of them are taken.
    path = pretrain(replace(scene, model_path=tmp_path / "few", density=DensityRules(max_gaussians=100), iterations=5))
    assert len(GaussianModel.load_ply(path)) == 100


def test_a_checkpoint_made_with_other_options_is_refused(blender_scene: Path, tmp_path: Path) -> None:
    pretrain(options_for(blender_scene, tmp_path, iterations=10, checkpoint_iterations=(10,)))
    with pytest.raises(UserError, match=r"chkpnt10\.npz: was made with seed = 0, not 3; "):
        pretrain(options_for(blender_scene, tmp_path, resume=True, seed=3))
    with pytest.raises(UserError, match="beyond --iterations 5"):
        pretrain(options_for(blender_scene, tmp_path, resume=True, iterations=5))


def test_damaged_checkpoints_are_refused_by_name(blender_scene: Path, tmp_path: Path) -> None:
    pretrain(options_for(blender_scene, tmp_path, iterations=10, checkpoint_iterations=(10,)))
    path = tmp_path / "chkpnt10.npz"
    whole = path.read_bytes()
    assert load_checkpoint(path).iteration == 10
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40
    for damaged in (b"", whole[: len(whole) // 2], whole[100:], bytes(flipped), b"PK\x03\x04" + bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"chkpnt10\.npz: is not a readable state .* delete it") as raised:
            load_checkpoint(path)
        assert "\n" not in str(raised.value)


def test_checkpoints_that_contradict_themselves_or_carry_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chkpnt1.npz"
    np.savez(path, iteration=np.array([print], dtype=object))
    with pytest.raises(UserError, match="holds something unexpected"):
        load_checkpoint(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("splats.means.npy", header.getvalue())
    with pytest.raises(UserError, match="is not a readable state"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("splats.means.npy", bytes(10**6))
    with pytest.raises(UserError, match="not stored as it should be"):
        load_checkpoint(path)


def test_a_training_that_loses_every_gaussian_says_so(blender_scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Gaussian is left after iteration 10"):
        pretrain(options_for(blender_scene, tmp_path, density=DensityRules(min_opacity=1.0)))
    assert not (tmp_path / "point_cloud").exists()


def test_the_command_line_turns_bad_input_into_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "pretrain.py", "-s", str(tmp_path / "none"), "-m", str(tmp_path / "model"), "--eval"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("change", [{"iterations": 0}, {"random_points": 0}])
def test_impossible_options_are_refused(blender_scene: Path, tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(change))} 0: must be at least 1"):
        pretrain(options_for(blender_scene, tmp_path, **change))


def test_impossible_schedules_and_rules_are_refused() -> None:
    with pytest.raises(UserError, match="--densification_interval 0: must be at least 1"):
        Schedule(densification_interval=0)
    with pytest.raises(UserError, match=r"--position_lr_init 0\.0: must be a positive number"):
        Schedule(position_lr_init=0.0)
    with pytest.raises(UserError, match="--feature_lr nan: must not be negative"):
        Schedule(feature_lr=math.nan)
    with pytest.raises(UserError, match="--max_gaussians -1: must not be negative"):
        DensityRules(max_gaussians=-1)


def test_a_scene_without_points_is_refused(blender_scene: Path, tmp_path: Path) -> None:
    options = options_for(blender_scene, tmp_path)
    scene = open_scene(options.scene, validation_every=0)
    scene.points = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    with pytest.raises(UserError, match="no points to begin with"):
        initial_splats(options, scene)
