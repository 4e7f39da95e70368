"""One training in several processes, also on several hosts; any of them dies, and it goes on with another number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from converter.conversion import convert
from converter.sample import write_sample
from tests.clusters.hosts import Host, find_missing, make_hosts
from tests.servers import find_free_port
from trainer.run.folder import RunFolder

pytest.importorskip("jax")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]

RECIPE: Final = (
    *("--no-tensorboard", "--bands", "60m", "--epochs", "2", "--batch-size", "8", "--checkpoint-steps", "3"),
    *("--augment", "symmetries", "--dropout", "0.3", "--network", "tests.trainer.own:network", "--drop-path", "0.3"),
)
"""All that draws at random, and batch normalisation; several states in an epoch of eight steps."""

ENVIRONMENT: Final = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_sample(folder / "archive", 160)
    convert(folder / "archive", folder / "store")
    return folder / "store"


@dataclass(frozen=True)
class Run:
    """A training while it runs."""

    processes: list[subprocess.Popen[str]]

    def wait(self, seconds: float) -> list[str]:
        """Wait until all have ended; return what they printed."""
        deadline = time.monotonic() + seconds
        return [process.communicate(timeout=deadline - time.monotonic())[0] for process in self.processes]

    @property
    def codes(self) -> list[int | None]:
        return [process.poll() for process in self.processes]


def spell(store: Path, run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "trainer", "fit", str(store), str(run), *RECIPE, *more]


@contextmanager
def start(store: Path, run: Path, n: int, more: Sequence[Sequence[str]] = ()) -> Iterator[Run]:
    """Start a training in so many processes, each with further words of its own."""
    coordinator = f"127.0.0.1:{find_free_port()}"
    processes = []
    for rank in range(n):
        named = ("--coordinator", coordinator, "--rank", str(rank), "--ranks", str(n)) if n > 1 else ()
        command = spell(store, run, *named, *(more[rank] if more else ()))
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=ENVIRONMENT, **out))  # type: ignore[call-overload]
    try:
        yield Run(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def train(store: Path, run: Path, n: int) -> None:
    with start(store, run, n) as running:
        printed = running.wait(300)
        assert running.codes == [0] * n, printed


def wait_for_state(run: Path, running: Run) -> None:
    while not (run / "state.npz").exists():
        assert running.codes == [None] * len(running.processes)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    train(store, run, 1)
    return run


def expect_same(found: Path, expected: Path) -> None:
    """Compare two runs: the same, but for the order in which sums are added."""
    logs = [RunFolder(run).read_log() for run in (found, expected)]
    for record, wanted in zip(*logs, strict=True):
        for name in ("loss", "val_loss", "val_macro_ap", "val_micro_ap", "learning_rate"):
            assert record[name] == pytest.approx(wanted[name], abs=1e-4), name
    code = (
        "import sys; from pathlib import Path; import numpy as np; from trainer.model.networks import load_model\n"
        "np.savez(sys.argv[2], *load_model(Path(sys.argv[1]), 'tests.trainer.own:network').get_weights())"
    )
    weights = []
    for run in (found, expected):
        command = [sys.executable, "-c", code, str(run / "best.keras"), str(run / "weights.npz")]
        subprocess.run(command, env=ENVIRONMENT, check=True)
        with np.load(run / "weights.npz") as loaded:
            weights.append([loaded[name] for name in loaded.files])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("n", [2, 4])
def test_several_processes_give_what_one_gives(n: int, store: Path, alone: Path, tmp_path: Path) -> None:
    train(store, tmp_path / "run", n)
    expect_same(tmp_path / "run", alone)


@pytest.mark.parametrize(("n", "victim", "then"), [(2, 0, 4), (2, 1, 1), (4, 2, 2)])
def test_when_one_is_killed_all_end_and_it_goes_on_with_another_number(
    n: int, victim: int, then: int, store: Path, alone: Path, tmp_path: Path
) -> None:
    with start(store, tmp_path / "run", n) as running:
        wait_for_state(tmp_path / "run", running)
        running.processes[victim].send_signal(signal.SIGKILL)
        printed = running.wait(20)
    others = [code for rank, code in enumerate(running.codes) if rank != victim]
    assert 0 not in others
    if victim:  # where the first is gone, JAX may end the others itself
        assert any("another process of this training has ended" in text for text in printed)
    train(store, tmp_path / "run", then)
    expect_same(tmp_path / "run", alone)


def test_all_end_when_they_are_told_to_and_it_goes_on(store: Path, alone: Path, tmp_path: Path) -> None:
    with start(store, tmp_path / "run", 2) as running:
        wait_for_state(tmp_path / "run", running)
        for process in running.processes:
            process.send_signal(signal.SIGTERM)
        running.wait(10)
        assert 0 not in running.codes
    train(store, tmp_path / "run", 2)
    expect_same(tmp_path / "run", alone)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ((("--seed", "1"), ("--seed", "2")), "process 1 was asked for another training than the first"),
        ((("--batch-size", "9"),) * 2, "a batch of 9 patches cannot be shared equally by 2 devices"),
    ],
)
def test_what_cannot_be_trained_together_is_refused_by_all(
    more: Sequence[Sequence[str]], reason: str, store: Path, tmp_path: Path
) -> None:
    with start(store, tmp_path / "run", 2, more) as running:
        printed = running.wait(240)
    assert 0 not in running.codes
    assert any(reason in text for text in printed), printed


def test_an_error_of_the_first_is_that_of_all(store: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with start(store, tmp_path / "run", 2) as running:
        printed = running.wait(240)
    assert running.codes == [1, 1]
    assert all("exists and holds no training; choose another folder" in text for text in printed)


@pytest.mark.skipif(bool(find_missing()), reason=find_missing())
def test_a_training_on_two_hosts_ends_when_one_loses_its_network_and_goes_on(
    store: Path, alone: Path, tmp_path: Path
) -> None:
    def train_there(hosts: Sequence[Host]) -> list[subprocess.Popen[Any]]:
        named = ("--coordinator", f"{hosts[0].address}:2345", "--ranks", str(len(hosts)), "--rank")
        environment = [f"{name}={ENVIRONMENT[name]}" for name in ("KERAS_BACKEND", "JAX_PLATFORMS")]
        return [
            host.run("env", *environment, *spell(store, tmp_path / "run", *named, str(rank)), log=tmp_path / host.name)
            for rank, host in enumerate(hosts)
        ]

    with make_hosts(2) as hosts:
        processes = train_there(hosts)
        while not (tmp_path / "run" / "state.npz").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        hosts[1].unplug()
        start = time.monotonic()
        codes = [process.wait(timeout=300) for process in processes]
        print(f"all ended {time.monotonic() - start:.0f} s after a host had lost its network")
        assert 0 not in codes
        hosts[1].plug_in()
        time.sleep(1)
        processes = train_there(hosts)
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    expect_same(tmp_path / "run", alone)
