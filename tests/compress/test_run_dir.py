"""Proves that a run's folder never loses what was in it: a finished run stays until the next one is complete, a refused
run changes nothing, files of other people are left alone, and another size is made from the folder alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import train
from compress.journal import read_journal
from compress.loop import Result
from compress.run_dir import RunDir, RunState
from gsz import registry
from gsz.errors import UserError
from programs import rendering
from scene import model_dir
from tests.tiny_run import tiny_splats, write_tiny_scene

SCHEDULE = ["--first_iterations", "2", "--round_iterations", "2", "--final_iterations", "3", "--max_rounds", "3"]
LIMITS = ["--codec", "lzma", "--max_psnr_drop", "inf", "--max_ssim_drop", "inf", "--end_with", "last"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_scene(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def whole(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert compress(tiny, out) is not None
    return out


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def compress(tiny: tuple[Path, Path], out: Path, *extra: str) -> Result | None:
    arguments = ["-s", str(tiny[0]), "--pretrained_dir", str(tiny[1]), "-m", str(out), "--eval"]
    return train.train(train.parse([*arguments, *SCHEDULE, *LIMITS, *extra]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


@contextmanager
def killed_after_states(count: int) -> Iterator[None]:
    saved: list[RunState] = []
    save = RunDir.save_state

    def save_then_die(run: RunDir, state: RunState) -> None:
        save(run, state)
        saved.append(state)
        if len(saved) == count:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDir, "save_state", save_then_die)
        yield


# --- Finished runs ---------------------------------------------------------------------------------------------------


def test_resuming_a_finished_run_does_nothing_and_says_so(
    tiny: tuple[Path, Path], finished: Path, capsys: pytest.CaptureFixture[str]
):
    before = contents(finished)
    assert compress(tiny, finished, "--resume") is None
    assert f"{finished}: the run is finished, there is nothing to resume" in capsys.readouterr().out
    assert train.train(train.parse(["-m", str(finished), "--resume"])) is None, "the folder alone is enough"
    with pytest.raises(UserError, match="has another recipe; --overwrite replaces it"):
        compress(tiny, finished, "--resume", "--seed", "3")
    assert contents(finished) == before


def test_a_finished_run_is_replaced_only_where_that_is_asked_for(tiny: tuple[Path, Path], finished: Path):
    before = contents(finished)
    with pytest.raises(UserError, match=r"holds a finished run; --overwrite replaces it"):
        compress(tiny, finished, "--seed", "3")
    assert contents(finished) == before
    assert compress(tiny, finished, "--seed", "3", "--overwrite") is not None
    after = contents(finished)
    assert after["compressed.gslzma"] != before["compressed.gslzma"] and "seed: 3" in after["recipe.yaml"].decode()
    assert after.keys() == before.keys()


def test_a_finished_run_stays_until_the_next_one_is_complete(tiny: tuple[Path, Path], finished: Path):
    before = contents(finished)
    (finished / "compressed.png").write_bytes(b"mine")
    (finished / "front" / "notes.txt").write_bytes(b"mine")
    with killed_after_states(3):
        compress(tiny, finished, "--overwrite", "--codec", "ply", "--max_rounds", "2")
    while_running = contents(finished)
    assert {name: while_running[name] for name in before} == before
    assert rendering.choose_model(finished).path.name == "compressed.gslzma"

    result = train.train(train.parse(["-m", str(finished), "--resume"]))
    assert result is not None and result.path == finished / "compressed.ply"
    assert sorted(contents(finished)) == sorted(
        ["cameras.json", "cfg_args", "compressed.ply", "compressed.png", "journal.csv", "made.yaml"]
        + ["options.yaml", "recipe.yaml", f"point_cloud/iteration_{result.iterations}/point_cloud.ply"]
        + [f"front/{name}" for name in ("first.ply", "notes.txt", "round_1.ply", "round_2.ply")]
    )
    assert not (finished / "resume").exists()


@pytest.mark.parametrize("moves", [1, 5, 9, 11])
def test_a_run_killed_while_it_is_put_in_place_is_put_there_the_next_time(
    tiny: tuple[Path, Path], whole: Path, finished: Path, moves: int
):
    """Nothing of either run is lost, and what is there in the end is the new one."""
    move, left = RunDir._move, [moves]

    def move_or_die(run: RunDir, path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        move(run, path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDir, "_move", move_or_die)
        compress(tiny, finished, "--overwrite", "--seed", "3")
    assert compress(tiny, finished, "--resume", "--seed", "3") is None
    expected = whole.parent / "seed 3"
    if not expected.exists():
        compress(tiny, expected, "--seed", "3")
    found, wanted = contents(finished), contents(expected)
    assert found.keys() == wanted.keys()
    models = [name for name in wanted if name.endswith((".gslzma", ".ply"))]
    assert len(models) == 6 and all(found[name] == wanted[name] for name in models)


# --- Unfinished runs -------------------------------------------------------------------------------------------------


def test_a_refused_resume_changes_nothing(tiny: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "run"
    with killed_after_states(2):
        compress(tiny, out)
    before = contents(out)
    with pytest.raises(UserError, match=r"prune_fraction = 0\.1, not 0\.5; give the same settings, or start again"):
        compress(tiny, out, "--resume", "--prune_fraction", "0.5")
    with pytest.raises(UserError, match="holds an unfinished run; --resume goes on with it"):
        compress(tiny, out)
    assert contents(out) == before


def test_the_folder_alone_is_enough_to_resume(tiny: tuple[Path, Path], whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    with killed_after_states(2):
        compress(tiny, out)
    result = train.train(train.parse(["-m", str(out), "--resume"]))
    assert result is not None and result.path.read_bytes() == (whole / "compressed.gslzma").read_bytes()


def test_an_unfinished_run_can_be_begun_anew(tiny: tuple[Path, Path], whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    with killed_after_states(4):
        compress(tiny, out, "--codec", "ply")
    (out / "front" / "mine.txt").write_text("mine")
    assert compress(tiny, out, "--overwrite") is not None
    assert contents(out).keys() == {*contents(whole), "front/mine.txt"}


def test_the_model_that_is_compressed_is_not_written_over(tiny: tuple[Path, Path], tmp_path: Path):
    trained = shutil.copytree(tiny[1], tmp_path / "trained")
    model_dir.write_options(trained, {"white_background": False})
    before = contents(trained)
    for arguments in (
        ["--pretrained_dir", str(trained)],
        ["--pretrained_dir", str(trained / ".." / "trained")],
        ["--pretrained_ply", str(model_dir.checkpoint_path(trained, 7000))],
    ):
        with pytest.raises(UserError, match="is the folder of the trained model"):
            train.train(train.parse([*arguments, "-m", str(trained), *SCHEDULE]))
    assert contents(trained) == before


@pytest.mark.parametrize(
    "name", ["cfg_args", "cameras.json", "compressed.spz", "point_cloud/iteration_7000/point_cloud.ply"]
)
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_the_files_of_others_are_not_written_over(tiny: tuple[Path, Path], tmp_path: Path, name: str, more: list[str]):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=rf"this program did not write and would replace \({name}\)"):
        compress(tiny, tmp_path / "out", *more)
    assert contents(tmp_path / "out") == {name: b"mine"}


# --- Another size ----------------------------------------------------------------------------------------------------


def test_another_size_needs_nothing_but_the_folder_and_leaves_no_other_model(finished: Path):
    journal = read_journal(finished / "journal.csv")
    size = int(journal[2].bytes * 0.99)
    others = {name for name in contents(finished) if not name.startswith("point_cloud/")}
    picked = train.train(train.parse(["-m", str(finished), "--pick", str(size)]))
    assert picked is not None and 0.98 * size <= picked.path.stat().st_size <= size
    assert picked.iterations < journal[-1].iteration
    models = sorted(path.name for path in (finished / "point_cloud").iterdir())
    assert models == [f"iteration_{picked.iterations}"]
    assert {name for name in contents(finished) if not name.startswith("point_cloud/")} == others
    assert rendering.choose_model(finished).method == f"ours_{picked.iterations}"
    assert [row.stage for row in read_journal(finished / "journal.csv")] == [row.stage for row in journal]


def test_a_size_that_no_round_has_changes_nothing(finished: Path):
    before = contents(finished)
    with pytest.raises(UserError, match="the smallest is"):
        train.train(train.parse(["-m", str(finished), "--pick", "1kB"]))
    assert {name: data for name, data in contents(finished).items() if not name.startswith("resume/")} == before
    assert train.train(train.parse(["-m", str(finished), "--resume"])) is None
    assert contents(finished) == before


def test_picking_needs_a_finished_run(tiny: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(UserError, match="holds no finished run"):
        compress(tiny, tmp_path / "nothing", "--pick", "1MB")
    assert not (tmp_path / "nothing").exists()


# --- Models of any format --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gsz", "spz", "sog", "lzma"])
def test_a_model_of_any_format_and_degree_is_compressed(tmp_path: Path, name: str):

    file = tmp_path / f"model{registry.find(name).suffix}"
    registry.write(file, tiny_splats(80, sh_degree=1), name)
    views = ["--view_count", "8", "--view_size", "64x48", "--validation_every", "4"]
    options = train.parse(["--pretrained_ply", str(file), "-m", str(tmp_path / "out"), *SCHEDULE, *LIMITS, *views])
    result = train.train(options)
    assert result is not None and result.splats.sh_degree == 1
    assert model_dir.read_options(tmp_path / "out")["sh_degree"] == 1
    assert result.journal[0].bytes == file.stat().st_size
