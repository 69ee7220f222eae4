"""Every setting of a compression run. ``Recipe()`` is the default; a YAML file holds what differs from it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from compress.budget import Budget, fewest_left
from gsz import registry, spec
from gsz.errors import UserError
from gsz.registry import Codec
from utils.options import (
    Number,
    OptionalCount,
    OptionalNumber,
    OptionalRatio,
    OptionalSize,
    OptionalTruth,
    read_value,
)

ScoreName = Literal[
    "gradient_sum",
    "gradient_per_view",
    "gradient_and_opacity",
    "removal_error",
    "removal_loss",
    "blend_weight",
    "random",
]
"""The scores of :mod:`compress.importance`."""


ENOUGH_TO_LEARN = 2000
"""Final iterations from which on steps are learned, where it is not said. In short stages they are on their way when
they should have arrived."""
MAX_PSNR_DROP = 1.0
"""dB that a run without a target may lose, where it is not said."""
MAX_SSIM_DROP = 0.01
"""The same for SSIM."""
REGROW_FRACTION, MEANS_LR = 0.1, 1.6e-4
"""At most so many are split in a round, and the learning rate of the means, where it is not said and cameras are not
placed."""


@dataclass(frozen=True)
class Recipe:
    """How a model is scored, pruned, fine-tuned and written.

    The defaults are what was found best by measurement; ``configs/fast3dgs.yaml`` is the published method.
    """

    codec: str = "gsz"
    """File format, whose grid fine-tuning is done on, with its settings: NAME[:key=value,...], such as gsz:quality=low,
    sog:quality=high or spz:version=2."""
    score: ScoreName = "removal_error"
    """Importance of a Gaussian. removal_error is what the images change by without it; gradient_sum is the published
    score."""
    layer_score: ScoreName = "removal_error"
    """What the layers of the final file are ordered by, where the codec writes several (gsz:layers=4): a fifth of the
    Gaussians is left out, the others are scored again, and so on."""
    prune_fraction: Number = 0.1
    """Fraction of the Gaussians that goes in a round, the least important first."""

    regrow_fraction: OptionalNumber = None
    """At most this fraction of the Gaussians is split in two in a round, where the images are wrong; as many more are
    dropped. A split takes place only if it promises to lower the squared error by more than the Gaussian dropped for it
    contributes. 0 splits none, as published. By default 0.1, and 0 where cameras are placed, since these also see what
    nobody photographed."""

    sh_prune_fraction: Number = 0.0
    """Fraction of the Gaussians with view-dependent color (sh_rest) whose view dependence is removed in a round,
    beginning with those where it changes the images least. 0 leaves all of them alone, as published."""

    first_iterations: int = 500
    """Iterations of fine-tuning before the first round."""
    round_iterations: int = 500
    """Iterations of fine-tuning in a round, after pruning."""
    final_iterations: int = 5000
    """Iterations of fine-tuning after the last round."""
    max_rounds: int = 44
    """Stop after so many rounds, whatever the quality; 44 rounds of 10 % leave 1 % of the Gaussians."""

    max_psnr_drop: OptionalNumber = None
    """dB. A round that loses as much or more against the uncompressed model is the last one; inf sets no limit. By
    default 1.0, and no limit where a target (size, count or ratio) says where to end. On photographs that the
    checkpoint has learned by heart, much of such a drop is no loss elsewhere."""
    max_ssim_drop: OptionalNumber = None
    """The same for SSIM, usually the tighter limit; by default 0.01, and no limit with a target. inf sets no limit, as
    published."""
    max_lpips_rise: Number = math.inf
    """The same for LPIPS, which rises as quality falls; needs --lpips_weights. inf sets no limit."""
    target_size: OptionalSize = None
    """Prune until the file has this size, such as 5MB (10^6 bytes); never above, and at most 2 % below."""
    target_count: OptionalCount = None
    """Prune until so many Gaussians are left."""
    keep_ratio: OptionalRatio = None
    """Prune until this fraction of the Gaussians is left."""
    end_with: Literal["last", "best"] = "best"
    """Which round the final stage goes on from: "best" is the smallest whose quality is within the budget; "last" is
    the one that spent the budget, as published."""
    stop_on: Literal["validation", "test"] = "validation"
    """Views that the quality is measured on to stop. "test" is the published choice; it lets the result see the test
    views, and is said in the log."""
    validation_every: int = 10
    """One in so many training views is held out for validation; one in five where there are fewer than 20. With
    stop_on: test none are."""
    progressive: bool = False
    """Whether the final stage trains the coarser models that a file in layers (gsz:layers=4) can be cut to as well,
    with a correction for each."""
    prefix_share: Number = 0.5
    """With progressive: fraction of the final iterations that are for coarser models, each of these as often; the
    others are for the whole."""
    exchange_share: Number = 0.0
    """With progressive: this fraction of the final iterations are rounds of round_iterations, as many as fit, which
    exchange Gaussians as the rounds before do, but at an equal count and with coarser models trained along."""
    prefix_end: Number = 1.0
    """With progressive: after this fraction of the final iterations that such rounds leave the whole is trained
    alone."""
    correction_lr: Number = 0.002
    """With progressive: learning rate of what is added to all log-scales and opacities of each coarser model; 0 adds
    nothing."""
    final_uses_all: bool = True
    """Whether the final stage trains on the views that were held out for validation as well."""

    dssim_weight: Number = 0.2
    """Weight w of the loss (1 - w) L1 + w (1 - SSIM)."""
    sh_rest_penalty: Number = 0.05
    """Weight of mean |sh_rest| in the loss of fine-tuning."""
    rate_weight: Number = 0.00005
    """Weight of the file's estimated size, in bits a Gaussian, in the loss of fine-tuning. Codecs that can estimate it
    (gsz) are fine-tuned with this in place of the sh_rest_penalty; 0 leaves the penalty to all."""
    learn_steps: OptionalTruth = None
    """Whether the final stage learns the steps of the codec's grid (gsz) along with the model, by what errors of
    rounding cost (LSQ) and what bits cost (the rate_weight). They stay as they are in its last fifth. By default where
    the grid has steps, the rate_weight is not 0 and the stage has 2000 iterations or more."""
    steps_lr: Number = 0.003
    """With learn_steps: learning rate of the steps, in octaves."""
    average: Number = 0.998
    """Every stage ends with the average of its models: a running one that keeps this fraction of itself in an
    iteration, and less while the stage is young. On a coarse grid this brings to rest what rounding makes waver. 0
    takes the model of the last iteration, as published."""
    lr_decay: Number = 1.0
    """Learning rates fall in a straight line to this fraction of themselves over each stage. 1 keeps them constant;
    without an average 0.01 brings models to rest."""
    final_lr_factor: Number = 4.0
    """What the learning rates of scales, rotations, opacities and sh_dc are multiplied with in the final stage."""
    means_lr: OptionalNumber = None
    """Learning rate of the means, times the scene's extent. By default that of the beginning of 3DGS training, 0.00016,
    and that of its end, 0.0000016, where cameras are placed."""
    log_scales_lr: Number = 0.005
    """Learning rate of the log-scales."""
    quaternions_lr: Number = 0.001
    """Learning rate of the quaternions."""
    opacity_logits_lr: Number = 0.025
    """Learning rate of the opacity logits."""
    sh_dc_lr: Number = 0.0025
    """Learning rate of the SH coefficients of degree 0."""
    sh_rest_lr: Number = 0.0005
    """Learning rate of the SH coefficients of degree 1 and up; four times that of 3DGS, since coarse steps are only
    crossed by large ones."""

    seed: int = 0
    """Stands for every random choice: the same seed on the same machine and backend writes the same bytes."""

    def check(self) -> None:
        """Raise :class:`UserError` for a setting that makes no sense."""
        self.make_codec()

        def require(name: str, holds: bool, rule: str) -> None:
            if not holds:
                raise UserError(f"{name}: {getattr(self, name)} {rule}")

        for name in ("first_iterations", "round_iterations", "final_iterations", "max_rounds", "validation_every"):
            require(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("max_psnr_drop", "max_ssim_drop", "max_lpips_rise"):
            require(name, getattr(self, name) is None or getattr(self, name) >= 0.0, "must not be negative")
        rates = ["correction_lr", "steps_lr", "means_lr", *_FACTORED_RATES.values(), "sh_rest_lr"]
        for name in ("sh_rest_penalty", "rate_weight", *rates):
            valid = getattr(self, name) is None or 0.0 <= getattr(self, name) < math.inf
            require(name, valid, "must be a number that is not negative")
        for name in ("sh_prune_fraction", "dssim_weight", "prefix_share", "prefix_end", "exchange_share"):
            require(name, 0.0 <= getattr(self, name) <= 1.0, "must lie between 0 and 1")
        require("exchange_share", self.exchange_share < 1.0, "must leave iterations to the layers; choose less than 1")
        if self.regrow_fraction is not None:
            require("regrow_fraction", 0.0 <= self.regrow_fraction <= 1.0, "must lie between 0 and 1")
        require("prune_fraction", 0.0 < self.prune_fraction < 1.0, "must lie between 0 and 1")
        require("lr_decay", 0.0 < self.lr_decay <= 1.0, "must be above 0 and at most 1")
        require("final_lr_factor", 0.0 < self.final_lr_factor < math.inf, "must be a number above 0")
        require("average", 0.0 <= self.average < 1.0, "must be at least 0 and below 1")
        require("target_count", self.target_count is None or self.target_count > 0, "must be at least 1")
        require("keep_ratio", self.keep_ratio is None or 0.0 < self.keep_ratio <= 1.0, "must lie between 0 and 1")
        require("seed", 0 <= self.seed < 2**63, "must be from 0 to 2^63 - 1")
        if self.progressive and self.make_codec().layers == 1:
            raise UserError(f"progressive: {self.codec} files are a single layer; set codec: gsz:layers=4")
        if self.learn_steps and not self.make_codec().learns_steps:
            raise UserError(f"learn_steps: {self.codec} has no steps to learn; set codec: gsz")
        if self.learn_steps and not self.rate_weight:
            raise UserError("learn_steps: nothing holds against ever finer steps; set a rate_weight above 0")
        if self.stop_on == "validation" and self.validation_every == 0:
            raise UserError("validation_every: 0 holds no views out to stop on; set it to 10, or stop_on to test")
        if self.stop_on == "test" and self.final_uses_all:
            raise UserError(
                "final_uses_all: would train on the test views with stop_on: test; choose one of the two "
                "(--no_final_uses_all)"
            )

    def make_codec(self) -> Codec:
        """The codec with its settings.

        Raises:
            UserError: there is no such codec, it only reads, or it has no such setting, or not this value of it.
        """
        codec = registry.codec(self.codec)
        if not codec.writable:
            names = ", ".join(registry.names(writable_only=True))
            raise UserError(f"codec: {codec.name} files can only be read; choose one of {names}")
        return codec

    def budget(self, count: int) -> Budget:
        """The limits for a model of ``count`` Gaussians.

        Raises:
            UserError: a target is above what the model has.
        """
        targets = [] if self.target_count is None else [self.target_count]
        if self.keep_ratio is not None:
            targets.append(max(1, int(self.keep_ratio * count)))
        if targets and min(targets) > count:
            raise UserError(f"target_count: {min(targets)} is more than the {count} Gaussians there are; choose fewer")
        has_target = bool(targets) or self.target_size is not None
        return Budget(
            _limit(self.max_psnr_drop, MAX_PSNR_DROP, has_target),
            _limit(self.max_ssim_drop, MAX_SSIM_DROP, has_target),
            self.max_lpips_rise,
            min(targets, default=None),
            self.target_size,
        )

    def for_cameras(self, *, placed: bool) -> Recipe:
        """The recipe with what depends on the cameras, where it leaves that open.

        Placed cameras also see what nobody photographed. Changes for their sake are paid for by what photographs show,
        so there nothing is split and the means hardly move.
        """
        regrow_fraction, means_lr = (0.0, MEANS_LR / 100) if placed else (REGROW_FRACTION, MEANS_LR)
        return replace(
            self,
            regrow_fraction=regrow_fraction if self.regrow_fraction is None else self.regrow_fraction,
            means_lr=means_lr if self.means_lr is None else self.means_lr,
        )

    def fewest_left(self, count: int) -> int:
        """How many of ``count`` Gaussians are left if quality lets all rounds be done."""
        return fewest_left(count, self.prune_fraction, self.max_rounds)

    @property
    def learns_steps(self) -> bool:
        """Whether the final stage learns the steps of the codec's grid."""
        if self.learn_steps is not None:
            return self.learn_steps
        has_time = self.final_iterations >= ENOUGH_TO_LEARN
        return has_time and self.rate_weight > 0.0 and self.make_codec().learns_steps

    @property
    def exchange_rounds(self) -> int:
        """Rounds of exchange that the final stage begins with."""
        if not self.progressive or self.round_iterations == 0:
            return 0
        return int(round(self.exchange_share * self.final_iterations, 6)) // self.round_iterations

    def learning_rates(self, extent: float, factor: float = 1.0) -> dict[str, float]:
        """Adam's learning rate of each of the six tensors, for a scene of this extent in world units.

        ``factor`` multiplies those of scales, rotations, opacities and ``sh_dc``.
        """
        rates = {tensor: factor * getattr(self, name) for tensor, name in _FACTORED_RATES.items()}
        means_lr = MEANS_LR if self.means_lr is None else self.means_lr
        return {"means": means_lr * extent, **rates, "sh_rest": self.sh_rest_lr}

    def to_yaml(self) -> str:
        """All settings, for the record of a run."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @staticmethod
    def from_yaml(path: str | Path) -> Recipe:
        """Read a recipe. Settings that the file leaves out keep their defaults.

        Raises:
            UserError: the file is missing, is not YAML, or has a setting that does not exist or is of the wrong type.
        """
        return Recipe().with_settings(read_yaml(Path(path)), str(path))

    def with_settings(self, settings: dict[str, Any], source: str) -> Recipe:
        """The recipe with some settings replaced; ``source`` names their origin in messages.

        Raises:
            UserError: there is no such setting, or its value makes no sense.
        """
        kinds = _kinds()
        values: dict[str, Any] = {}
        for name, value in _without_former_settings(settings).items():
            if name in ("quality", "grid"):
                continue
            if name not in kinds:
                raise UserError(f"{source}: there is no setting {name!r}; the settings are {', '.join(kinds)}")
            try:
                values[name] = read_value(value, kinds[name])
            except ValueError as error:
                raise UserError(f"{source}: {name}: {error}") from error
        try:
            recipe = replace(self, **values).with_codec_settings(settings.get("quality"), settings.get("grid"))
            recipe.check()
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        return recipe

    def with_codec_settings(self, quality: str | None, grid: str | None) -> Recipe:
        """The recipe with ``quality`` and ``grid``, as they were once given apart, among the codec's settings."""
        given = {name: value for name, value in (("quality", quality), ("grid", grid)) if value}
        if not given:
            return self
        return replace(self, codec=spec.with_settings(self.codec, given))


_FACTORED_RATES = {
    "log_scales": "log_scales_lr",
    "quaternions": "quaternions_lr",
    "opacity_logits": "opacity_logits_lr",
    "sh_dc": "sh_dc_lr",
}
"""The setting of each tensor's learning rate, of those that a stage may multiply."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: the file is missing, or is not a list of ``setting: value`` lines.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); choose a file of configs/") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a YAML file ({str(error).splitlines()[0]}); correct it") from error
    if not isinstance(settings or {}, dict):
        raise UserError(f"{path}: must be a list of `setting: value` lines")
    return {str(name): value for name, value in (settings or {}).items()}


def _limit(given: float | None, default: float, has_target: bool) -> float:
    """What a run may lose of something: what is said, or else the default, which a target takes the place of."""
    if given is not None:
        return given
    return math.inf if has_target else default


def _without_former_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that recipes of earlier versions switched off: they no longer exist."""
    return {name: value for name, value in settings.items() if name not in _FORMER or value is not False}


_FORMER = ("keep_optimizer", "sparse_adam")


@cache
def _kinds() -> dict[str, Any]:
    """The annotated type of each setting."""
    hints = get_type_hints(Recipe, include_extras=True)
    return {field.name: hints[field.name] for field in fields(Recipe)}
