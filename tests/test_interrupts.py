"""Ctrl-C, as a real signal to a real process, ends both programs with one line, whatever they are doing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.trainer.trainings import OWN_WARNINGS, RECIPE, train
from trainer import open_store

pytestmark = OWN_WARNINGS

_PROLOGUE = """
import os, signal, sys, threading

def interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        pass  # as extension modules do that are being imported

class Importer:
    def find_spec(self, name, *_):
        if name == LIBRARY:
            sys.meta_path.remove(self)
            WHEN_IMPORTED

sys.meta_path.insert(0, Importer())
"""

_AT_THE_FIRST_BATCH = """
from trainer.source.read import ShardReader

def read(self, *arguments, whole=ShardReader.read):
    ShardReader.read = whole
    os.kill(os.getpid(), signal.SIGINT)
    return whole(self, *arguments)

ShardReader.read = read
"""
"""The signal comes when a thread of the stream reads pixels."""


def _run(program: str, *words: str | Path, library: str = "", when_imported: str = "pass", also: str = "") -> str:
    """Run a program as its installed script does, in which something happens; it must end as interrupted.

    Returns:
        What it wrote to stderr.
    """
    module, function = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"][program].split(":")
    code = _PROLOGUE.replace("LIBRARY", repr(library)).replace("WHEN_IMPORTED", when_imported) + also
    code += f"from {module} import {function}\n{function}()"
    command = [sys.executable, "-c", code, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (130, ""), ended
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith("\nInterrupted.\n")
    return ended.stderr


@pytest.mark.parametrize("program", ["ben-convert", "ben-train"])
def test_a_program_that_is_being_imported_ends(store: Path, tmp_path: Path, program: str) -> None:
    words = ("query", store, "SELECT 1") if program == "ben-convert" else ("select", store)
    assert _run(program, *words, library="duckdb", when_imported="interrupt()") == "\nInterrupted.\n"


def test_a_training_that_loads_keras_ends(store: Path, tmp_path: Path) -> None:
    words = ("fit", store, tmp_path / "run")
    assert _run("ben-train", *words, library="keras", when_imported="interrupt()") == "\nInterrupted.\n"
    assert not (tmp_path / "run").exists()


def test_a_query_ends(store: Path) -> None:
    """One that would take hours."""
    words = ("query", store, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    later = "threading.Timer(2, interrupt).start()"
    _run("ben-convert", *words, library="duckdb", when_imported=later)


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(open_store(store), path, RECIPE)
    return path


@pytest.mark.parametrize("command", ["fit STORE NEW --bands 60m", "evaluate RUN", "predict RUN STORE", "bench STORE"])
def test_a_command_that_reads_pixels_ends(store: Path, run: Path, tmp_path: Path, command: str) -> None:
    paths = {"STORE": store, "RUN": run, "NEW": tmp_path / "new"}
    _run("ben-train", *(paths.get(word, word) for word in command.split()), also=_AT_THE_FIRST_BATCH)
