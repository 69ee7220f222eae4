"""Jobs over the machines of a Ray cluster, each where there is room for it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from batch.display import Display
from batch.job import ROOT, JobFailed, SceneJob, run_job
from gsz.errors import UserError

REQUIREMENT = "ray==2.60.*"
LEAST_VERSION = (2, 60)
_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 10.0


class RayBatch:
    """A connection to a cluster.

    Args:
        address: Of a running cluster; ``"auto"`` is the one that this machine belongs to, and ``None`` starts one of
            this machine alone.
        gpus, cpus: What a job takes; ``None`` is one GPU where the cluster has any, and four CPUs or as many as its
            largest machine has.
        retries: How often a job is begun anew on another machine when the one it ran on has died.

    Raises:
        UserError: Ray is missing or too old, the cluster cannot be reached, or none of its machines is large enough.
    """

    def __init__(self, address: str | None, gpus: float | None, cpus: int | None, retries: int) -> None:
        self._ray = _import_ray()
        self._connect(address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most_gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        most_cpus = int(max((node.get("CPU", 0.0) for node in nodes), default=0.0))
        self.gpus = min(1.0, most_gpus) if gpus is None else gpus
        self.cpus = min(4, most_cpus) if cpus is None else cpus
        self.retries = retries
        if self.gpus > most_gpus or self.cpus > most_cpus:
            raise UserError(
                f"--gpus_per_scene {self.gpus:g} --cpus_per_scene {self.cpus}: no machine of the cluster is that "
                f"large; the largest have {most_gpus:g} GPUs and {most_cpus} CPUs"
            )

    def run(self, jobs: Sequence[SceneJob], display: Display) -> Iterator[tuple[SceneJob, str | None]]:
        """Run jobs, as many at a time as there is room for.

        Yields:
            Each job when it has ended, with ``None`` or one line that says why it failed.
        """
        ray = self._ray
        # The repository is at the same path on every machine; its workers find these modules there.
        path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        there = {"env_vars": {"PYTHONPATH": path}}
        board = ray.remote(_Board).options(num_cpus=0, max_restarts=-1, runtime_env=there).remote()
        task = ray.remote(_run_remotely).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, runtime_env=there
        )
        pending = {task.remote(job, board, self.cpus): job for job in jobs}
        try:
            while pending:
                ended, _ = ray.wait(list(pending), timeout=_POLL_SECONDS)
                self._show(board, display)
                for reference in ended:
                    yield pending.pop(reference), self._failure(reference)
        finally:
            # What is left was interrupted: its programs save their state and end.
            for reference in pending:
                ray.cancel(reference)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=15)

    def close(self) -> None:
        self._ray.shutdown()

    def _connect(self, address: str | None) -> None:
        if self._ray.is_initialized():
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            options |= {"include_dashboard": False}
        if address is not None:
            _knock(address)
        try:
            self._ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "this machine" if address is None else address
            if "Version mismatch" in str(error):
                raise UserError(f"--ray {where}: {_one_line(error)}; install the same on all machines") from error
            raise UserError(
                f"--ray {where}: no Ray cluster answers there ({_one_line(error)}); start one with `ray start`"
            ) from error

    def _failure(self, reference: Any) -> str | None:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return f"its task ended with an error: {str(error).strip().splitlines()[-1]}"
        except self._ray.exceptions.RayError as error:
            return f"its machine died, {self.retries} retries included ({type(error).__name__})"

    def _show(self, board: Any, display: Display) -> None:
        try:
            news = self._ray.get(board.take.remote(), timeout=5)
        except self._ray.exceptions.RayError:  # It was on a machine that died, and is made anew on another.
            return
        for name, words in news.items():
            display.running(name, words)


class _Board:
    """Where running jobs write how far they are; it lives on one of the machines."""

    def __init__(self) -> None:
        self._news: dict[str, str] = {}

    def put(self, name: str, words: str) -> None:
        self._news[name] = words

    def take(self) -> dict[str, str]:
        news, self._news = self._news, {}
        return news


def _run_remotely(job: SceneJob, board: Any, cpus: int) -> str | None:
    """A job on whatever machine it was sent to: ``None``, or one line that says why it failed."""
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(max(1, cpus))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A cluster that was started in the background ignores Ctrl-C, and so would the programs of a cancelled task.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    here = socket.gethostname()
    try:
        run_job(job, lambda words: board.put.remote(job.name, f"{words} on {here}"))
    except (JobFailed, UserError) as error:
        return str(error)
    return None


def _knock(address: str) -> None:
    """See that somebody answers at ``HOST:PORT``: Ray itself would wait for minutes.

    Raises:
        UserError: nobody does.
    """
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdecimal():  # Such as "auto", which Ray looks up on this machine.
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--ray {address}: no Ray cluster answers there ({reason}); start one with `ray start`"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(f'--ray needs Ray: pip install "{REQUIREMENT}"') from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < LEAST_VERSION:
        raise UserError(f'--ray needs a newer Ray than {ray.__version__}: pip install "{REQUIREMENT}"')
    return ray
