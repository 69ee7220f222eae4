"""Proves on a real Ray cluster of two nodes that a batch survives the death of one, and writes the same bytes as a
serial run; and that what can be wrong with a cluster is said in one line.

Needs the packages of ``requirements-cluster.txt``; ``make test-cluster`` installs them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed; make test-cluster installs it")

import make_mock_datasets  # noqa: E402
from batch.datasets import DATASETS  # noqa: E402
from batch.display import Display  # noqa: E402
from batch.job import ROOT, versions  # noqa: E402
from batch.on_ray import RayBatch  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from gsz.errors import UserError  # noqa: E402
from scripts import run_datasets  # noqa: E402
from tests.scripts.test_run_datasets import job  # noqa: E402

ALL_SCENES_IN = os.environ.get("ALL_SCENES_IN")
"""A folder to keep. With it batches are of all thirteen scenes; those that a serial run there has ended stay."""
SCENES = tuple(scene for dataset in DATASETS for scene in dataset.images) if ALL_SCENES_IN else ("truck", "playroom")


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(ALL_SCENES_IN).resolve() if ALL_SCENES_IN else tmp_path_factory.mktemp("mock")
    make_mock_datasets.make(make_mock_datasets.Options(folder, gaussians=500))
    return folder


@pytest.fixture(scope="module", autouse=True)
def ctrl_c():
    """Ctrl-C is heard even where these tests run in the background of a shell, whose processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    cluster.add_node(num_cpus=1, num_gpus=0, resources={"doomed": 1})
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def options(mock: Path, out: str, *more: str, recipe: str = "tiny.yaml") -> list[str]:
    return [
        *("--mipnerf360", str(mock / "360"), "--tanksandtemples", str(mock / "tandt")),
        *("--deepblending", str(mock / "db")),
        *("--checkpoints", str(mock / "models"), "--config", str(mock / recipe), "-m", str(mock / out)),
        *("--only", *SCENES, *more),
    ]


def compressed(folder: Path) -> dict[str, bytes]:
    return {scene: (folder / scene / "compressed.gsz").read_bytes() for scene in SCENES}


def kill_when_training(cluster: Cluster, node: object, out: Path) -> threading.Thread:
    """Kill a node as soon as a scene has completed a stage and is in the middle of the next."""

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(out.glob("*/resume/*"))) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_batch_survives_the_death_of_a_machine_and_writes_the_bytes_of_a_serial_run(mock, cluster):
    run_datasets.main(options(mock, "serial", "--skip_done"))
    doomed = next(node for node in cluster.worker_nodes)
    killer = kill_when_training(cluster, doomed, mock / "ray")
    run_datasets.main(options(mock, "ray", "--ray", cluster.address, "--cpus_per_scene", "1"))
    killer.join()
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1 if ray.is_initialized() else True
    assert compressed(mock / "ray") == compressed(mock / "serial")
    logs = [(mock / "ray" / scene / "batch.log").read_text() for scene in SCENES]
    assert any("resuming after stage" in log for log in logs), "the scene of the dead machine went on elsewhere"


def test_ctrl_c_ends_the_tasks_which_can_be_resumed(mock, cluster):
    out = mock / "interrupted"
    tiny = (mock / "tiny.yaml").read_text()
    # No machine is done with it before it is interrupted.
    (mock / "long.yaml").write_text(re.sub("(final_iterations): .*", r"\1: 100000", tiny))
    address = ("--ray", cluster.address, "--cpus_per_scene", "1")
    program = ["run_datasets.py", *options(mock, "interrupted", *address, recipe="long.yaml")]
    batch = subprocess.Popen([sys.executable, ROOT / "scripts" / program[0], *program[1:]], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/resume/*"))) < 2:
        assert batch.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    batch.send_signal(signal.SIGINT)
    _, printed = batch.communicate(timeout=60)
    assert batch.returncode == 130 and b"Traceback" not in printed
    assert not training_in(out), "no program goes on without its batch"
    assert list(out.glob("*/resume/state.npz")), "--resume has a state to go on from"


def training_in(folder: Path) -> list[str]:
    """The command lines of programs that work in a folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands.append(process.read_text(errors="replace").replace("\0", " "))
    return [command for command in commands if "train.py" in command and str(folder) in command]


def test_an_address_where_nobody_answers_is_named():
    began = time.monotonic()
    with pytest.raises(UserError, match=r"--ray 127.0.0.1:1: no Ray cluster answers there \(Connection refused\)"):
        RayBatch("127.0.0.1:1", None, None, 0)
    assert time.monotonic() - began < 30


def test_a_scene_that_is_too_large_for_every_machine_is_refused(cluster):
    ray.init(address=cluster.address, log_to_driver=False)
    with pytest.raises(UserError, match=r"no machine of the cluster is that large; the largest have 0 GPUs and 1 CPUs"):
        RayBatch(cluster.address, 0, 64, 0)


def test_failures_on_a_machine_are_one_line_that_names_it(tmp_path, cluster):
    ray.init(address=cluster.address, log_to_driver=False)
    batch = RayBatch(cluster.address, 0, 1, 0)
    (tmp_path / "failing").mkdir()
    failing = job(tmp_path / "failing" / "a", "import sys; sys.exit('error: no photographs')")
    strange = job(tmp_path / "b", "", versions=tuple((name, "0") for name, _ in versions()))
    without = job(tmp_path / "c", "", needed=(tmp_path / "absent",))
    failures = {each.output.name: why for each, why in batch.run([failing, strange, without], Display(["scene"]))}
    here = socket.gethostname()
    assert failures["a"] == f"{here}: program.py ended with exit code 1: no photographs"
    assert failures["b"].startswith(f"{here}: has the programs ")
    assert failures["c"].startswith(f"{here}: {tmp_path / 'absent'} is missing")
