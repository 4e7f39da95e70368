"""The scripts of docs/clusters.md, submitted to a SLURM that runs here: one worker is killed, one node lost."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from converter.conversion import ConvertOptions, convert
from converter.sample import write_sample
from tests.archives import read_files
from tests.clusters.slurm import NODES, Slurm, find_missing, start_slurm
from tests.documents import DOCS

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(find_missing()), reason=find_missing()),
]

N_PATCHES: Final = 3000
SHARD_SIZE: Final = 32
SMALLER: Final = ("--cpus-per-task=1", "--mem=1G")
"""What `sbatch` is told here besides the scripts: the nodes are small."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with start_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts of the page and a virtual environment, from which jobs are submitted."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / ".venv").symlink_to(sys.prefix)
    page = (DOCS / "clusters.md").read_text()
    for name, script in re.findall(r"`(\w+\.sbatch)`:\n\n```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        (desk / name).write_text(script)
    write_sample(desk / "archive", N_PATCHES)
    return desk


@pytest.fixture(scope="module")
def expected(desk: Path) -> dict[str, bytes]:
    """Files of the store as this machine alone makes it."""
    convert(desk / "archive", desk / "expected", ConvertOptions(shard_size=SHARD_SIZE))
    return read_files(desk / "expected")


def submit(slurm: Slurm, desk: Path, *words: object) -> str:
    return slurm.ask("sbatch", "--parsable", *SMALLER, *words, cwd=desk)


def read_log(slurm: Slurm, job: str) -> str:
    return Path(slurm.describe_job(job)["StdOut"]).read_text()


def test_the_converter_goes_on_when_a_worker_is_killed_and_a_node_lost(
    slurm: Slurm, desk: Path, expected: dict[str, bytes]
) -> None:
    head = submit(slurm, desk, "convert.sbatch", "convert", "archive", "store", "--shard-size", SHARD_SIZE)
    slurm.wait_for(head, "RUNNING")
    array = submit(slurm, desk, "--array=1-2", "worker.sbatch", f"scheduler-{head}.json")
    workers = [f"{array}_{number}" for number in (1, 2)]
    nodes = [slurm.wait_for(worker, "RUNNING")["NodeList"] for worker in workers]
    assert set(nodes) < set(NODES)

    wait_for_shards(desk / "store", 4)
    kill_worker(array, 1)
    wait_for_shards(desk / "store", 12)
    slurm.ask("scontrol", "update", f"NodeName={nodes[1]}", "State=DOWN", "Reason=test")
    described = slurm.wait_for(workers[1], "PENDING", "RUNNING", "COMPLETED")
    assert described["Restarts"] == "1"

    state = slurm.wait_for(head, "COMPLETED", "FAILED", "NODE_FAIL")["JobState"]
    assert state == "COMPLETED", read_log(slurm, head)
    assert read_files(desk / "store") == expected
    assert f"{N_PATCHES:,} found = {N_PATCHES:,} converted" in read_log(slurm, head)
    slurm.wait_for(workers[0], "COMPLETED")

    head = submit(slurm, desk, "convert.sbatch", "verify", "store", "--against", "archive")
    worker = submit(slurm, desk, f"--dependency=after:{head}", "worker.sbatch", f"scheduler-{head}.json")
    state = slurm.wait_for(head, "COMPLETED", "FAILED")["JobState"]
    assert state == "COMPLETED", read_log(slurm, head)
    assert f"{N_PATCHES:,} patches" in read_log(slurm, head)
    slurm.wait_for(worker, "COMPLETED")


def wait_for_shards(store: Path, n_shards: int) -> None:
    deadline = time.monotonic() + 60
    while len([*store.glob(".progress/**/*.json")]) < n_shards:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_worker(array: str, number: int) -> None:
    """Kill one worker process of a job, as a node without memory would."""
    for process in psutil.process_iter(["cmdline"]):
        environment = process.environ() if "spawn_main" in " ".join(process.info["cmdline"] or ()) else {}
        if (environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")) == (array, str(number)):
            process.send_signal(signal.SIGKILL)
            return
    pytest.fail("expected a worker process")


@pytest.mark.usefixtures("expected")
def test_a_part_is_staged_and_a_training_of_two_tasks_goes_on_when_it_is_requeued(slurm: Slurm, desk: Path) -> None:
    pytest.importorskip("jax")
    (desk / "scratch").mkdir()
    recipe = ("--no-tensorboard", "--batch-size", "8", "--checkpoint-steps", "3", "--epochs", "2", "--fraction", "0.1")
    here = ("--mem=4G", f"--export=ALL,TMPDIR={desk / 'scratch'}")
    job = submit(slurm, desk, *here, "train.sbatch", "expected", "run", "60m", *recipe)
    deadline = time.monotonic() + 300
    while not (desk / "run/state.npz").exists():
        assert slurm.describe_job(job)["JobState"] in ("PENDING", "RUNNING"), read_log(slurm, job)
        assert time.monotonic() < deadline, read_log(slurm, job)
        time.sleep(0.1)
    slurm.ask("scontrol", "requeue", job)
    state = slurm.wait_for(job, "COMPLETED", "FAILED", seconds=400)["JobState"]
    printed = read_log(slurm, job)
    assert state == "COMPLETED", printed
    assert "Copied" in printed
    assert printed.count("Already there") >= 2  # the other task, and both when the job was started again
    assert "Goes on    in epoch" in printed
    assert (desk / "run/result.json").exists()
