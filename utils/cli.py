"""The shell around every program: messages and progress on the terminal, errors of one line, exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from gsz.errors import UserError
from utils import interrupts, torchrun
from utils.progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

EXIT_BAD_INPUT = 2

OUR_PACKAGES = ("compress", "gaussian_renderer", "gsz", "pretraining", "programs", "quality", "scene", "utils")
"""Whose messages are shown; of other packages only warnings are."""

LINE_EVERY = 30.0
"""Seconds between two lines of progress where standard error is not a terminal."""


# --- Messages --------------------------------------------------------------------------------------------------------


def say(message: str) -> None:
    """Print a line to standard output, above a bar where one is drawn."""
    _write(message, sys.stdout)


def warn(message: str) -> None:
    """Print a warning to standard error, above a bar where one is drawn."""
    _write(f"warning: {message}", sys.stderr)


def _write(message: str, stream: object) -> None:
    if not torchrun.is_first():
        return
    bar = _Bar.drawn
    if bar is not None:
        bar.clear()
    print(message, file=stream, flush=True)  # type: ignore[call-overload]
    if bar is not None:
        bar.refresh()


class _Terminal(logging.Handler):
    """Shows messages of the libraries: warnings as such, all others as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            warn(message)
        else:
            say(message)


def show_messages() -> None:
    """Let the libraries' messages appear on the terminal from here on."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Terminal) for handler in root.handlers):
        root.addHandler(_Terminal())
    for name in OUR_PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


# --- Progress --------------------------------------------------------------------------------------------------------


class TimeLeft:
    """Estimates how long the rest takes, by the pace of the last minute.

    The first step is left out: it waits for code to be compiled and for files to be read.
    """

    WINDOW = 60.0
    ENOUGH_STEPS, ENOUGH_SECONDS = 5, 2.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[tuple[float, int]] = deque()

    def after(self, done: int, total: int) -> float | None:
        """Seconds that are left once ``done`` of ``total`` steps are; ``None`` where it is too early to tell."""
        now = self._clock()
        self._steps.append((now, done))
        while len(self._steps) > 2 and now - self._steps[1][0] >= self.WINDOW:
            self._steps.popleft()
        then, before = self._steps[0]
        if done - before < self.ENOUGH_STEPS or now - then < self.ENOUGH_SECONDS:
            return None
        return (now - then) / (done - before) * max(total - done, 0)


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Bar:
    """A progress, drawn as a bar on a terminal and else written as a line now and then."""

    drawn: tqdm | None = None
    """The bar that messages have to be written above."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._left = TimeLeft(lambda: time.monotonic())
        self._last_line = time.monotonic()
        self._bar: tqdm | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if not torchrun.is_first():
            return
        left = self._left.after(done, total)
        remaining = "" if left is None else f"about {duration(left)} left"
        words = ", ".join(filter(None, (remaining, note)))
        if sys.stderr.isatty():
            self._draw(done, total, words)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            share = f"{100 * done / max(total, 1):.0f} %, {done:,} of {total:,} {self._unit}"
            print(", ".join(filter(None, (f"{self._label}: {share}", words))), file=sys.stderr, flush=True)

    def _draw(self, done: int, total: int, words: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            self._bar = tqdm(desc=self._label, total=total, initial=done, leave=False, dynamic_ncols=True)
            self._bar.bar_format = layout
            _Bar.drawn = self._bar
        self._bar.total = total
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        _Bar.drawn = None


@contextmanager
def progress_bar(label: str, unit: str = "steps") -> Iterator[Progress]:
    """A progress bar to give to a function. It appears with the first step and disappears when the block ends."""
    bar = _Bar(label, unit)
    try:
        yield bar
    finally:
        bar.close()


# --- Running ---------------------------------------------------------------------------------------------------------


def run(main: Callable[[], object], spare_memory: str = "use a smaller model") -> NoReturn:
    """Run a tool's ``main`` and end the process with its exit code.

    What goes wrong is one line on standard error: exit code 2 for a :class:`UserError` and where memory does not
    suffice, 130 and 143 for Ctrl-C and SIGTERM.

    Args:
        spare_memory: What makes this program need less memory, for the message.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a program whose work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    show_messages()
    settle_threads()
    _let_cuda_memory_grow()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        interrupts.end()
    except BrokenPipeError:
        # Whoever reads the output has seen enough of it. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:
        if interrupts.is_ending():
            interrupts.end()
        if not is_out_of_memory(error):
            raise
        _fail(f"there is not enough memory ({first_line(error)}); {spare_memory}")
    _exit(0)


def meet_others() -> None:
    """Meet the other processes of the run where ``torchrun`` has started several; see :mod:`utils.ranks`."""
    if torchrun.is_used():
        from utils import ranks

        ranks.start()


def settle_threads() -> None:
    """Have PyTorch's threads and those of our kernels take turns on the processors, unless the user has set them up.

    Both do a few milliseconds of work at a time, one after the other. OpenMP's threads wait for more by spinning, and
    would take the processors from the others. Numba's portable threads are woken too late for so little work, so that
    OpenMP's come first where there are any. It has to be called before PyTorch is imported, and is for programs of our
    own: OpenMP's threads do not survive a fork.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if "NUMBA_THREADING_LAYER" not in os.environ:
        os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp workqueue tbb")


def _let_cuda_memory_grow() -> None:
    """Have PyTorch's CUDA allocator extend its segments, unless the user has set it up.

    Models shrink and grow, images differ in size, and lists of pairs in every view: fixed segments would fragment.
    PyTorch reads this when CUDA starts.
    """
    if sys.platform == "linux" and "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on the host or on a GPU.

    PyTorch has a class for it on GPUs, which is a RuntimeError, and none on the CPU.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory", "bad allocation")
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _fail(message: str) -> NoReturn:
    interrupts.speak_if(_is_first_to_speak)
    interrupts.last_words(f"error: {message}")
    _exit(EXIT_BAD_INPUT)


def _is_first_to_speak() -> bool:
    """Whether no other process of the run has said yet why it ends, also where they have not met."""
    if not torchrun.is_used():
        return True
    from utils import ranks

    return ranks.is_first_to_speak()


def _exit(code: int) -> NoReturn:
    """End the process; where several share a run, at once.

    The threads that PyTorch exchanges with do not always survive it that the interpreter is taken down under them.
    """
    if torchrun.is_used():
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
