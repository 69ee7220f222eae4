"""How good a model is on the views that decide when to stop, and which views those are.

Views that are held out tell how the model looks where it was not trained, but only if the checkpoint was not trained on
them either. A checkpoint that knows them loses several dB there as soon as fine-tuning stops showing them to it, pruned
or not, and every budget would be spent at once. So whether it knows them is measured first.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from compress.journal import Verdict
from compress.views import Views
from gsz.splats import Splats
from quality.lpips import Lpips
from quality.metrics import measure
from quality.summary import ViewMetrics, mean_metrics
from scene import FEW_VIEWS
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils import ranks

log = logging.getLogger(__name__)

KNOWN_MARGIN = 1.0
"""dB. Held-out views that the checkpoint renders better than its training views less this much, it was trained on."""


@dataclass(frozen=True)
class Judge:
    """Measures models on a set of views.

    Attributes:
        views: Where it looks.
        lpips: Measured as well where it is given.
        assumed: ``None`` where the targets are photographs. Where they are renders of the model that is compressed:
            what that model's quality against photographs is taken to be; see :func:`against_photographs`.
    """

    views: Views
    lpips: Lpips | None = None
    assumed: ViewMetrics | None = None

    def evaluate(self, splats: Splats) -> ViewMetrics:
        """The mean quality of a model against the views' targets."""
        return mean_metrics(self._measure_views(splats))

    def judge(self, splats: Splats) -> Verdict:
        """The mean quality of a model, with the estimate where one is needed."""
        measured = self._measure_views(splats)
        if self.assumed is None:
            return Verdict(mean_metrics(measured))
        return Verdict(mean_metrics(measured), mean_metrics([against_photographs(m, self.assumed) for m in measured]))

    @torch.no_grad()
    def _measure_views(self, splats: Splats) -> list[ViewMetrics]:
        model = GaussianModel.of(splats).to(self.views.background.device)  # Decoders return models on the CPU.
        return ranks.gathered(
            [
                measure(self.views.render(camera, model).image, self.views.target(camera), self.lpips)
                for camera in ranks.share(self.views.cameras)
            ]
        )


def against_photographs(to_original: ViewMetrics, original: ViewMetrics) -> ViewMetrics:
    """What a compressed model's quality would be, from what it is against the original's renders.

    Against its own renders the original has an infinite PSNR, and every drop from there is infinite. If the error
    against the original and the original's error against the photographs have nothing to do with each other, their
    squares add, and so do the values of 1 / SSIM - 1, which are squared errors relative to contrast.

    Args:
        to_original: Quality of the compressed model against the original's renders.
        original: Quality of the original against photographs.
    """
    error = 10.0 ** (-to_original.psnr / 10.0) + 10.0 ** (-original.psnr / 10.0)
    dissimilarity = 1.0 / max(to_original.ssim, 1e-3) + 1.0 / original.ssim - 1.0
    return ViewMetrics(psnr=-10.0 * math.log10(error), ssim=1.0 / dissimilarity, lpips=to_original.lpips)


@dataclass(frozen=True)
class Roles:
    """The views by what they are for.

    Attributes:
        training: To score and fine-tune on.
        judge: Measures the budget.
        placed: Whether the cameras were placed, and do not stand where photographs were taken.
    """

    training: Views
    judge: Judge
    placed: bool = False

    @property
    def everything(self) -> Views:
        """All of the views, to train on when nothing is judged any more."""
        by_name = {camera.name: camera for camera in [*self.training.cameras, *self.judge.views.cameras]}
        return self.training.at([by_name[name] for name in sorted(by_name)])


def assign_roles(
    training: Views, held_out: list[Camera], checkpoint: GaussianModel, lpips: Lpips | None = None
) -> Roles:
    """Judge on the held-out views; where the checkpoint was trained on them, give them back to training as well.

    With fewer than :data:`scene.FEW_VIEWS` views that the checkpoint knows, all of them judge.

    The checkpoint counts as trained on them if its PSNR there is no more than :data:`KNOWN_MARGIN` below its PSNR on as
    many training views, spread evenly.
    """
    judging = training.at(held_out)
    roles = Roles(training, Judge(judging, lpips))
    step = max(1, len(training) // max(len(held_out), 1))
    control = training.at(training.cameras[::step][: len(held_out)])
    on_held_out, on_control = (Judge(views).evaluate(checkpoint).psnr for views in (judging, control))
    if on_held_out < on_control - KNOWN_MARGIN:
        return roles
    log.info(
        "the checkpoint was trained on the validation views (%.1f dB there, %.1f dB on the others), so holding them "
        "out would measure forgetting: they stay in training, and the budget is measured against the photographs the "
        "checkpoint knows",
        on_held_out,
        on_control,
    )
    everything = roles.everything
    return Roles(everything, Judge(everything if len(everything) < FEW_VIEWS else judging, lpips))
