"""What a run comes to, stage by stage, for TensorBoard: ``train.py --tensorboard``, ``tensorboard --logdir output``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.journal import Journal, JournalRow
from compress.run_dir import RunDir, RunState
from gsz.errors import UserError

FOLDER = "tensorboard"


class WatchedRunDir(RunDir):
    """A run's folder, whose journal TensorBoard can watch.

    The scalars have the names that the 3DGS repository gives them where it has them: ``total_points`` and
    ``validation/loss_viewpoint - psnr``. They stand at the number of iterations of fine-tuning.

    Args:
        views: What the views are called that the run decides by.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, path: Path, views: str) -> None:
        super().__init__(path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard: the package tensorboard is not installed; pip install tensorboard"
            ) from error
        self._writer_class: Any = SummaryWriter
        self._writer: Any = None
        self._views = views

    def save_state(self, state: RunState) -> None:
        super().save_state(state)
        self._write(state.journal[-1])

    def complete(self, journal: Journal, compressed: Path) -> Path:
        self._write(journal[-1])
        self._writer.close()
        return super().complete(journal, compressed)

    def _write(self, row: JournalRow) -> None:
        if self._writer is None:
            self._writer = self._writer_class(str(self.path / FOLDER))
        scalars = {
            "total_points": row.gaussians,
            "file/bytes": row.bytes,
            f"{self._views}/loss_viewpoint - psnr": row.psnr,
            f"{self._views}/loss_viewpoint - ssim": row.ssim,
            f"{self._views}/loss_viewpoint - lpips": row.lpips,
        }
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, row.iteration)
        self._writer.flush()
