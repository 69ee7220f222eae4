"""Proves that a run ends with a page of its own, that the page holds what was measured and needs no network, and that
nothing in a file's name or content gets out of its place in it."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import pytest

import gsz
import report
import train
from compress.journal import read_journal
from gsz.errors import UserError
from programs import page, reporting
from programs.comparing import ComparedImages, Measured
from programs.tensorboard import WatchedRunDir
from quality.summary import ViewMetrics
from scene.gaussian_model import GaussianModel
from tests.compress.test_compress import SCHEDULE


@pytest.fixture(scope="module")
def run(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its page."""
    source, checkpoint = tiny
    folder = tmp_path_factory.mktemp("run")
    train.main(["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(folder), "--eval", *SCHEDULE])
    return folder


def text_of(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    table = text.split(f"<h2>{heading}</h2>")[1].split("</table>")[0].split("<tbody>")[1]
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in table.split("</tr>")[:-1]]


def test_a_run_ends_with_a_page_of_one_file_that_fetches_nothing(run: Path) -> None:
    text = text_of(run)
    assert len(text.encode()) < page.MOST_BYTES
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(link(?! rel=.icon. href=.data:,)|iframe|object|embed|base)\b", text)
    assert set(re.findall(r'\b(?:src|href)="([^"]{5})', text)) == {"data:"}
    assert not re.search(r"url\(|@import", (page.ASSETS / "page.css").read_text())


def test_the_page_says_what_the_journal_says(run: Path) -> None:
    text, journal = text_of(run), read_journal(run / "journal.csv")
    assert f"{journal[0].bytes / 1e6:.2f} → {journal[-1].bytes / 1e6:.3f} MB" in text
    rows = rows_of(text, "Size against quality")
    assert [row[0] for row in rows] == [*(row.stage for row in journal[:-1]), "this file"]
    assert [float(row[3]) for row in rows] == [round(row.psnr, 2) for row in journal]
    assert (run / "recipe.yaml").read_text().splitlines()[0] in text
    assert "pytorch" in text and "renderer" in text


def test_the_sizes_it_names_for_pick_give_those_rounds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picks = {row[0]: row[6].split() for row in rows_of(text_of(run), "Size against quality") if row[6]}
    stage, words = next(iter(picks.items()))
    options = train.parse(["-m", str(run), *words, "--final_iterations", "1"])
    assert options.pick is not None
    journal = read_journal(run / "journal.csv")
    fitting = next(row for row in journal[1:] if row.bytes <= options.pick)
    assert fitting.stage == stage


def test_views_are_measured_against_their_photographs_and_the_worst_is_first(run: Path) -> None:
    text = text_of(run)
    rows = rows_of(text, "View by view")
    lost = [float(row[3]) for row in rows]
    assert len(rows) == 3 and lost == sorted(lost, reverse=True)
    assert [float(row[1]) - float(row[2]) for row in rows] == pytest.approx(lost, abs=0.011)
    worst = re.search(r"<h3>Worst view: ([^,]*),", text)
    assert worst is not None and worst[1] == rows[0][0]


def test_the_models_and_cameras_of_the_viewer_are_in_the_page(run: Path, tmp_path: Path) -> None:
    text = text_of(run)
    models = re.findall(r'id="model-(\d)">([^<]*)<', text)
    assert [which for which, _ in models] == ["0", "1"]
    compressed = base64.b64decode(models[1][1])
    assert compressed == (run / "compressed.gsz").read_bytes()
    (tmp_path / "original.gsz").write_bytes(base64.b64decode(models[0][1]))
    assert len(gsz.read(tmp_path / "original.gsz")) == read_journal(run / "journal.csv")[0].gaussians
    cameras = re.search(r'id="cameras">([^<]*)<', text)
    assert cameras is not None
    assert {camera["img_name"] for camera in json.loads(cameras[1])} == {
        row[0] for row in rows_of(text, "View by view")
    }


def test_it_is_written_again_for_a_finished_run_also_without_its_scene(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = text_of(run)
    report.main(["-m", str(run)])
    assert text_of(run) == before
    options = (run / "options.yaml").read_text()
    try:
        (run / "options.yaml").write_text(re.sub("pretrained_dir: .*", "pretrained_dir: /nowhere", options))
        report.main(["-m", str(run)])
        assert "Size against quality" in text_of(run) and "View by view" not in text_of(run)
        assert "without pictures" in capsys.readouterr().err
    finally:
        (run / "options.yaml").write_text(options)
        (run / "report.html").write_text(before, encoding="utf-8")


def test_no_report_leaves_it_out(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    source, checkpoint = tiny
    words = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(tmp_path), *SCHEDULE]
    train.main([*words, "--no_report", "--max_rounds", "1"])
    assert (tmp_path / "compressed.gsz").is_file() and not (tmp_path / "report.html").exists()


HOSTILE = '</script><img src=x onerror="alert(1)">&"\''


def test_names_are_escaped_wherever_they_stand() -> None:
    made = (
        page.table(HOSTILE, [HOSTILE], [[HOSTILE]]) + page.tiles([(HOSTILE,) * 3]) + page.definitions([(HOSTILE,) * 2])
    )
    made += page.front_plot(HOSTILE, [page.Point(HOSTILE, 1000, 30.0, "final")]) + page.byte_bars(
        HOSTILE, {HOSTILE: 1}, {}
    )
    model = gsz.codec("gsz").fit(GaussianModel.empty(0)).encode(GaussianModel.empty(0))
    stage, data = page.Scene3D({HOSTILE: model}, [{"img_name": HOSTILE}], notes=[HOSTILE]).html()
    assert "<img" not in made + stage
    assert json.loads(data.split('id="cameras">')[1].split("</script>")[0])[0]["img_name"] == HOSTILE


def test_views_of_a_run_without_photographs_are_ordered_by_their_psnr() -> None:
    views = {"a": ViewMetrics(40.0, 1.0), "b": ViewMetrics(30.0, 1.0), "c": ViewMetrics(50.0, 1.0)}
    measured = Measured("", views)
    looks = reporting.Looks("", "renders of the original", ComparedImages([], lambda _: {}), None, measured, measured)
    assert reporting.chosen_views(looks) == {"Worst view": "b", "Median view": "a", "Best view": "c"}


def test_tensorboard_shows_every_stage_under_the_names_of_3dgs(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed; pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    source, checkpoint = tiny
    words = ["-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(tmp_path), *SCHEDULE]
    train.train(train.parse([*words, "--tensorboard", "--max_rounds", "1"]))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    journal = read_journal(tmp_path / "journal.csv")
    for name, column in (("total_points", "gaussians"), ("validation/loss_viewpoint - psnr", "psnr")):
        expected = [pytest.approx(getattr(row, column), rel=1e-6) for row in journal]
        assert [event.value for event in events.Scalars(name)] == expected
        assert [event.step for event in events.Scalars(name)] == [row.iteration for row in journal]


def test_a_missing_tensorboard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        WatchedRunDir(tmp_path, "validation")
