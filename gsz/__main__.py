"""The command ``gsz``, also ``python -m gsz``: it answers Ctrl-C before it imports anything else."""

from __future__ import annotations

from gsz import interrupts


def main() -> None:
    """The console script."""
    interrupts.watch()
    from gsz import cli

    cli.main()


if __name__ == "__main__":
    main()
