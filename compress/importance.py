"""How much each Gaussian matters to the training views: one function a score.

Every score takes the model (with the values its file would hold) and the views, and returns ``(N,)`` non-negative
numbers; the smallest are pruned first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compress.views import Views
from scene.gaussian_model import GaussianModel
from utils.losses import photometric_loss

Score = Callable[[GaussianModel, Views], Tensor]


def gradient_sum(splats: GaussianModel, views: Views) -> Tensor:
    """The published score: the gradient of the photometric loss, accumulated over all views.

    The score of a Gaussian is the sum over its six parameter tensors of the Euclidean norm of its accumulated
    gradient. The gradients are summed before the norm is taken, so views that disagree cancel.
    """
    parameters = splats.clone().requires_grad_()
    for camera in views.cameras:
        photometric_loss(views.render(camera, parameters).image, views.target(camera)).backward()
    norms = [
        tensor.grad.flatten(1).norm(dim=1) for _, tensor in parameters.named_parameters() if tensor.grad is not None
    ]
    return torch.stack(norms).sum(0) if norms else torch.zeros(len(splats))


SCORES: dict[str, Score] = {function.__name__: function for function in (gradient_sum,)}
"""The scores by the name that a recipe calls them."""
