"""Which views decide when to stop, and which are left to train on.

Views that are held out tell how the model looks where it was not trained, but only if the checkpoint was not trained on
them either. A checkpoint that knows them loses several dB there as soon as fine-tuning stops showing them to it, pruned
or not, and every budget would be spent at once. So whether it knows them is measured first.
"""

from __future__ import annotations

from dataclasses import dataclass

from compress.views import Views
from scene import FEW_VIEWS
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

KNOWN_MARGIN = 1.0
"""dB. Held-out views that the checkpoint renders better than its training views less this much, it was trained on."""


@dataclass(frozen=True)
class Roles:
    """The views by what they are for.

    Attributes:
        training: To score and fine-tune on.
        judging: To measure the budget on.
        note: A line for the log where the roles are not what the recipe asked for, else empty.
    """

    training: Views
    judging: Views
    note: str = ""

    @property
    def everything(self) -> Views:
        """All of the views, to train on when nothing is judged any more."""
        by_name = {camera.name: camera for camera in [*self.training.cameras, *self.judging.cameras]}
        return self.training.of([by_name[name] for name in sorted(by_name)])


def assign_roles(training: Views, held_out: list[Camera], checkpoint: GaussianModel) -> Roles:
    """Judge on the held-out views; where the checkpoint was trained on them, give them back to training as well.

    With fewer than :data:`scene.FEW_VIEWS` views that the checkpoint knows, all of them judge.

    The checkpoint counts as trained on them if its PSNR there is no more than :data:`KNOWN_MARGIN` below its PSNR on as
    many training views, spread evenly.
    """
    judging = training.of(held_out)
    step = max(1, len(training) // max(len(held_out), 1))
    control = training.of(training.cameras[::step][: len(held_out)])
    on_held_out, on_control = judging.evaluate(checkpoint).psnr, control.evaluate(checkpoint).psnr
    if on_held_out < on_control - KNOWN_MARGIN:
        return Roles(training, judging)
    note = (
        f"the checkpoint was trained on the validation views ({on_held_out:.1f} dB there, {on_control:.1f} dB on the "
        "others), so holding them out would measure forgetting: they stay in training, and the budget is measured "
        "against the photographs the checkpoint knows"
    )
    everything = Roles(training, judging).everything
    return Roles(everything, everything if len(everything) < FEW_VIEWS else judging, note)
