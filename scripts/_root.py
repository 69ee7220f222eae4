"""Puts the repository on the path: ``python scripts/NAME.py`` finds only what lies beside NAME. Imported first."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gsz.interrupts import watch  # noqa: E402

__all__ = ["ROOT", "watch"]
