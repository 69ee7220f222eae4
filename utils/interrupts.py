"""What :mod:`gsz.interrupts` does, for programs that torchrun may have started in several processes."""

from gsz import interrupts
from gsz.interrupts import advice, advise, end, is_ending, last_words, speak_if, watch, welcome
from utils import torchrun

__all__ = ["advice", "advise", "end", "is_ending", "last_words", "same_command", "speak_if", "watch", "welcome"]


def same_command(*more: str, without: tuple[str, ...] = ()) -> str:
    """As :func:`gsz.interrupts.same_command`, with torchrun and its options where it has started the program."""
    return interrupts.same_command(*more, without=without, words=torchrun.command())


advise(same_command)
speak_if(torchrun.is_first)
