"""Ctrl-C, as a real signal to a real process, ends a command with one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.trainings import OWN_WARNINGS, train
from trainer import open_store

pytestmark = OWN_WARNINGS

_INTERRUPT = """
import os, signal
from trainer.__main__ import main
from trainer.source.read import ShardReader

def read(self, *arguments, whole=ShardReader.read, left=[2]):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return whole(self, *arguments)

ShardReader.read = read
main()
"""
"""The trainer, which gets the signal when one of its threads reads the pixels of the second batch."""


@pytest.fixture(scope="module")
def run(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(open_store(stores["lz4"]), path)
    return path


@pytest.mark.parametrize(
    "command", ["fit STORE NEW --bands 60m --batch-size 4", "evaluate RUN", "predict RUN STORE", "bench STORE"]
)
def test_ctrl_c_ends_a_command_with_one_line(stores: dict[str, Path], run: Path, tmp_path: Path, command: str) -> None:
    paths = {"STORE": stores["lz4"], "RUN": run, "NEW": tmp_path / "new"}
    words = [str(paths.get(word, word)) for word in command.split()]
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPT, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith("\nInterrupted.\n")
