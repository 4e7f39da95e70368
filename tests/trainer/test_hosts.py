"""Which of several processes this one is, and what is refused before they meet; `make test-hosts` lets them train."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import OptionError
from trainer.model.hosts import Hosts, Place, find_place, join


@pytest.mark.parametrize(
    ("environment", "named", "expected"),
    [
        ({}, {}, Place()),
        ({"SLURM_NTASKS": "8"}, {}, Place()),  # a batch script itself, not what srun starts
        ({"SLURM_STEP_NUM_TASKS": "8"}, {}, Place(8)),
        ({"SLURM_STEP_NUM_TASKS": "8"}, {"ranks": 1}, Place()),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, {}, Place(3)),
        ({}, {"coordinator": "head:1234", "rank": 1, "ranks": 2}, Place(2, "head:1234", 1)),
    ],
)
def test_a_place_is_found(
    environment: dict[str, str], named: dict[str, Any], expected: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_place(**named) == expected


@pytest.mark.parametrize(
    "named",
    [
        {"rank": 0},
        {"ranks": 2},
        {"coordinator": "head:1", "rank": 2, "ranks": 2},
        {"coordinator": "head:1", "rank": -1, "ranks": 2},
        {"coordinator": "head:1", "ranks": 2},
    ],
)
def test_half_a_place_is_refused(named: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"expected coordinator .*, rank and ranks together"):
        find_place(**named)


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_several_processes_need_jax(backend: str) -> None:
    with pytest.raises(OptionError, match=f"2 processes train together only with Keras on JAX, not on {backend}"):
        join(Place(2), backend)


def test_the_command_refuses_them_too(stores: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "fit", str(stores["lz4"]), str(tmp_path / "run"), "--no-tensorboard"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "SLURM_STEP_NUM_TASKS": "2"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "2 processes train together only with Keras on JAX" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_compare_is_refused_in_several_processes(stores: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "compare", str(stores["lz4"]), str(tmp_path / "out")]
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "2"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "compare trains in one process, found 2" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_items", [0, 1, 5, 8, 39])
@pytest.mark.parametrize("n_hosts", [1, 2, 3, 8])
def test_shares_follow_one_another_and_are_all(n_items: int, n_hosts: int) -> None:
    shares = [np.arange(n_items)[Hosts(rank, n_hosts).take_part(n_items)] for rank in range(n_hosts)]
    assert np.concatenate(shares).tolist() == list(range(n_items))
    assert max(map(len, shares)) <= -(-n_items // n_hosts)
