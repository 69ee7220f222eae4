"""The method: fine-tune on the grid, then score, prune and fine-tune again until the budget is spent; finish, write."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from compress import codecs, importance
from compress.budget import Budget
from compress.finetune import finetune
from compress.prune import prune, prune_sh
from compress.recipe import Recipe
from compress.run_dir import JournalRow, RunDir, RunState
from compress.views import Views
from scene.gaussian_model import GaussianModel
from utils.cli import say
from utils.files import read_bytes
from utils.metrics import ViewMetrics

EXPECTED_ROUNDS = 24
"""Rounds that the bar expects until it knows better; the published schedule takes about 30,000 iterations in all."""


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
    training: Views,
    judging: Views,
    recipe: Recipe,
    run: RunDir,
    *,
    settings: dict[str, Any],
    resume: bool = False,
) -> Result:
    """Compress a trained model.

    Args:
        original: The checkpoint.
        original_bytes: Size of its file, for the journal.
        training: Views to score and fine-tune on.
        judging: Views that decide when to stop.
        recipe: All settings of the method.
        run: Where to write. The state after every stage goes there, so that a killed run can be resumed.
        settings: What the result depends on; a run is only resumed with the same.
        resume: Go on after the last completed stage of a run in ``run``, if there is one.
    """
    if resume and run.has_state():
        state = run.load_state(settings)
        state = replace(state, splats=state.splats.to(original.device))
        say(f"resuming after stage {state.journal[-1].stage!r}")
    else:
        state = RunState(settings, original, [])
    return _Run(training, judging, recipe, run, state).to_the_end(original_bytes)


class _Run:
    def __init__(self, training: Views, judging: Views, recipe: Recipe, run: RunDir, state: RunState) -> None:
        self.training = training
        self.judging = judging
        self.recipe = recipe
        self.run = run
        self.state = state
        self.codec = codecs.get(recipe.codec)
        self.budget = Budget(recipe.max_psnr_drop)

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
        started = time.perf_counter()
        splats = self.state.splats
        # Scored are the values that the file would hold.
        snapped = self.codec.fit(splats).snap(splats).detach()
        seed = (self.recipe.seed, self._stages_done)
        if self.recipe.sh_prune_fraction > 0.0:
            sh_scores = importance.SH_SCORE(snapped, self.training, seed)
            splats = prune_sh(splats, sh_scores, self.recipe.sh_prune_fraction)
        scores = importance.SCORES[self.recipe.score](snapped, self.training, seed)
        self.state = replace(self.state, splats=prune(splats, scores, self.recipe.prune_fraction))
        seconds = time.perf_counter() - started
        self._stage(f"round {self._rounds_done + 1}", self.recipe.round_iterations, score_seconds=seconds)

    def _stage(self, name: str, iterations: int, score_seconds: float = 0.0) -> None:
        """Fine-tune, encode, decode, measure; then make it the state to resume from."""
        started = time.perf_counter()
        splats, grid = self._finetune(iterations)
        finetuned = time.perf_counter()
        data = grid.encode(splats)
        encoded = time.perf_counter()
        metrics = self.judging.evaluate(codecs.decode(data, name))
        evaluated = time.perf_counter()
        row = JournalRow(
            name,
            self._iterations_done + iterations,
            len(splats),
            metrics.psnr,
            metrics.ssim,
            len(data),
            score_seconds,
            finetuned - started,
            encoded - finetuned,
            evaluated - encoded,
        )
        spent = name != "first" and self.budget.is_spent(metrics, self._uncompressed)
        self.state = RunState(self.state.settings, splats, [*self.state.journal, row], rounds_ended=spent)
        self.run.save_state(self.state)
        self._log(row)
        if spent:
            drop = self._uncompressed.psnr - metrics.psnr
            say(f"{name} lost {drop:.2f} dB: the budget is spent, the final stage follows")

    def _final(self) -> Result:
        """Fine-tune once more, write the file, read it back and measure what was read."""
        started = time.perf_counter()
        splats, grid = self._finetune(self.recipe.final_iterations)
        finetuned = time.perf_counter()
        path = self.run.write_compressed(self.codec.suffix, grid.encode(splats))
        written = time.perf_counter()
        data = read_bytes(path)
        decoded = codecs.decode(data, path)
        metrics = self.judging.evaluate(decoded)
        evaluated = time.perf_counter()
        iterations = self._iterations_done + self.recipe.final_iterations
        row = JournalRow(
            "final",
            iterations,
            len(decoded),
            metrics.psnr,
            metrics.ssim,
            len(data),
            0.0,
            finetuned - started,
            written - finetuned,
            evaluated - written,
        )
        journal = [*self.state.journal, row]
        self.run.write_journal(journal)
        self._log(row)
        return Result(path, decoded, iterations, journal)

    def _finetune(self, iterations: int):
        seed = (self.recipe.seed, self._stages_done)
        return finetune(self.state.splats, self.codec, self.training, self.recipe, iterations, seed, self._progress)

    def _record_uncompressed(self, original_bytes: int) -> None:
        started = time.perf_counter()
        metrics = self.judging.evaluate(self.state.splats)
        seconds = time.perf_counter() - started
        row = JournalRow(
            "uncompressed",
            0,
            len(self.state.splats),
            metrics.psnr,
            metrics.ssim,
            original_bytes,
            evaluate_seconds=seconds,
        )
        self.state = replace(self.state, journal=[row])
        self.run.save_state(self.state)
        self._log(row)

    @property
    def _stages_done(self) -> int:
        """Rows of the journal: 1 for the uncompressed model, 2 after the first stage, then the rounds."""
        return len(self.state.journal)

    @property
    def _rounds_done(self) -> int:
        return max(0, self._stages_done - 2)

    @property
    def _iterations_done(self) -> int:
        return self.state.journal[-1].iteration

    @property
    def _uncompressed(self) -> ViewMetrics:
        row = self.state.journal[0]
        return ViewMetrics(row.psnr, row.ssim)

    def _bar(self) -> tqdm:
        recipe = self.recipe
        rounds = min(recipe.max_rounds, max(EXPECTED_ROUNDS, self._rounds_done))
        total = recipe.first_iterations + rounds * recipe.round_iterations + recipe.final_iterations
        done = self.state.journal[-1].iteration if self.state.journal else 0
        return tqdm(total=total, initial=done, desc="compress", unit="it", dynamic_ncols=True, smoothing=0.05)

    def _progress(self, loss: float | None) -> None:
        if self.bar.n >= (self.bar.total or 0):
            self.bar.total = self.bar.n + self.recipe.round_iterations
        self.bar.update()
        if loss is not None:
            row = self.state.journal[-1]
            self.bar.set_postfix_str(
                f"round {self._rounds_done}, {len(self.state.splats):,} Gaussians, {row.psnr:.2f} dB, loss {loss:.4f}"
            )

    def _log(self, row: JournalRow) -> None:
        per_gaussian = row.bytes / max(row.gaussians, 1)
        say(
            f"{row.stage}: {row.gaussians:,} Gaussians, PSNR {row.psnr:.2f} dB, SSIM {row.ssim:.4f}, "
            f"{row.bytes / 1e6:.2f} MB ({per_gaussian:.1f} bytes a Gaussian)"
        )
        if row.stage == "final":
            # The rounds are over, so the rest of the expected iterations will not come.
            self.bar.total = self.bar.n
            self.bar.refresh()
