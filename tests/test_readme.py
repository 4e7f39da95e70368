"""What the README says, runs: every Python block for real, every command up to its options and targets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from converter.commands.descriptions import suggest_commands
from converter.conversion import ConvertOptions, convert
from converter.sample import write_sample
from tests.documents import ROOT, check_command

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON_BLOCKS = [code for language, code in BLOCKS if language == "python"]
TABLE_CELLS = re.findall(r"`(ben-(?:convert|train) [^`]*)`", README)
COMMANDS = [
    shlex.split(line, comments=True)
    for line in [*(line for language, code in BLOCKS if language == "bash" for line in code.splitlines()), *TABLE_CELLS]
    if shlex.split(line, comments=True)
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `make convert` has run, on a smaller sample."""
    folder = tmp_path_factory.mktemp("readme")
    write_sample(folder / "data/sample", 60, workers=1)
    summary = convert(folder / "data/sample", folder / "data/sample-store", ConvertOptions(workers=1))
    (folder / "suggested").write_text("\n".join(suggest_commands(summary)))
    return folder


def test_the_readme_has_code_and_commands() -> None:
    assert len(PYTHON_BLOCKS) >= 3
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("code", PYTHON_BLOCKS, ids=range(len(PYTHON_BLOCKS)))
def test_python_of_the_readme_runs(code: str, here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_readme_have_such_options_and_targets(command: list[str]) -> None:
    if command[0] in ("pip", "git", "cd"):
        pytest.skip("not ours")
    check_command(command)


def test_the_suggested_commands_run(here: Path) -> None:
    for line in (here / "suggested").read_text().splitlines():
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
