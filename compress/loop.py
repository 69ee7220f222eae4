"""The method: fine-tune on the grid; score, prune, split, fine-tune until the budget is spent; finish and write."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress import importance, regrow
from compress.budget import SIZE_TOLERANCE, Loss, rounds_needed
from compress.finetune import finetune
from compress.front import best, rounds_of
from compress.importance import Exchange, Scores
from compress.journal import FINAL, UNCOMPRESSED, Journal, JournalRow, Verdict
from compress.judging import Roles
from compress.layers import A_FIFTH, A_LAYER, iterative_importance
from compress.prune import prune_sh
from compress.recipe import Recipe
from compress.regrow import Change
from compress.run_dir import RunDir, RunState
from compress.to_size import Encoded, encode, encode_by_score, encode_to_size
from compress.views import Views
from gsz import registry
from gsz.contract import Correction
from gsz.errors import UserError
from gsz.files import read_bytes
from gsz.registry import Codec, Grid
from gsz.splats import Splats
from quality.summary import ViewMetrics
from scene.gaussian_model import GaussianModel
from utils import ranks
from utils.progress import Progress, silent

log = logging.getLogger(__name__)

Label = Mapping[str, Any]
_NOTHING_SAID: Label = {}

EXPECTED_ROUNDS = 24
"""Rounds that the progress counts on until it knows better."""
LABEL_SHARE = 0.05
"""Of a target size, what a file may spend on saying what it is."""
_LONGEST = ViewMetrics(99.99, 0.9999, None)
"""What takes no fewer digits than any quality."""


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        path: The compressed file.
        splats: The model decoded from it.
        journal: One row for the uncompressed model and one a stage; the last is the file's.
    """

    path: Path
    splats: GaussianModel
    journal: Journal

    @property
    def iterations(self) -> int:
        """Iterations of fine-tuning in all."""
        return self.journal[-1].iteration


def compress(
    original: GaussianModel,
    original_bytes: int,
    roles: Roles,
    recipe: Recipe,
    run: RunDir,
    *,
    settings: dict[str, Any],
    label: Label = _NOTHING_SAID,
    state: RunState | None = None,
    progress: Progress = silent,
) -> Result:
    """Compress a trained model.

    Args:
        original: The checkpoint.
        original_bytes: Size of its file, for the journal.
        roles: Views to score and fine-tune on, and views that decide when to stop.
        recipe: All settings of the method.
        run: Where to write. The state after every stage goes there, so that a killed run can be resumed.
        settings: What the result depends on; a run is only resumed with the same.
        label: What the file is to say of itself besides its quality, where its format has room for it.
        state: Where a killed run left off, if it is to go on.
        progress: Counts iterations of fine-tuning.
    """
    if state is not None:
        log.info("resuming after stage %r", state.journal[-1].stage)
    elif roles.placed and recipe.regrow_fraction is None:
        log.info("no Gaussians are split (regrow_fraction: 0): placed cameras also see what nobody photographed")
    loop = _Loop(roles, recipe, run, state or RunState(settings, original, []), progress, label)
    return loop.to_the_end(original_bytes)


def repick(
    journal: Journal,
    roles: Roles,
    recipe: Recipe,
    run: RunDir,
    size: int,
    *,
    label: Label = _NOTHING_SAID,
    progress: Progress = silent,
) -> Result:
    """Do only the final stage of a finished run again, from the first of its rounds whose file fits another size.

    Args:
        journal: That of the finished run. All of its rounds stay in it and in the front.
        size: Bytes.
        label: As for :func:`compress`.

    Raises:
        UserError: none of the rounds is as small as that.
    """
    recipe = replace(recipe, target_size=size, target_count=None, keep_ratio=None, end_with="last")
    rows = [row for row in journal if row.stage != FINAL]
    budget = recipe.budget(rows[0].gaussians)
    for end, row in enumerate(rows[1:], start=2):
        if budget.is_met(row.gaussians, row.bytes):
            log.info("the final stage goes on from %s: %.2f MB", row.stage, row.bytes / 1e6)
            read = partial(run.read_front, row, recipe.make_codec().suffix, finished=True)
            splats = GaussianModel.of(ranks.once(read))
            state = RunState({}, splats, rows[:end], rounds_ended=True)
            return _Loop(roles, recipe, run, state, progress, label).final(splats, size, rows)
    smallest = min((row.bytes for row in rows[1:]), default=0)
    raise UserError(
        f"{run.path}: none of its rounds is as small as {size / 1e6:g} MB; the smallest is {smallest / 1e6:.2f} MB: "
        "run again with a larger max_psnr_drop"
    )


