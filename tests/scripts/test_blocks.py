"""Proves that a model that is cut into blocks and joined again is the same model, that a block alone is asked for what
the photographs ask of the whole, and that blocks are scenes that a batch compresses."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import join_models
import numpy as np
import pytest
import run_datasets
import split_model
import torch
from blocks.cells import Cell, Partition
from blocks.scenes import Block, targets

import train
from compress.views import Views
from gsz.errors import UserError
from scene import GaussianModel, model_dir, open_scene
from scene.options import SceneOptions
from tests.helpers import assert_same_up_to_order


@pytest.fixture(scope="module")
def split(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> split_model.Options:
    source, checkpoint = tiny
    model = model_dir.checkpoint_path(checkpoint, 7000)
    scene = SceneOptions(source_path=source, eval=True)
    options = split_model.Options(model, tmp_path_factory.mktemp("split"), scene, blocks="2x2", overlap=0.2)
    split_model.split(options)
    return options


def whole_model(split: split_model.Options) -> GaussianModel:
    return GaussianModel.load_ply(split.model)


def test_every_gaussian_is_in_one_cell_and_cells_are_alike(split: split_model.Options):
    partition, whole = Partition.read(split.model_path / "blocks.json"), whole_model(split)
    inside = np.stack([cell.contains(partition.points(whole)) for cell in partition.cells])
    assert (inside.sum(0) == 1).all()
    assert np.ptp(inside.sum(1)) <= 2
    sizes = [len(GaussianModel.load_ply(path)) for path in (split.model_path / "models").rglob("point_cloud.ply")]
    assert len(sizes) == 4 and sum(sizes) > len(whole), "blocks overlap"


def test_what_was_cut_and_not_changed_is_joined_to_the_same_model(split: split_model.Options, tmp_path: Path):
    options = join_models.Options(split.model_path, tmp_path / "joined.ply", split.model_path / "models")
    join_models.join(options)
    assert_same_up_to_order(GaussianModel.load_ply(tmp_path / "joined.ply"), whole_model(split))


def test_blocks_have_the_cameras_of_the_scene_and_no_test_view_to_train_on(split: split_model.Options):
    scene = open_scene(split.scene, validation_every=0)
    for folder in (split.model_path / "scenes").iterdir():
        block = open_scene(SceneOptions(source_path=folder, eval=True), validation_every=0)
        assert {Path(camera.name).stem for camera in block.test} <= {Path(each.name).stem for each in scene.test}
        originals = {Path(camera.name).stem: camera for camera in [*scene.train, *scene.test]}
        assert len(block.train) > 2
        for camera in [*block.train, *block.test]:
            original = originals[Path(camera.name).stem]
            np.testing.assert_allclose(camera.world_to_camera, original.world_to_camera, atol=1e-9)
            assert (camera.width, camera.fx, camera.cx) == pytest.approx((original.width, original.fx, original.cx))


def test_targets_hand_the_error_of_the_whole_to_the_blocks(split: split_model.Options):
    """To one block all of it; to two, what each has a share of."""
    whole, scene = whole_model(split), open_scene(split.scene, validation_every=0)
    views = Views.of(scene, scene.train, "cpu")
    camera = scene.train[0]
    everything = torch.ones(len(whole), dtype=torch.bool)
    ((target, share),) = targets(camera, views, whole, [Block("0_0", everything)])
    covered = (
        views.render(camera, whole.replace(sh_dc=whole.sh_dc * 0 + 9, sh_rest=whole.sh_rest * 0)).image[..., 0] > 2.5
    )
    assert covered.any() and share > 0.1
    torch.testing.assert_close(target[covered], views.target(camera)[covered], atol=0.02, rtol=0)

    perfect = replace(views, target=lambda camera: views.render(camera, whole).image)
    half = torch.arange(len(whole)) % 2 == 0
    for block, (target, _) in zip(
        (half, ~half), targets(camera, perfect, whole, [Block("a", half), Block("b", ~half)]), strict=True
    ):
        alone = views.render(camera, whole.select(block)).image.clamp(0, 1)
        torch.testing.assert_close(target, alone, msg="where nothing is wrong a block is to stay as it is")


def test_blocks_are_compressed_and_joined(split: split_model.Options, tmp_path: Path, capsys):
    folder = split.model_path
    batch = ["--scenes", str(folder / "scenes"), "--checkpoints", str(folder / "models"), "-m", str(tmp_path)]
    run_datasets.main([*batch, "--skip_rendering", "--skip_metrics", "--dry_run"])
    commands = [shlex.split(line)[3:] for line in capsys.readouterr().out.splitlines()]
    assert [Path(command[-2]).name for command in commands] == ["0_0", "0_1", "1_0", "1_1"]
    schedule = "--first_iterations 2 --round_iterations 2 --final_iterations 4 --max_rounds 1 --max_psnr_drop inf"
    for command in commands:
        train.train(train.parse([*command, *schedule.split(), "--backend", "cpu"]))
    joined = join_models.join(join_models.Options(folder, tmp_path / "joined.gsz", tmp_path))
    assert 0.6 * 150 < len(joined) < 150 and len(GaussianModel.load_ply(tmp_path / "joined.gsz")) == len(joined)


def test_bad_input(split: split_model.Options, tmp_path: Path):
    with pytest.raises(UserError, match="--blocks 2by2: must be columns and rows"):
        split_model.split(replace(split, blocks="2by2"))
    with pytest.raises(UserError, match=r"--blocks 20x20: are more blocks than the 150 Gaussians"):
        split_model.split(replace(split, blocks="20x20"))
    (tmp_path / "blocks.json").write_text('{"axes": [[1, 0, 0]], "cells": []}')
    with pytest.raises(UserError, match=r"blocks\.json: is not what split_model\.py wrote \(its axes are no plane\)"):
        join_models.join(join_models.Options(tmp_path, tmp_path / "joined.ply"))
    (tmp_path / "blocks.json").write_text(
        '{"axes": [[1, 0, 0], [0, 1, 0]], "cells": [{"name": "../x", "low": [null, null], "high": [null, null]}]}'
    )
    with pytest.raises(UserError, match=r"'\.\./x' is no name of a block"):
        join_models.join(join_models.Options(tmp_path, tmp_path / "joined.ply"))


def test_a_cell_reaches_into_its_neighbors_by_a_part_of_its_size():
    cell = Cell("0_0", (-np.inf, -np.inf), (1.0, np.inf))
    points = np.stack([np.linspace(-1, 3, 401), np.zeros(401)], 1)
    margin = cell.margin(points, 0.1)
    assert margin[0] == pytest.approx(0.1 * 0.9 * 2.0, rel=0.02) and margin[1] == 0.0
    assert points[cell.contains(points, margin)][:, 0].max() == pytest.approx(1.0 + margin[0], abs=0.02)
