"""Ctrl-C and SIGTERM end a program within two seconds, with one line that says how to go on, and no traceback.

A program calls :func:`watch` before it imports anything else: this module imports next to nothing, so that hardly a
moment is left in which Python would answer with a traceback.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

GRACE = 1.2
"""Seconds that a program has to clean up after itself before it is ended."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Watch:
    """What is known of the end.

    Attributes:
        received: The signal, once there was one.
        advice: Gives the command to go on with.
        may_speak: Whether it falls to this process to say why the program ends; only one does that shares a run.
        is_welcome: Whether the program runs until it is interrupted, so that nothing was cut short.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.advice: Callable[[], str] = same_command
        self.may_speak: Callable[[], bool] = lambda: True
        self.is_welcome = False
        self._is_speaking = False
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Answer signals from here on."""
        for number in _SIGNALS:
            signal.signal(number, self._interrupt)
        # Where nobody is there yet to catch the interruption: while the program is being imported.
        shown_by_python = sys.excepthook
        sys.excepthook = lambda *error: self.end() if self.received else shown_by_python(*error)
        # Python answers a signal between two of its instructions, which a long computation keeps it from. The number of
        # the signal is written to this pipe at once, and a thread of its own reads it there.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reading,), daemon=True).start()

    def _interrupt(self, number: int, frame: object) -> None:
        if self._is_speaking:
            return
        self.received = number
        # What is cut short while it cleans up would tell of it.
        sys.unraisablehook = lambda unraisable: None
        if _numba_is_linking():
            threading.Timer(0.05, _thread.interrupt_main, (number,)).start()
            return
        raise KeyboardInterrupt

    def _wait(self, reading: int) -> None:
        while (number := os.read(reading, 1)[0]) not in _SIGNALS:
            pass
        self.received = number
        time.sleep(GRACE)
        self.end()

    @contextmanager
    def speaking(self) -> Iterator[bool]:
        """Whether it falls to this process to say why the program ends, which no signal keeps it from in this block.

        torchrun ends all processes of a run when it has seen one end. The one that had just taken it upon itself to
        speak would otherwise be ended with nothing said, and the others would leave it to that one.
        """
        self._is_speaking = True
        with self._lock:
            yield self.may_speak()

    def end(self) -> None:
        """Print the line and end the process, from whichever thread comes first."""
        with self.speaking() as may_speak:
            if self.is_welcome:
                os._exit(0)
            number = self.received or signal.SIGINT
            word = "terminated" if number == signal.SIGTERM else "interrupted"
            try:
                line = f"{word}; go on with: {self.advice()}"
            except Exception:  # The program is in pieces; the line matters more than what became of the rest.
                line = word
            try:
                if may_speak:
                    os.write(2, f"\r{line}\n".encode(errors="replace") if os.isatty(2) else f"{line}\n".encode())
            finally:  # Whoever reads it may have ended as well.
                os._exit(128 + number)


def _numba_is_linking() -> bool:
    """Whether Numba compiles or loads a kernel, where LLVM calls back into Python and does not survive an exception."""
    module = sys.modules.get("numba.core.compiler_lock")
    return module is not None and module.global_compiler_lock.is_locked()


def same_command(*more: str, without: tuple[str, ...] = (), words: Sequence[str] | None = None) -> str:
    """The command that this process was started with, to be pasted into a shell.

    Args:
        more: Options to add where they are not there.
        without: Options to leave out.
        words: The command, where it is another one than Python knows.
    """
    import shlex  # It takes a while, in which Ctrl-C would not be answered yet.

    words = [word for word in (sys.orig_argv if words is None else words) if word not in without]
    return shlex.join([*words, *(option for option in more if option not in words)])


_watch = _Watch()


def watch() -> None:
    """Answer Ctrl-C and SIGTERM from here on."""
    _watch.begin()


def advise(advice: Callable[[], str]) -> None:
    """Say by what command an interrupted program goes on; by default it is started again."""
    _watch.advice = advice


def advice() -> str:
    """The command that an interrupted program goes on with."""
    return _watch.advice()


def speak_if(may_speak: Callable[[], bool]) -> None:
    """Ask, of several processes that share a run, which one is to say why it ends."""
    _watch.may_speak = may_speak


def last_words(line: str) -> None:
    """Say why the program ends, if that falls to this process. Signals do not cut it short."""
    with _watch.speaking() as may_speak, suppress(OSError):  # Whoever reads it may have ended as well.
        if may_speak:
            print(line, file=sys.stderr, flush=True)


def is_ending() -> bool:
    """Whether a signal has come that ends the program."""
    return _watch.received is not None


def welcome() -> None:
    """Take an interruption for the end that a program runs until: its exit code is 0, however long it cleans up."""
    _watch.is_welcome = True


def end() -> None:
    """End the process as interrupted."""
    _watch.end()