def check_targets(original: GaussianModel, recipe: Recipe) -> None:
    """Find out before a run what can be known of its targets.

    Raises:
        UserError: no run of the recipe can reach them; the message says the nearest that one can.
    """
    budget = recipe.budget(len(original))
    fewest = recipe.fewest_left(len(original))
    if budget.target_count is not None and budget.target_count < fewest:
        raise UserError(
            f"target_count: {budget.target_count} Gaussians are out of reach; the nearest is {fewest}, after "
            f"max_rounds: {recipe.max_rounds} of prune_fraction: {recipe.prune_fraction}; raise one of them"
        )
    if budget.target_bytes is not None:
        one = original.select(torch.zeros(1, dtype=torch.long, device=original.device))
        codec = recipe.make_codec()
        least = len(encode(one, codec, codec.fit(one)).data)
        if budget.target_bytes < least:
            raise UserError(
                f"target_size: {budget.target_bytes} B is out of reach; a {codec.name} file of a single Gaussian "
                f"takes {least} bytes; choose a larger size"
            )


class _Clock:
    """Seconds between one look and the next."""

    def __init__(self) -> None:
        self._then = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._then = now - self._then, now
        return seconds


class _Loop:
    """A run from wherever its state stands.

    Attributes:
        state: Where it stands.
    """

    def __init__(
        self, roles: Roles, recipe: Recipe, run: RunDir, state: RunState, progress: Progress, label: Label
    ) -> None:
        self.roles = roles
        self.judge = roles.judge
        self.recipe = recipe.for_cameras(placed=roles.placed)
        self.codec = recipe.make_codec()
        self.run = run
        self.label = label
        # States are read to the CPU, whoever renders.
        self.state = replace(state, splats=self._on_device(state.splats))
        self.budget = recipe.budget(state.journal[0].gaussians if state.journal else len(state.splats))
        self._iterations = _IterationCount(self, progress)

    def to_the_end(self, original_bytes: int) -> Result:
        """The method."""
        if not self.state.journal:
            self._record_uncompressed(original_bytes)
        if self.stages_done == 1:
            log.info("first: all Gaussians are fine-tuned on the values that a %s file can hold", self.codec.name)
            self._stage("first", self.splats, self.recipe.first_iterations)
        while not self.state.rounds_ended and self.rounds_done < self.recipe.max_rounds:
            self._round()
        chosen, splats = self._chosen()
        return self.final(splats, self._size_in_reach(chosen), self.state.journal)

    @property
    def splats(self) -> GaussianModel:
        """The model as it stands."""
        return GaussianModel.of(self.state.splats)

    @property
    def stages_done(self) -> int:
        """Rows of the journal: 1 for the uncompressed model, 2 after the first stage, then the rounds."""
        return len(self.state.journal)

    @property
    def rounds_done(self) -> int:
        return max(0, self.stages_done - 2)

    def _record_uncompressed(self, original_bytes: int) -> None:
        clock = _Clock()
        verdict = self.judge.judge(self.splats)
        times = (0.0, 0.0, 0.0, clock.lap())
        row = _row(UNCOMPRESSED, 0, len(self.state.splats), verdict, original_bytes, times)
        self._save(replace(self.state, journal=[row]))

    def _round(self) -> None:
        """Score, prune, split, fine-tune; note whether the budget is spent."""
        clock = _Clock()
        splats, last = self.splats, self.state.journal[-1]
        scores = self._scores(splats, self.codec)
        if self.recipe.sh_prune_fraction > 0.0:
            splats = prune_sh(splats, self._sh_scores(scores), self.recipe.sh_prune_fraction)
        dropped = self.budget.to_drop(self.recipe.prune_fraction, len(splats), last.bytes)
        changed = self._change(splats, scores, dropped).apply(splats)
        self._stage(f"round {self.rounds_done + 1}", changed, self.recipe.round_iterations, score_seconds=clock.lap())

    def _change(self, splats: GaussianModel, scores: Scores, dropped: int) -> Change:
        """Which Gaussians go and which become two."""
        at_most = int((self.recipe.regrow_fraction or 0.0) * len(scores.gaussians))
        if at_most == 0:
            return regrow.prune_only(scores.gaussians, dropped)
        weighed = self._exchange(splats, scores)
        return regrow.choose(scores.gaussians, weighed.costs, weighed.gains, dropped, at_most)

    def _stage(self, name: str, splats: GaussianModel, iterations: int, score_seconds: float = 0.0) -> None:
        """Fine-tune, encode, decode, measure; then make it the state to resume from."""
        clock = _Clock()
        splats, grid = self._finetune(splats, self.codec, self.roles.training, iterations)
        finetune_seconds = clock.lap()
        data = encode(splats, self.codec, grid).data
        encode_seconds = clock.lap()
        verdict = self.judge.judge(registry.decode(data, name))
        times = (score_seconds, finetune_seconds, encode_seconds, clock.lap())
        done = self.state.journal[-1].iteration + iterations
        row = _row(name, done, len(splats), verdict, len(data), times)
        loss = Loss.between(self.state.journal[0].metrics, row.metrics)
        spent = name != "first" and self.budget.is_spent(loss)
        ended = spent or self.budget.is_met(row.gaussians, row.bytes)
        ranks.once(lambda: self.run.add_to_front(row, self.codec.suffix, data))
        self._save(RunState(self.state.settings, splats, [*self.state.journal, row], rounds_ended=ended))
        if spent:
            log.info("%s lost %s: the budget is spent, the final stage follows", name, loss)

    def _save(self, state: RunState) -> None:
        ranks.once(lambda: self.run.save_state(state))
        self.state = state

    def _chosen(self) -> tuple[JournalRow, GaussianModel]:
        """The round that the final stage goes on from, and its model."""
        last = self.state.journal[-1]
        if self.recipe.end_with == "last":
            return last, self.splats
        chosen = best(self.state.journal, self.budget)
        if chosen is None:
            log.warning("no round is within the budget: the final stage goes on from the largest model")
            chosen = rounds_of(self.state.journal)[0]
        if chosen == last:
            return last, self.splats
        log.info("the final stage goes on from %s, the smallest within the budget", chosen.stage)
        return chosen, self._on_device(ranks.once(lambda: self.run.read_front(chosen, self.codec.suffix)))

    def _size_in_reach(self, chosen: JournalRow) -> int | None:
        """The size to bring the file to: none where there is none, or where quality did not let the rounds reach it."""
        budget = self.budget
        if budget.has_target and not budget.is_met(chosen.gaussians, chosen.bytes):
            log.warning(
                "the target is out of reach within the quality budget: the file will be of the nearest model, of %.2f "
                "MB and %s Gaussians before the final stage; raise max_psnr_drop, max_ssim_drop or max_rounds to come "
                "nearer",
                chosen.bytes / 1e6,
                f"{chosen.gaussians:,}",
            )
            return None
        return budget.target_bytes

    def final(self, splats: GaussianModel, size: int | None, listed: Journal) -> Result:
        """Fine-tune once more, write the file, read it back and measure what was read.

        Args:
            splats: Where to begin.
            size: Bytes the file has to be brought to, or ``None``.
            listed: The journal that the final row is added to.
        """
        clock = _Clock()
        views = self.roles.everything if self.recipe.final_uses_all else self.roles.training
        splats = self._on_device(splats)
        room = self._room_for_label(splats, size)
        encoded = self._finish(splats, views, None if size is None else size - (room or 0))
        finetune_seconds = clock.lap()
        path = ranks.once(lambda: self.run.write_compressed(encoded.codec.suffix, encoded.data))
        encode_seconds = clock.lap()
        data = ranks.once(lambda: read_bytes(path))
        decoded = registry.decode(data, path)
        verdict = self.judge.judge(decoded)
        if room is not None:
            data = encoded.codec.labelled(data, self._full_label(verdict.measured, len(decoded)))
            ranks.once(lambda: self.run.write_compressed(encoded.codec.suffix, data))
        times = (0.0, finetune_seconds, encode_seconds, clock.lap())
        done = self.state.journal[-1].iteration + self.recipe.final_iterations
        row = _row(FINAL, done, len(decoded), verdict, len(data), times)
        self._say_what_cuts_are_worth(data, path)
        return Result(path, GaussianModel.of(decoded), [*listed, row])

    def _full_label(self, measured: ViewMetrics, count: int) -> dict[str, Any]:
        """The label with the quality of ``count`` Gaussians. It is never longer than that of :data:`_LONGEST`."""
        views = "photographs" if self.judge.assumed is None else "renders of the source"
        quality = {
            "psnr": round(min(max(measured.psnr, 0.0), _LONGEST.psnr), 2),
            "ssim": round(min(max(measured.ssim, 0.0), 1.0), 4),
            "views": len(self.judge.views.cameras),
            "of": self.recipe.stop_on,
            "unseen": not self.recipe.final_uses_all,
            "against": views,
            "gaussians": count,
        }
        return {**self.label, "quality": quality}

    def _room_for_label(self, splats: GaussianModel, size: int | None) -> int | None:
        """How many bytes the label takes at most; None where there is none, or ``size`` is too small for one."""
        if not self.label or "metadata" not in self.codec.keeps:
            return None
        one = splats.select(torch.zeros(1, dtype=torch.long, device=splats.device))
        data = encode(one, self.codec, self.codec.fit(one)).data
        room = len(self.codec.labelled(data, self._full_label(_LONGEST, len(splats)))) - len(data)
        return room if size is None or room <= LABEL_SHARE * size else None

    def _say_what_cuts_are_worth(self, data: bytes, path: Path) -> None:
        """Log the quality of the coarser models that a file in layers can be cut to."""
        codec = registry.identify(data, path)
        for level in range(1, len(codec.info(data, str(path)).get("layers", []))):
            part = codec.cut(data, str(path), level)
            coarser = registry.decode(part, f"{path}, cut")
            quality = self.judge.judge(coarser).measured
            log.info(
                "cut to %.3f MB: %s Gaussians, PSNR %.2f dB, SSIM %.4f",
                len(part) / 1e6,
                f"{len(coarser):,}",
                quality.psnr,
                quality.ssim,
            )

    def _finish(self, splats: GaussianModel, views: Views, size: int | None) -> Encoded:
        """The final iterations. A size is met before the last fifth of them, and again after."""
        codec, progressive = self.codec, self.recipe.progressive
        rounds = self.recipe.exchange_rounds
        iterations = self.recipe.final_iterations - rounds * self.recipe.round_iterations
        prefixes_end = round(self.recipe.prefix_end * iterations)
        settled = iterations - iterations // 5

        def score(splats: GaussianModel, codec: Codec) -> Tensor:
            # Prefixes are trained on rows by falling importance, which is the order that is written.
            return _ramp(splats) if progressive else self._importance(splats, codec, views)

        def tune(
            splats: GaussianModel, codec: Codec, iterations: int, done: int = 0, corrections: Sequence[Correction] = ()
        ) -> tuple[GaussianModel, Grid]:
            return self._finetune(
                splats,
                codec,
                views,
                iterations,
                part=1 if done else 0,
                lr_factor=self.recipe.final_lr_factor,
                corrections=corrections if progressive else None,
                prefix_iterations=max(0, prefixes_end - done),
                learning=max(0, settled - done) if self.recipe.learns_steps else 0,
                averaged=done,
            )

        if progressive:
            for number in range(rounds):
                splats = self._exchange_round(splats, views, number)
            splats = self._ordered(splats, views)
        if size is None:
            splats, grid = tune(splats, codec, iterations)
            return encode_by_score(splats, codec.with_steps_of(grid), grid, score)
        keep_grid = self.budget.target_count is not None
        splats, grid = tune(splats, codec, settled)
        codec = codec.with_steps_of(grid)
        nearly = encode_to_size(splats, codec, grid, size, score, keep_grid=keep_grid)
        splats, grid = tune(nearly.splats, nearly.codec, iterations // 5, settled, nearly.grid.corrections)
        encoded = encode_to_size(splats, nearly.codec, grid, size, score, keep_grid=keep_grid)
        if len(encoded.data) < (1.0 - SIZE_TOLERANCE) * size:
            log.warning("the file is more than %.0f %% smaller than target_size asks for", 100 * SIZE_TOLERANCE)
        return encoded

    def _exchange_round(self, splats: GaussianModel, views: Views, number: int) -> GaussianModel:
        """Exchange Gaussians for others, at an equal count, then rank what there is and train its prefixes.

        What the rounds before kept and split was good for the whole. Here prefixes have a say in it, and nothing of the
        budget is spent on that.
        """
        scores = self._scores(splats, self.codec, views)
        ordered = self._ordered(self._change(splats, scores, dropped=0).apply(splats), views, A_LAYER)
        iterations, part = self.recipe.round_iterations, 2 + number
        return self._finetune(ordered, self.codec, views, iterations, part=part, corrections=())[0]

    def _finetune(
        self, splats: GaussianModel, codec: Codec, views: Views, iterations: int, part: int = 0, **options: Any
    ) -> tuple[GaussianModel, Grid]:
        seed = (self.recipe.seed, self.stages_done, part)
        return finetune(splats, codec, views, self.recipe, iterations, seed, self._iterations, **options)

    def _scores(self, splats: GaussianModel, codec: Codec, views: Views | None = None) -> Scores:
        """The recipe's score of the values that a codec's file would hold."""
        views = views or self.roles.training
        return importance.SCORES[self.recipe.score](_snapped(splats, codec), views, self._score_seed)

    def _ordered(self, splats: GaussianModel, views: Views, dropped_at_once: float = A_FIFTH) -> GaussianModel:
        """The model with its Gaussians in the order of layers, as prefixes are trained."""
        importance = self._importance(splats, self.codec, views, dropped_at_once)
        return splats.select(torch.argsort(importance, descending=True, stable=True))

    def _importance(
        self, splats: GaussianModel, codec: Codec, views: Views, dropped_at_once: float = A_FIFTH
    ) -> Tensor:
        """What the final file leaves out Gaussians by, and lays them in layers, if it is to have any."""
        ends = codec.fit(splats).layer_ends(len(splats))
        if len(ends) == 1:
            return self._scores(splats, codec, views).gaussians
        score = self.recipe.layer_score
        snapped = _snapped(splats, codec)
        return iterative_importance(snapped, views, self._score_seed, score, ends[0], dropped_at_once)

    def _sh_scores(self, scores: Scores) -> Tensor:
        if scores.sh is not None:
            return scores.sh
        snapped = _snapped(self.splats, self.codec)
        return importance.sh_removal_error(snapped, self.roles.training, self._score_seed)

    def _exchange(self, splats: GaussianModel, scores: Scores) -> Exchange:
        if scores.exchange is not None:
            return scores.exchange
        snapped = _snapped(splats, self.codec)
        return importance.exchange(snapped, self.roles.training, self._score_seed)

    @property
    def _score_seed(self) -> importance.Seed:
        return (self.recipe.seed, self.stages_done)

    def _on_device(self, splats: Splats) -> GaussianModel:
        return GaussianModel.of(splats).to(self.roles.training.background.device)


def _ramp(splats: GaussianModel) -> Tensor:
    """``(N,)`` importance that falls from row to row."""
    return torch.arange(len(splats), 0, -1, device=splats.device)


def _snapped(splats: GaussianModel, codec: Codec) -> GaussianModel:
    """The values that a codec's file would hold."""
    return ranks.once(lambda: codec.fit(splats)).snap(splats).detach()


class _IterationCount:
    """Tells a progress how many of a run's iterations are done, of how many that may be expected."""

    def __init__(self, loop: _Loop, progress: Progress) -> None:
        self._loop = loop
        self._progress = progress
        self._done = loop.state.journal[-1].iteration if loop.state.journal else 0
        self._expected = self._done + self._ahead()

    def _ahead(self) -> int:
        """Iterations that are still to come, as far as can be known."""
        recipe, state, budget = self._loop.recipe, self._loop.state, self._loop.budget
        first = recipe.first_iterations if self._loop.stages_done < 2 else 0
        rounds = 0
        if not state.rounds_ended:
            if budget.target_count is None:
                rounds = EXPECTED_ROUNDS - self._loop.rounds_done
            else:
                rounds = rounds_needed(len(state.splats), budget.target_count, recipe.prune_fraction)
            rounds = min(max(rounds, 0), recipe.max_rounds - self._loop.rounds_done)
        return first + rounds * recipe.round_iterations + recipe.final_iterations

    def __call__(self, loss: float | None) -> None:
        """Count a step."""
        self._done += ranks.count()
        if self._done > self._expected:
            self._expected += self._loop.recipe.round_iterations
        last = self._loop.state.journal[-1]
        note = f"{last.stage}: {last.gaussians:,} Gaussians, {last.bytes / 1e6:.2f} MB"
        self._progress(self._done, self._expected, note)


def _row(
    stage: str, iteration: int, count: int, verdict: Verdict, size: int, times: tuple[float, float, float, float]
) -> JournalRow:
    """The journal's row of a stage; also logs it."""
    measured, estimated = verdict.measured, verdict.estimated
    row = JournalRow(
        stage,
        iteration,
        count,
        measured.psnr,
        measured.ssim,
        size,
        *times,
        lpips=measured.lpips,
        estimated_psnr=None if estimated is None else estimated.psnr,
        estimated_ssim=None if estimated is None else estimated.ssim,
    )
    bytes_each = f"{size / 1e6:.2f} MB ({size / max(count, 1):.1f} bytes a Gaussian)"
    log.info("%s: %s Gaussians, %s, %s", stage, f"{count:,}", quality_text(row), bytes_each)
    return row


def quality_text(row: JournalRow) -> str:
    """The quality of a stage, and what it is the quality of."""
    if row.estimated_psnr is None:
        return f"PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.4f}"
    if row.stage == UNCOMPRESSED:
        return "the original itself"
    return (
        f"PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.4f} to the original's renders (estimated to photographs: "
        f"{row.estimated_psnr:.2f} dB, {row.estimated_ssim:.4f})"
    )
