"""Proves how programs answer: at once, in one line where they fail or are stopped, and quietly in logs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny_run import write_tiny_scene
from utils import cli
from utils.progress import counted

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("train.py", "pretrain.py", "render.py", "metrics.py")
ENDS_WITHIN = 4.0
"""Seconds; the promise is two, on a machine that does nothing else."""


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- At once ---------------------------------------------------------------------------------------------------------


def test_reading_the_command_line_waits_for_no_large_library():
    large = ("torch", "numba", "scipy", "matplotlib", "PIL")
    code = f"import sys, train, pretrain, render, metrics; print([name for name in {large} if name in sys.modules])"
    assert python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_the_choices(program: str):
    process = start(program, "--help")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors
    if program != "metrics.py":
        assert "{auto,inria,gsplat,warp,cpu}" in output
    if program == "train.py":
        assert "{last,best}" in output and "{validation,test}" in output and "NAME[:key=value,...]" in output


def test_the_backends_that_can_be_named_are_those_there_are():
    import gaussian_renderer
    from programs.options import BackendName

    assert BackendName == gaussian_renderer.BackendName


# --- Stopped ---------------------------------------------------------------------------------------------------------


def stop(process: subprocess.Popen[str], number: int) -> tuple[float, str]:
    """Send a signal; returns the seconds until the end and what was said on standard error."""
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return time.monotonic() - began, errors


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.25, 1.0, 2.0])
def test_a_program_that_is_stopped_while_it_starts_says_one_line(tmp_path: Path, number: int, after: float):
    source, checkpoint = write_tiny_scene(tmp_path, 40)
    words = ["train.py", "-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(tmp_path / "a b")]
    process = start(*words)
    time.sleep(after)
    seconds, errors = stop(process, number)
    assert process.returncode == 128 + number and seconds < ENDS_WITHIN
    assert "Traceback" not in errors
    (line,) = errors.splitlines()
    command = f"{sys.executable} {' '.join(words[:-1])} '{tmp_path}/a b'"
    # On a fast machine there is a state to resume from after two seconds.
    assert (
        line.removesuffix(" --resume")
        == f"{'interrupted' if number == signal.SIGINT else 'terminated'}; go on with: {command}"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_how_to_resume_it(tmp_path: Path, number: int):
    source, checkpoint = write_tiny_scene(tmp_path, 40)
    out = tmp_path / "out"
    words = ["train.py", "-s", str(source), "--pretrained_dir", str(checkpoint), "-m", str(out), "--overwrite"]
    process = start(*words, "--first_iterations", "100000")
    wait_until((out / "resume" / "state.npz").is_file, process)
    seconds, errors = stop(process, number)
    assert process.returncode == 128 + number and seconds < ENDS_WITHIN
    assert "Traceback" not in errors
    expected = " ".join([sys.executable, *words[:-1], "--first_iterations", "100000", "--resume"])
    assert errors.splitlines()[-1].endswith(f"; go on with: {expected}")
    assert not [path for path in out.rglob(".*") if path.is_file()], "nothing is left half-written"


def test_what_does_not_return_to_python_is_ended_all_the_same():
    code = """
from utils import interrupts
interrupts.watch()
import hashlib
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"a minute of work that no signal interrupts", b"", 60_000_000)
"""
    process = start("-c", code)
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    seconds, errors = stop(process, signal.SIGTERM)
    assert process.returncode == 143 and seconds < ENDS_WITHIN and errors.startswith("terminated; go on with: ")


@pytest.mark.parametrize(("number", "code"), [(int(signal.SIGTERM), 143), (None, 2)])
def test_exit_codes_hold_where_nobody_reads_what_is_said(number: int | None, code: int):
    """Ctrl-C ends what a program's output was piped to as well."""
    program = f"""
from utils import cli, interrupts
interrupts.watch()
import os, time
from gsz.errors import UserError

def main():
    os.read(0, 1)
    if {number!r} is None:
        raise UserError("it fails")
    os.kill(os.getpid(), {number!r})

cli.run(main)
"""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stderr=writing)
    os.close(reading)
    os.close(writing)
    process.communicate(b"x", timeout=30)
    assert process.returncode == code


LAST_WORDS = {
    "fail": "error: the others have ended",
    "interrupt": "terminated; go on with: the same",
}


@pytest.mark.parametrize("how", LAST_WORDS)
def test_a_signal_does_not_cut_short_what_is_said_at_the_end(how: str):
    """torchrun ends the processes of a run while one of them, having claimed to be the one that speaks, does so."""
    code = f"""
from utils import cli, interrupts
interrupts.watch()
import os, signal
from gsz.errors import UserError

claimed = []
def claims():
    os.kill(os.getpid(), signal.SIGTERM)
    claimed.append(True)
    return len(claimed) == 1

def main():
    if {how!r} == "fail":
        raise UserError("the others have ended")
    os.kill(os.getpid(), signal.SIGTERM)

interrupts.speak_if(claims)
interrupts.advise(lambda: "the same")
cli.run(main)
"""
    process = start("-c", code)
    _, errors = process.communicate(timeout=30)
    assert errors.splitlines() == [LAST_WORDS[how]]
    assert process.returncode == (2 if how == "fail" else 143)


