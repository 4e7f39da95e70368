"""What the documents show: every block and command of them runs, or is named with what it would need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from converter.commands.cli import cli
from tests.documents import (
    CANNOT_RUN,
    DOCS,
    NEEDED,
    PAGES,
    ROOT,
    Block,
    check_command,
    find_blocks,
    find_mentions,
    split_shell,
)
from tests.samples import run_commands_in

ELSEWHERE: Final = {
    "interoperability.md": "bigearthnet/test_interoperability.py",
    "queries.md": "bigearthnet/test_queries.py",
    "tutorial.md": "test_tutorial.py",
}
"""Pages whose blocks run in tests of their own, which look at what each gives, or run them as a notebook."""

BEFORE: Final = {
    "training.md": (
        "ben-train fit STORE RUN --epochs 1 --no-tensorboard",
        "ben-train export RUN classifier.onnx",
    )
}
"""Commands of a page that its Python goes on from."""

BLOCKS: Final = [(page, block) for page in (*PAGES, "../CONTRIBUTING.md") for block in find_blocks(page)]
RUN_TOGETHER: Final = sorted({page for page, block in BLOCKS if block.language == "python"} - ELSEWHERE.keys())
SHELL: Final = [(page, block) for page, block in BLOCKS if block.language == "bash"]
COMMANDS: Final = [
    *(words for page, block in SHELL if (page, str(block)) not in CANNOT_RUN for words in split_shell(block.code)),
    *(
        words
        for name in ("../README.md", "../CONTRIBUTING.md", *PAGES)
        for words in find_mentions((DOCS / name).read_text())
    ),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small sample, and its store under the names that the documents have for one."""
    folder = tmp_path_factory.mktemp("desk")
    with run_commands_in(folder):
        for command in ("sample data/sample --patches 60 --workers 1", "convert data/sample data/sample-store"):
            cli.main(command.split(), standalone_mode=False)
    (folder / "STORE").symlink_to("data/sample-store")
    return folder


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page == "training.md" else []) for page in RUN_TOGETHER]
)
def test_the_python_of_a_page_runs_from_its_top_to_its_end(page: str, desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.documents", page, *BEFORE.get(page, ())],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if page == "training.md":
        _check_trainings(desk, done.stderr)


def _check_trainings(desk: Path, shown: str) -> None:
    assert "Epoch 2/2  loss" in shown
    result, logged = (json.loads((desk / run / "result.json").read_text()) for run in ("run", "run-logged"))
    assert result["validation"]["val_macro_ap"] == logged["validation"]["val_macro_ap"]
    assert (desk / "run/evaluation/test.json").is_file()
    assert pq.read_metadata(desk / "predictions.parquet").num_rows > 0
    assert (desk / "comparison/comparison.json").is_file()


def test_pages_that_run_elsewhere_are_in_those_tests() -> None:
    for page, module in ELSEWHERE.items():
        assert f'"{page}"' in (ROOT / "tests" / module).read_text()


def test_every_block_says_its_language() -> None:
    assert {block.language for _, block in BLOCKS} == {"bash", "js", "mermaid", "python", "sql", "text"}
    assert {page for page, block in BLOCKS if block.language in {"js", "sql"}} <= ELSEWHERE.keys()


def test_what_is_left_out_is_there() -> None:
    assert {*CANNOT_RUN, *NEEDED} <= {(page, str(block)) for page, block in BLOCKS}


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=str)
def test_what_cannot_run_can_be_parsed(page: str, block: Block) -> None:
    if block.language == "python":
        compile(block.code, page, "exec")
    elif block.language == "bash":
        subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_has_such_options_and_targets(command: list[str]) -> None:
    check_command(command)
