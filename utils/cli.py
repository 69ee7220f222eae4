"""The shell around every command-line tool: one-line errors, exit codes, log lines that do not break progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

from gsz.errors import UserError

EXIT_BAD_INPUT = 2


def say(message: str) -> None:
    """Print one line to standard output, above a progress bar where one is running."""
    tqdm.write(message, file=sys.stdout)
    sys.stdout.flush()


def warn(message: str) -> None:
    """Print one line to standard error, above a progress bar where one is running."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def bar_interval() -> float:
    """Seconds between two drawings of a long progress bar: rare where it goes to a log file."""
    return 0.1 if sys.stderr.isatty() else 30.0


def run(main: Callable[[], None]) -> None:
    """Run a tool's ``main``: a :class:`UserError` becomes one line on standard error and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except MemoryError:
        print("error: out of memory; try a smaller -r resolution or fewer Gaussians", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