def test_an_interruption_waits_until_a_kernel_is_loaded():
    """LLVM calls back into Python meanwhile, and an exception there once ended a program in a segmentation fault."""
    code = """
from utils import interrupts
interrupts.watch()
import os, signal, time
from numba.core.compiler_lock import global_compiler_lock
try:
    with global_compiler_lock:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        print("loaded", flush=True)
    time.sleep(0.5)
    print("not interrupted", flush=True)
except KeyboardInterrupt:
    interrupts.end()
"""
    process = start("-c", code)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "loaded\n") and errors.startswith("interrupted; go on with: ")


# --- What goes wrong -------------------------------------------------------------------------------------------------


def test_too_little_memory_is_one_line_with_what_to_do(capsys: pytest.CaptureFixture[str]):
    def on_the_cpu() -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    def on_the_host() -> None:
        bytearray(1 << 60)

    def on_a_gpu() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation.")

    for main in (on_the_cpu, on_the_host, on_a_gpu):
        with pytest.raises(SystemExit) as ended:
            cli.run(main, "give a smaller -r")
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: there is not enough memory (") and line.endswith("; give a smaller -r")


def test_other_errors_are_not_taken_for_it():
    def broken() -> None:
        raise RuntimeError("the size of tensor a must match the size of tensor b")

    with pytest.raises(RuntimeError, match="tensor a"):
        cli.run(broken)


def test_what_a_terminal_cannot_show_ends_no_program():
    code = "from utils import cli; cli.run(lambda: (cli.say('caf\\u00e9 \\u2192 \\U0001f600'), cli.warn('\\u00e9')))"
    done = python(code, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert done.returncode == 0 and done.stdout == "caf? ? ?\n" and done.stderr == "warning: ?\n"


def test_messages_of_libraries_are_lines_and_warnings_are_marked(capsys: pytest.CaptureFixture[str]):
    logging.getLogger("compress.loop").info("%d rounds", 3)
    logging.getLogger("scene.images").warning("%s: is dark", "a.png")
    logging.getLogger("matplotlib").info("nobody needs to know")
    printed = capsys.readouterr()
    assert printed.out == "3 rounds\n" and printed.err == "warning: a.png: is dark\n"


# --- Progress --------------------------------------------------------------------------------------------------------


def test_the_time_left_leaves_out_what_is_compiled_first():
    now = [0.0]
    left = cli.TimeLeft(lambda: now[0])
    now[0] = 40.0  # The first step compiles for forty seconds; each of the others takes a tenth of one.
    estimates = [left.after(1, 1001)]
    for step in range(2, 100):
        now[0] += 0.1
        estimates.append(left.after(step, 1001))
    known = [estimate for estimate in estimates if estimate is not None]
    assert estimates[:10] == [None] * 10, "a few steps say little"
    assert known[0] == pytest.approx(0.1 * 980, rel=0.1) and known[-1] == pytest.approx(0.1 * 902, rel=0.02)


def test_the_time_left_follows_the_last_minute():
    now = [0.0]
    left = cli.TimeLeft(lambda: now[0])
    for step in range(1, 200):
        now[0] += 0.1
        left.after(step, 1000)
    for step in range(200, 400):
        now[0] += 1.0
        estimate = left.after(step, 1000)
    assert estimate == pytest.approx(601.0, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99.0, "99 s"),
        (100.0, "2 min"),
        (5940.0, "99 min"),
        (6000.0, "1 h 40 min"),
        (36300.0, "10 h 05 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str):
    assert cli.duration(seconds) == text


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    with cli.progress_bar("render", "views") as progress:
        for number in counted(range(100), progress):
            now[0] += 1.0
            if number == 50:
                cli.say("halfway")
    printed = capsys.readouterr()
    assert printed.out == "halfway\n"
    assert printed.err.splitlines() == [
        "render: 30 %, 30 of 100 views, about 70 s left",
        "render: 60 %, 60 of 100 views, about 40 s left",
        "render: 90 %, 90 of 100 views, about 10 s left",
    ]


def test_on_a_terminal_messages_stand_above_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(cli.progress_bar("render", "views"))
        progress(1, 4, "first")
        cli.say("a message")
        progress(2, 5, "second")
    printed = capsys.readouterr()
    assert printed.out == "a message\n"
    assert "1/4" in printed.err and "render" in printed.err
