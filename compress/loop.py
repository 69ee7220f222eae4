"""The method: fine-tune on the grid, then score, prune and fine-tune again until the budget is spent; finish, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from compress import importance
from compress.adam_memory import AdamMemory
from compress.budget import SIZE_TOLERANCE, Budget, quality_lost
from compress.finetune import finetune
from compress.front import Front, front_entry
from compress.judging import Roles
from compress.prune import kept_after_pruning, prune_sh
from compress.recipe import Recipe
from compress.run_dir import JournalRow, RunDir, RunState, read_journal
from compress.views import Views
from gsz import registry
from gsz.errors import UserError
from gsz.files import read_bytes
from gsz.registry import Grid
from quality.metrics import ViewMetrics
from scene.gaussian_model import GaussianModel
from utils.cli import bar_interval, say, warn

EXPECTED_ROUNDS = 24
"""Rounds that the bar expects until it knows better; the published schedule takes about 30,000 iterations in all."""

_FINAL_SLACK = 1.08
"""A target size counts as met by the rounds when exceeded by up to this factor: the final stage makes files smaller."""


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        path: The compressed file.
        splats: The model decoded from it.
        iterations: Iterations of fine-tuning in all.
        journal: One row for the uncompressed model and one a stage; the last is the file's.
    """

    path: Path
    splats: GaussianModel
    iterations: int
    journal: list[JournalRow]


def compress(
    original: GaussianModel,
    original_bytes: int,
    roles: Roles,
    recipe: Recipe,
    run: RunDir,
    *,
    settings: dict[str, Any],
    resume: bool = False,
    pick: str = "",
) -> Result:
    """Compress a trained model.

    Args:
        original: The checkpoint.
        original_bytes: Size of its file, for the journal.
        roles: Views to score and fine-tune on, and views that decide when to stop.
        recipe: All settings of the method.
        run: Where to write. The state after every stage goes there, so that a killed run can be resumed.
        settings: What the result depends on; a run is only resumed with the same.
        resume: Go on after the last completed stage of a run in ``run``, if there is one.
        pick: A size such as "5MB": do only the final stage, from the model of a finished run's front that has it.

    Raises:
        UserError: a target cannot be reached; the message says the nearest that can.
    """
    if pick:
        recipe = replace(recipe, target_size=pick, target_count=0, keep_ratio=0.0, end_with="last")
        listed = [row for row in read_journal(run.path / "journal.csv") if row.stage != "final"]
        state = _picked(run, recipe, settings, listed)
        return _Run(roles, recipe, run, state, listed).to_the_end(original_bytes)
    if resume and run.has_state():
        state = run.load_state(settings)
        say(f"resuming after stage {state.journal[-1].stage!r}")
    else:
        state = RunState(settings, original, [])
    return _Run(roles, recipe, run, state).to_the_end(original_bytes)


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
        least = len(recipe.make_codec().fit(one).encode(one))
        if budget.target_bytes < least:
            raise UserError(
                f"target_size: {recipe.target_size} is out of reach; a {recipe.codec} file of a single Gaussian takes "
                f"{least} bytes; choose a larger size"
            )


def _picked(run: RunDir, recipe: Recipe, settings: dict[str, Any], journal: list[JournalRow]) -> RunState:
    """The state of a finished run as if its rounds had ended when its file first fitted the recipe's target size."""
    suffix = recipe.make_codec().suffix
    size = recipe.budget(journal[0].gaussians).target_bytes if journal else None
    for end, row in enumerate(journal[1:], start=2):
        if size is not None and row.bytes <= size * _FINAL_SLACK:
            splats = GaussianModel.of(registry.read(Front(run.path / "front", []).path(front_entry(row, suffix))))
            say(f"the final stage goes on from {row.stage}: {row.bytes / 1e6:.2f} MB")
            return RunState(settings, splats, journal[:end], rounds_ended=True)
    smallest = min((row.bytes for row in journal[1:]), default=0)
    raise UserError(
        f"{run.path}: its front holds nothing as small as {recipe.target_size}; the smallest is "
        f"{smallest / 1e6:.2f} MB: run again with a larger max_psnr_drop"
    )


def _encoded(splats: GaussianModel, grid: Grid, scores: Tensor | None) -> bytes:
    """The file. Where there are scores, the Gaussians that score highest come first."""
    return grid.encode(splats) if scores is None else grid.encode(splats, scores.detach().cpu().numpy())


