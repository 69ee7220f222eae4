"""The training itself: one iteration after another, from any state it was left in."""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import render
from gsz.errors import UserError
from pretraining.checkpoint import TrainingState
from pretraining.densify import DensityRules, ScreenStatistics, densify_and_prune, reset_opacities
from pretraining.optimizer import SplatAdam
from pretraining.schedule import Schedule
from quality.losses import finite_loss, photometric_loss
from scene import Scene
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel
from utils import ranks

# Iterations between two looks at the loss where it is on a GPU, which a look makes the CPU wait for.
LOSS_EVERY_ON_CUDA = 50

# Independent sources of random numbers that one seed stands for.
STREAM_VIEWS, STREAM_POINTS, STREAM_CHILDREN = range(3)


def random_stream(seed: int, stream: int, index: int = 0) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments, so that a resumed training draws the same ones."""
    return np.random.default_rng([seed, stream, index])


class Trainer:
    """Trains Gaussians on a scene's training views.

    Attributes:
        iteration: Number of iterations done.
    """

    def __init__(
        self,
        scene: Scene,
        splats: GaussianModel,
        schedule: Schedule,
        rules: DensityRules,
        *,
        seed: int = 0,
        white_background: bool = False,
        backend: str = "auto",
    ) -> None:
        self.scene = scene
        self.schedule = schedule
        self.rules = rules
        self.seed = seed
        self.white_background = white_background
        self.backend = backend
        self.iteration = 0
        self._optimizer = SplatAdam(splats)
        self._begin_statistics()
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    @property
    def splats(self) -> GaussianModel:
        return self._optimizer.splats

    def settings(self) -> dict[str, Any]:
        """All that the result depends on besides the number of iterations and the pictures themselves."""
        return {
            **asdict(self.schedule),
            **asdict(self.rules),
            "seed": self.seed,
            "sh_degree": self.splats.sh_degree,
            "background": [float(value) for value in self.scene.background],
            "training views": [f"{view.name} {view.width}x{view.height}" for view in self.scene.train],
        }

    def state(self) -> TrainingState:
        """What :meth:`restore` needs to go on from here; shares memory with the trainer.

        Raises:
            UserError: the processes that share the run no longer hold the same model.
        """
        ranks.check_same(f"iteration {self.iteration}", (tensor for _, tensor in self.splats.named_parameters()))
        return TrainingState(
            self.iteration, self.splats, self._optimizer.moments(), self._all_statistics(), self.settings()
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from a state that a trainer with the same settings was in."""
        self.iteration = state.iteration
        self._optimizer = SplatAdam(state.splats, state.moments)
        self._begin_statistics()
        if ranks.is_first():  # What has been gathered counts once.
            self._statistics = state.statistics

    def step(self, last: int | None = None) -> float | None:
        """Do one iteration on the next view; processes that share a run do as many at once, each on its own view.

        Args:
            last: The iteration that is not counted beyond.

        Returns:
            Its loss; on CUDA only now and then, else ``None``.

        Raises:
            UserError: the loss is not finite, or no Gaussian is left.
        """
        camera = self._view(self.iteration + ranks.rank())
        iteration = min(self.iteration + ranks.count(), last or sys.maxsize)
        done, self.iteration = iteration - self.iteration, iteration
        gathers = self.schedule.gathers_statistics(iteration)
        rendering = render(
            camera,
            self.splats,
            self.scene.background,
            backend=self.backend,
            sh_degree=self.schedule.sh_degree(iteration, self.splats.sh_degree),
            screen_offsets=self._screen_offsets if gathers else None,
        )
        loss = photometric_loss(rendering.image, self.scene.images.load(camera))
        value = self._look_at(loss, camera)
        loss.backward()
        if gathers and self._screen_offsets.grad is not None:
            self._statistics.add(self._screen_offsets.grad, rendering.radii, camera.width, camera.height)
            self._screen_offsets.grad = None
        ranks.average_gradients(tensor for _, tensor in self.splats.named_parameters())
        self._optimizer.step(self.schedule.learning_rates(iteration, self.scene.extent))
        if self.schedule.densifies(iteration, done):
            self._densify()
        if self.schedule.resets_opacity(iteration, self.white_background, done):
            self._optimizer.overwrite("opacity_logits", reset_opacities(self.splats.opacity_logits.detach()))
        return value

    @torch.no_grad()
    def render(self, camera: Camera) -> Tensor:
        """``(H, W, 3)`` picture of a view as the model is now, in [0, 1]."""
        rendering = render(
            camera,
            self.splats,
            self.scene.background,
            backend=self.backend,
            sh_degree=self.schedule.sh_degree(self.iteration, self.splats.sh_degree),
        )
        return rendering.image.clamp(0, 1)

    def photograph(self, camera: Camera) -> Tensor:
        """``(H, W, 3)`` photograph of a view, in [0, 1]."""
        return self.scene.images.load(camera)

    def _look_at(self, loss: Tensor, camera: Camera) -> float | None:
        if loss.is_cuda and self.iteration % LOSS_EVERY_ON_CUDA:
            return None
        return finite_loss(loss, camera.name, f"iteration {self.iteration}")

    def _densify(self) -> None:
        generator = torch.Generator().manual_seed(
            int(random_stream(self.seed, STREAM_CHILDREN, self.iteration).integers(2**63))
        )
        splats, origin = densify_and_prune(
            self.splats,
            self._all_statistics(),
            self.rules,
            self.scene.extent,
            self.schedule.prunes_large(self.iteration),
            generator,
        )
        if not len(splats):
            raise UserError(
                f"no Gaussian is left after iteration {self.iteration}: all were too faint or too large; "
                "check that photographs and camera poses belong together, or lower --min_opacity"
            )
        self._optimizer.replace(splats, origin)
        self._begin_statistics()

    def _begin_statistics(self) -> None:
        count, device = len(self.splats), self.splats.device
        self._statistics = ScreenStatistics(count, device)
        # Added to the positions on the screen; always zero, it is there to collect their gradient.
        self._screen_offsets = torch.zeros(count, 2, device=device, requires_grad=True)

    def _all_statistics(self) -> ScreenStatistics:
        """What all processes have gathered since the last densification."""
        if ranks.count() == 1:
            return self._statistics
        pooled = copy.deepcopy(self._statistics)
        ranks.total(pooled.gradient_sum, pooled.views)
        ranks.largest(pooled.max_radii)
        return pooled

    def _view(self, number: int) -> Camera:
        """Every training view once an epoch, in an order that depends on the seed and the epoch alone."""
        epoch, place = divmod(number, len(self.scene.train))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = random_stream(self.seed, STREAM_VIEWS, epoch).permutation(len(self.scene.train))
        return self.scene.train[self._order[place]]
