"""Every setting of a compression run. A YAML file under ``configs/`` is a full, readable list of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from compress import importance
from compress.budget import Budget
from gsz import registry
from gsz.errors import UserError
from gsz.registry import Codec
from gsz.sizes import parse_size


@dataclass(frozen=True)
class Recipe:
    """How a model is scored, pruned, fine-tuned and written. The defaults are the published method's."""

    codec: str = "lzma"
    """File format, whose grid fine-tuning is done on."""
    quality: str = ""
    """How fine the codec's grid is, where it lets one choose between small and exact (gsz, sog, spz): best, high,
    medium, low or tiny. "" is the codec's own choice."""
    grid: str = ""
    """gsz only: "fast3dgs" for exactly the values of the fast3dgs codec in fewer bytes. "" is gsz's own grid."""
    score: str = "gradient_sum"
    """Importance of a Gaussian; a function of compress/importance.py."""
    prune_fraction: float = 0.05
    """Fraction of the Gaussians that goes in a round, the least important first."""

    sh_prune_fraction: float = 0.0
    """Fraction of the Gaussians with view-dependent colour (sh_rest) that loses it in a round, those first whose loss
    changes the images least. 0 leaves all of them alone, as published."""

    first_iterations: int = 1000
    """Iterations of fine-tuning before the first round."""
    round_iterations: int = 1000
    """Iterations of fine-tuning in a round, after pruning."""
    final_iterations: int = 5000
    """Iterations of fine-tuning after the last round."""
    max_rounds: int = 90
    """Stop after so many rounds, whatever the quality; 90 rounds of 5 % leave 1 % of the Gaussians."""

    max_psnr_drop: float = 0.1
    """dB. A round that loses as much or more against the uncompressed model is the last one. .inf sets no limit."""
    max_ssim_drop: float = math.inf
    """The same for SSIM. .inf sets no limit, as published."""
    max_lpips_rise: float = math.inf
    """The same for LPIPS, which rises as quality falls; needs --lpips_weights. .inf sets no limit."""
    target_size: str = ""
    """Prune until the file has this size, such as 5MB (10^6 bytes); never above, and at most 2 % below. "" for none."""
    target_count: int = 0
    """Prune until so many Gaussians are left. 0 for none."""
    keep_ratio: float = 0.0
    """Prune until this fraction of the Gaussians is left. 0 for none."""
    end_with: Literal["last", "best"] = "last"
    """Which round the final stage goes on from: "last" is the one that spent the budget, as published; "best" is the
    smallest whose quality is within the budget."""
    stop_on: Literal["validation", "test"] = "validation"
    """Views that the quality is measured on to stop. "test" is the published choice; it lets the result see the test
    views, and is said in the log."""
    validation_every: int = 10
    """One in so many training views is held out for validation; one in five where there are fewer than 20. With
    stop_on: test none are."""
    final_uses_all: bool = False
    """Whether the final stage trains on the views that were held out for validation as well."""

    dssim_weight: float = 0.2
    """Weight w of the loss (1 - w) L1 + w (1 - SSIM)."""
    sh_rest_penalty: float = 0.05
    """Weight of mean |sh_rest| in the loss of fine-tuning."""
    rate_weight: float = 0.0
    """Weight of the file's estimated size, in bits a Gaussian, in the loss of fine-tuning. Codecs that can estimate it
    (gsz) are fine-tuned with this in place of the sh_rest_penalty; 0 leaves the penalty to all."""
    lr_decay: float = 1.0
    """Learning rates fall in a straight line to this fraction of themselves over each stage. 1 keeps them constant, as
    published; 0.1 takes the jitter out of a stage's end, which is as large as the published stopping threshold."""
    means_lr: float = 1.6e-6
    """Learning rate of the means, times the scene's extent: that of the end of 3DGS training."""
    log_scales_lr: float = 0.005
    """Learning rate of the log-scales."""
    quaternions_lr: float = 0.001
    """Learning rate of the quaternions."""
    opacity_logits_lr: float = 0.025
    """Learning rate of the opacity logits."""
    sh_dc_lr: float = 0.0025
    """Learning rate of the SH coefficients of degree 0."""
    sh_rest_lr: float = 0.000125
    """Learning rate of the SH coefficients of degree 1 and up."""

    keep_optimizer: bool = False
    """Whether Adam's moments of the Gaussians that stay are carried from round to round. Each stage begins anew if not,
    as published."""
    sparse_adam: bool = False
    """Update only the Gaussians that the iteration's view shows. Faster on CUDA; its effect on quality has not been
    measured."""
    seed: int = 0
    """Stands for every random choice: the same seed on the same machine and backend writes the same bytes."""

    def check(self) -> None:
        """Raise :class:`UserError` for a setting that makes no sense."""
        writable = [codec for codec in registry.CODECS if codec.writable]
        if not any(self.codec in (codec.name, *codec.aliases) for codec in writable):
            raise UserError(f"codec: {self.codec!r} is not one of {', '.join(registry.names(writable_only=True))}")
        self.make_codec()
        if self.score not in importance.SCORES:
            raise UserError(f"score: {self.score!r} is not one of {', '.join(importance.SCORES)}")
        if not 0.0 < self.prune_fraction < 1.0:
            raise UserError(f"prune_fraction: {self.prune_fraction} must lie between 0 and 1")
        if not 0.0 <= self.sh_prune_fraction <= 1.0:
            raise UserError(f"sh_prune_fraction: {self.sh_prune_fraction} must lie between 0 and 1")
        if not 0.0 < self.lr_decay <= 1.0:
            raise UserError(f"lr_decay: {self.lr_decay} must be above 0 and at most 1")
        for name in ("first_iterations", "round_iterations", "final_iterations", "max_rounds", "validation_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        for name in (
            "max_psnr_drop",
            "max_ssim_drop",
            "max_lpips_rise",
            "dssim_weight",
            "sh_rest_penalty",
            "rate_weight",
        ):
            if not getattr(self, name) >= 0.0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        if self.target_size:
            parse_size(self.target_size)
        if self.target_count < 0:
            raise UserError(f"target_count: {self.target_count} must not be negative")
        if not 0.0 <= self.keep_ratio <= 1.0:
            raise UserError(f"keep_ratio: {self.keep_ratio} must lie between 0 and 1")
        if self.dssim_weight > 1.0:
            raise UserError(f"dssim_weight: {self.dssim_weight} must be at most 1")
        if self.stop_on == "validation" and self.validation_every == 0:
            raise UserError("validation_every: 0 holds no views out to stop on; set it to 10, or stop_on to test")
        if self.keep_optimizer and self.sparse_adam:
            raise UserError("keep_optimizer: only plain Adam's moments can be kept; choose it or sparse_adam")
        if self.stop_on == "test" and self.final_uses_all:
            raise UserError("final_uses_all: would train on the test views with stop_on: test; choose one of the two")

    def make_codec(self) -> Codec:
        """The codec with the settings that the recipe gives it.

        Raises:
            UserError: it has no such setting, or not this value of it.
        """
        settings = {name: getattr(self, name) for name in ("quality", "grid") if getattr(self, name)}
        return registry.get(self.codec, **settings)

    def budget(self, count: int) -> Budget:
        """The limits for a model of ``count`` Gaussians.

        Raises:
            UserError: a target is above what the model has.
        """
        targets = [self.target_count] if self.target_count else []
        if self.keep_ratio:
            targets.append(max(1, int(self.keep_ratio * count)))
        if targets and min(targets) > count:
            raise UserError(f"target_count: {min(targets)} is more than the {count} Gaussians there are; choose fewer")
        return Budget(
            self.max_psnr_drop,
            self.max_ssim_drop,
            self.max_lpips_rise,
            min(targets) if targets else None,
            parse_size(self.target_size) if self.target_size else None,
        )

    def fewest_left(self, count: int) -> int:
        """How many of ``count`` Gaussians are left if quality lets all rounds be done."""
        for _ in range(self.max_rounds):
            count -= Budget().to_drop(self.prune_fraction, count, 0)
        return count

    def learning_rates(self, extent: float) -> dict[str, float]:
        """Adam's learning rate of each of the six tensors, for a scene of this extent in world units."""
        rates = {
            field.name.removesuffix("_lr"): getattr(self, field.name)
            for field in fields(self)
            if field.name.endswith("_lr")
        }
        return {**rates, "means": self.means_lr * extent}

    def to_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read a recipe. Settings that the file leaves out keep their defaults.

        Raises:
            UserError: the file is missing, is not YAML, or has a setting that does not exist or is of the wrong type.
        """
        path = Path(path)
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); choose a file of configs/") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a YAML file ({str(error).splitlines()[0]}); correct it") from error
        if not isinstance(settings or {}, dict):
            raise UserError(f"{path}: must be a list of `setting: value` lines")
        return cls().with_settings(settings or {}, str(path))

    def with_settings(self, settings: dict[str, Any], source: str) -> Recipe:
        """The recipe with some settings replaced; ``source`` names their origin in messages."""
        values = asdict(self)
        for name, value in settings.items():
            if name not in values:
                raise UserError(f"{source}: there is no setting {name!r}; the settings are {', '.join(values)}")
            kind = type(values[name])
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise UserError(f"{source}: {name} must be {kind.__name__}, not {value!r}")
            values[name] = value
        for name, allowed in (("stop_on", ("validation", "test")), ("end_with", ("last", "best"))):
            if values[name] not in allowed:
                raise UserError(f"{source}: {name} must be {' or '.join(allowed)}, not {values[name]!r}")
        recipe = Recipe(**values)
        try:
            recipe.check()
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        return recipe
