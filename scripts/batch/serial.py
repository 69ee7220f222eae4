"""Jobs one after the other, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batch.display import Display
from batch.job import JobFailed, SceneJob, run_job
from gsz.errors import UserError


def run_serially(jobs: Sequence[SceneJob], display: Display) -> Iterator[tuple[SceneJob, str | None]]:
    """Run jobs in their order.

    Yields:
        Each job when it has ended, with ``None`` or one line that says why it failed.
    """
    for job in jobs:
        try:
            run_job(job, lambda words, job=job: display.running(job.name, words))
        except (JobFailed, UserError) as error:
            yield job, str(error)
        else:
            yield job, None