class _Clock:
    """Seconds between one look and the next."""

    def __init__(self) -> None:
        self._then = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._then = now - self._then, now
        return seconds


class _Run:
    def __init__(
        self,
        roles: Roles,
        recipe: Recipe,
        run: RunDir,
        state: RunState,
        listed: list[JournalRow] | None = None,
    ) -> None:
        self.roles = roles
        self.training = roles.training
        self.judging = roles.judging
        self.recipe = recipe
        self.run = run
        # Files are read to the CPU, whoever renders.
        device = roles.training.background.device
        moments = state.moments.to(device) if state.moments is not None else None
        self.state = replace(state, splats=state.splats.to(device), moments=moments)
        self.codec = recipe.make_codec()
        count = state.journal[0].gaussians if state.journal else len(state.splats)
        self.budget = recipe.budget(count)
        # All rounds of a finished run stay in its journal and its front when another of them is picked.
        self.listed = listed
        entries = [front_entry(row, self.codec.suffix) for row in (self.listed or state.journal)[1:]]
        self.front = Front(run.path / "front", entries)

    def to_the_end(self, original_bytes: int) -> Result:
        """The method, from wherever the state stands."""
        with self._bar() as self.bar:
            if not self.state.journal:
                self._record_uncompressed(original_bytes)
            if self._stages_done == 1:
                self._stage("first", self.recipe.first_iterations)
            while not self.state.rounds_ended and self._rounds_done < self.recipe.max_rounds:
                self._round()
            return self._final()

    def _round(self) -> None:
        """Score, prune, fine-tune; note whether the budget is spent."""
        clock = _Clock()
        splats, last = self.state.splats, self.state.journal[-1]
        if self.recipe.sh_prune_fraction > 0.0:
            scores, sh_scores = importance.with_sh(self.recipe.score, *self._score_arguments(splats))
            splats = prune_sh(splats, sh_scores, self.recipe.sh_prune_fraction)
        else:
            scores = self._scores(splats)
        dropped = self.budget.to_drop(self.recipe.prune_fraction, len(splats), last.bytes)
        kept = kept_after_pruning(scores, dropped)
        moments = self.state.moments.select(kept) if self.state.moments is not None else None
        self.state = replace(self.state, splats=splats.select(kept), moments=moments)
        self._stage(f"round {self._rounds_done + 1}", self.recipe.round_iterations, score_seconds=clock.lap())

    def _scores(self, splats: GaussianModel) -> Tensor:
        """Scores by which the recipe prunes."""
        return importance.SCORES[self.recipe.score](*self._score_arguments(splats))

    def _score_arguments(self, splats: GaussianModel) -> tuple[GaussianModel, Views, importance.Seed]:
        """What every score takes; what is scored are the values that the file would hold."""
        snapped = self.codec.fit(splats).snap(splats).detach()
        return snapped, self.training, (self.recipe.seed, self._stages_done)

    def _stage(self, name: str, iterations: int, score_seconds: float = 0.0) -> None:
        """Fine-tune, encode, decode, measure; then make it the state to resume from."""
        clock = _Clock()
        memory = self._memory(self.state.splats)
        splats, grid = self._finetune(self.state.splats, iterations, memory=memory)
        finetune_seconds = clock.lap()
        data = grid.encode(splats)
        encode_seconds = clock.lap()
        metrics = self.judging.evaluate(GaussianModel.of(registry.decode(data, name)))
        times = (score_seconds, finetune_seconds, encode_seconds, clock.lap())
        row = self._row(name, iterations, len(splats), metrics, len(data), times)
        spent = name != "first" and self.budget.is_spent(metrics, self._uncompressed)
        met = self.budget.is_met(row.gaussians, int(row.bytes / _FINAL_SLACK))
        self.front.add(front_entry(row, self.codec.suffix), data)
        moments = memory.moments if memory is not None else None
        journal = [*self.state.journal, row]
        self.state = RunState(self.state.settings, splats, journal, rounds_ended=spent or met, moments=moments)
        self.run.save_state(self.state)
        if spent:
            lost = quality_lost(metrics, self._uncompressed)
            of_lpips = "" if lost.lpips is None else f" and gained {-lost.lpips:.4f} LPIPS"
            say(
                f"{name} lost {lost.psnr:.2f} dB and {lost.ssim:.4f} SSIM{of_lpips}: the budget is spent, the final "
                "stage follows"
            )

    def _final(self) -> Result:
        """Fine-tune once more, write the file, read it back and measure what was read."""
        clock = _Clock()
        chosen = self._chosen()
        if self.recipe.final_uses_all:
            self.training = self.roles.everything
        splats, grid, scores = self._finish(chosen)
        finetune_seconds = clock.lap()
        path = self.run.write_compressed(self.codec.suffix, _encoded(splats, grid, scores))
        encode_seconds = clock.lap()
        data = read_bytes(path)
        decoded = GaussianModel.of(registry.decode(data, path))
        metrics = self.judging.evaluate(decoded)
        times = (0.0, finetune_seconds, encode_seconds, clock.lap())
        row = self._row("final", self.recipe.final_iterations, len(decoded), metrics, len(data), times)
        journal = [*(self.listed or self.state.journal), row]
        self.run.write_journal(journal)
        # The rounds are over, so the rest of the expected iterations will not come.
        self.bar.total = self.bar.n
        self.bar.refresh()
        self.front.print_table()
        self.front.write_plot(self.run.path / "front.png")
        return Result(path, decoded, row.iteration, journal)

    def _chosen(self) -> GaussianModel:
        """The model that the final stage goes on from."""
        chosen, splats = front_entry(self.state.journal[-1], self.codec.suffix), self.state.splats
        if self.recipe.end_with == "best":
            best = self.front.best(self.budget, self._uncompressed)
            if best is None:
                say("no round is within the budget: the final stage goes on from the largest model")
                best = self.front.entries[0]
            if best != chosen:
                chosen = best
                splats = GaussianModel.of(registry.read(self.front.path(best))).to(self.training.background.device)
                say(f"the final stage goes on from {best.stage}, the smallest within the budget")
        if self.budget.has_target and not self.budget.is_met(chosen.gaussians, int(chosen.bytes / _FINAL_SLACK)):
            raise UserError(
                f"{self.run.path}: the target is out of reach; the nearest within the quality budget is "
                f"{chosen.bytes / 1e6:.2f} MB with {chosen.gaussians} Gaussians: raise max_psnr_drop, max_ssim_drop "
                "or max_rounds"
            )
        return splats

    def _finish(self, splats: GaussianModel) -> tuple[GaussianModel, Grid, Tensor | None]:
        """The final iterations. A target size is met before the last fifth of them, and again after.

        Returns:
            The model, its grid, and what its Gaussians are to be ordered by in the file.
        """
        iterations = self.recipe.final_iterations
        target = self.budget.target_bytes
        if target is None:
            splats, grid = self._finetune(splats, iterations, memory=self._memory(splats))
            return splats, grid, self._importance(splats, grid)
        scores: Tensor | None = None
        for part, share in enumerate((iterations - iterations // 5, iterations // 5)):
            splats, grid = self._finetune(splats, share, part)
            splats, grid, scores = self._to_size(splats, grid, target)
        if len(_encoded(splats, grid, scores)) < (1.0 - SIZE_TOLERANCE) * target:
            warn(f"the file is more than {SIZE_TOLERANCE:.0%} smaller than {self.recipe.target_size} asks for")
        return splats, grid, scores

    def _importance(self, splats: GaussianModel, grid: Grid) -> Tensor | None:
        return self._scores(splats) if grid.uses_importance else None

    def _to_size(self, splats: GaussianModel, grid: Grid, target: int) -> tuple[GaussianModel, Grid, Tensor | None]:
        """Bring the file to ``target`` bytes: by the steps of the grid where there is a choice, then by pruning."""
        too_large = len(grid.encode(splats)) > target
        codec = self.codec.for_size(splats, target) if too_large or self.budget.target_count is None else None
        if codec is not None:
            self.codec, grid = codec, codec.fit(splats)
        return self._trim(splats, grid, target)

    def _trim(self, splats: GaussianModel, grid: Grid, target: int) -> tuple[GaussianModel, Grid, Tensor | None]:
        """Drop as few Gaussians as bring the file to ``target`` bytes, the least important first."""
        ordering = self._importance(splats, grid)
        size = len(_encoded(splats, grid, ordering))
        if size <= target:
            return splats, grid, ordering
        scores = self._scores(splats) if ordering is None else ordering
        fits, too_many = 0, len(splats)  # Counts known to fit, and known not to.
        best: tuple[GaussianModel, Grid, Tensor | None] | None = None
        guess = int(len(splats) * target / size)
        while best is None or (fits < too_many - 1 and len(_encoded(*best)) < (1 - SIZE_TOLERANCE / 2) * target):
            indices = kept_after_pruning(scores, len(splats) - guess)
            kept = splats.select(indices)
            kept_grid = self.codec.fit(kept)
            kept_ordering = scores[indices] if kept_grid.uses_importance else None
            size = len(_encoded(kept, kept_grid, kept_ordering))
            if size <= target:
                fits, best = guess, (kept, kept_grid, kept_ordering)
            else:
                too_many = guess
            if too_many <= 1 and best is None:
                raise UserError(f"target_size: even one Gaussian takes {size} bytes; choose a larger size")
            aimed = int(guess * target / size * (1 - SIZE_TOLERANCE / 4))
            guess = min(max(aimed, fits + 1), too_many - 1) if fits < too_many - 1 else fits
        return best

    def _finetune(
        self, splats: GaussianModel, iterations: int, part: int = 0, memory: AdamMemory | None = None
    ) -> tuple[GaussianModel, Grid]:
        seed = (self.recipe.seed, self._stages_done, part)
        return finetune(splats, self.codec, self.training, self.recipe, iterations, seed, self._progress, memory)

    def _memory(self, splats: GaussianModel) -> AdamMemory | None:
        """What Adam remembers of the model, where the recipe keeps it; nothing of one that is not the state's."""
        if not self.recipe.keep_optimizer:
            return None
        return AdamMemory(self.state.moments if splats is self.state.splats else None)

    def _record_uncompressed(self, original_bytes: int) -> None:
        self.front.clear()
        clock = _Clock()
        metrics = self.judging.evaluate(self.state.splats)
        times = (0.0, 0.0, 0.0, clock.lap())
        row = self._row("uncompressed", 0, len(self.state.splats), metrics, original_bytes, times)
        self.state = replace(self.state, journal=[row])
        self.run.save_state(self.state)

    def _row(
        self,
        stage: str,
        iterations: int,
        count: int,
        metrics: ViewMetrics,
        size: int,
        times: tuple[float, float, float, float],
    ) -> JournalRow:
        """The journal's row of a stage of so many iterations; also logs it."""
        done = self._iterations_done + iterations
        row = JournalRow(stage, done, count, metrics.psnr, metrics.ssim, size, *times, lpips=metrics.lpips)
        say(
            f"{stage}: {count:,} Gaussians, PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.4f}, "
            f"{size / 1e6:.2f} MB ({size / max(count, 1):.1f} bytes a Gaussian)"
        )
        return row

    @property
    def _stages_done(self) -> int:
        """Rows of the journal: 1 for the uncompressed model, 2 after the first stage, then the rounds."""
        return len(self.state.journal)

    @property
    def _rounds_done(self) -> int:
        return max(0, self._stages_done - 2)

    @property
    def _iterations_done(self) -> int:
        return self.state.journal[-1].iteration if self.state.journal else 0

    @property
    def _uncompressed(self) -> ViewMetrics:
        return self.state.journal[0].metrics

    def _bar(self) -> tqdm:
        recipe = self.recipe
        rounds = min(recipe.max_rounds, max(self._expected_rounds(), self._rounds_done))
        total = recipe.first_iterations + rounds * recipe.round_iterations + recipe.final_iterations
        return tqdm(
            total=total,
            initial=self._iterations_done,
            desc="compress",
            unit="it",
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=bar_interval(),
        )

    def _expected_rounds(self) -> int:
        """How many rounds a target count takes; a guess where there is none."""
        if self.budget.target_count is None:
            return EXPECTED_ROUNDS
        count, rounds = len(self.state.splats), self._rounds_done
        while count > self.budget.target_count:
            count -= Budget().to_drop(self.recipe.prune_fraction, count, 0)
            rounds += 1
        return rounds

    def _progress(self, loss: float | None) -> None:
        if self.bar.n >= (self.bar.total or 0):
            self.bar.total = self.bar.n + self.recipe.round_iterations
        self.bar.update()
        if loss is not None:
            row = self.state.journal[-1]
            self.bar.set_postfix_str(
                f"round {self._rounds_done}, {len(self.state.splats):,} Gaussians, {row.psnr:.2f} dB, loss {loss:.4f}",
                refresh=False,
            )
