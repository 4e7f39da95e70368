"""The code in the documents: find its blocks and commands, and run them, as a notebook or DuckDB's shell would.

`python -m tests.documents PAGE COMMAND...` does the commands, then all Python blocks of a page, in the current folder.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
import duckdb

from converter.commands.cli import cli as converter_cli
from trainer.commands.cli import cli as trainer_cli

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(path.name for path in DOCS.glob("*.md"))
PROGRAMS: Final = {"ben-convert": converter_cli, "ben-train": trainer_cli}

CANNOT_RUN: Final = {
    ("clusters.md", "Set up once, bash 0"): "installs from the network",
    ("clusters.md", "Convert, bash 0"): "needs SLURM: `make test-slurm` submits it",
    ("clusters.md", "Convert, bash 1"): "needs SLURM: `make test-slurm` submits it",
    ("clusters.md", "Convert, bash 2"): "needs SLURM",
    ("clusters.md", "Stage, and train on several nodes, bash 0"): "needs SLURM: `make test-slurm` submits it",
    ("clusters.md", "Stage, and train on several nodes, bash 1"): "needs SLURM",
    ("streaming.md", "PyTorch and Lightning, python 1"): "needs a group of processes, which test_torch_data.py makes",
}
"""Blocks of which no more than the syntax can be looked at, and why."""

NEEDED: Final = {
    ("streaming.md", "PyTorch and Lightning, python 0"): "torch",
    ("streaming.md", "Grain, and Keras on any backend, python 0"): "grain",
}
"""Blocks that run only where this module is installed (`make test-backends`)."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    heading: str
    """The nearest heading above it."""
    number: int
    """Among the blocks of the same language below that heading, from 0."""
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.heading}, {self.language} {self.number}"

    def run(self, names: dict[str, Any] | None = None) -> Any:
        """Run it in the current folder; returns the rows of SQL, or the value of the last line of Python.

        Args:
            names: What blocks before it have defined, to which this one adds.
        """
        if self.language == "sql":
            return duckdb.sql(self.code)
        body = ast.parse(self.code).body
        last = body.pop()
        names = {"__name__": "__main__"} if names is None else names
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), str(self), "exec"), names)
        return (
            eval(compile(ast.Expression(last.value), str(self), "eval"), names) if isinstance(last, ast.Expr) else None
        )


def find_blocks(document: str, *languages: str) -> list[Block]:
    """Find the blocks of some languages, or of all, in a document, by its name in `docs`."""
    return [block for block in _parse((DOCS / document).read_text()) if not languages or block.language in languages]


def _parse(text: str) -> Iterator[Block]:
    heading, numbers = "", dict[tuple[str, str], int]()
    for title, language, code in re.findall(r"^(?:#+ ([^\n]*)|```(\w*)\n(.*?)^```)$", text, re.MULTILINE | re.DOTALL):
        heading = title or heading
        if not title:
            number = numbers[heading, language] = numbers.get((heading, language), -1) + 1
            yield Block(heading, number, language, code)


def find_commands(document: str) -> list[list[str]]:
    """Find the words of each command in the shell blocks of a document."""
    lines = (line for block in find_blocks(document, "bash") for line in block.code.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def find_mentions(text: str) -> list[list[str]]:
    """Find the words of our own commands that stand in the prose of a document."""
    mentions = re.findall(r"`((?:ben-convert|ben-train|make|python -m benchmarks\.\w+) [^`]+)`", text)
    return [words for mention in mentions for words in split_shell(" ".join(mention.split()))]


def split_shell(code: str) -> Iterator[list[str]]:
    """Split shell code into the words of each command, without what only starts it (`srun`, `VARIABLE=value`)."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()<>"):
                if words:
                    yield words
                words = []
            elif words or not (word == "srun" or re.match(r"\w+=", word)):
                words.append(word)


def check_command(words: list[str]) -> None:
    """Check that one of our own programs has such a command and options, and make such a target; others may be."""
    program, *arguments = words
    if program == "make":
        done = subprocess.run(
            [shutil.which("make") or "make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    elif program == "python" and arguments[1].startswith("benchmarks."):
        source = (ROOT / arguments[1].replace(".", "/")).with_suffix(".py").read_text()
        assert [word for word in arguments if word.startswith("--") and f'"{word}"' not in source] == []
    elif program in PROGRAMS:
        context = click.Context(PROGRAMS[program])
        command = PROGRAMS[program].get_command(context, arguments[0])
        assert command is not None
        if arguments[1:] and "--help" not in arguments:
            command.make_context(arguments[0], arguments[1:], parent=context)


def run_page(document: str) -> None:
    """Run the Python blocks of a document one after another, in one namespace."""
    names = {"__name__": "__main__"}
    for block in find_blocks(document, "python"):
        place = (document, str(block))
        if place not in CANNOT_RUN and (place not in NEEDED or find_spec(NEEDED[place])):
            block.run(names)


if __name__ == "__main__":
    for command in sys.argv[2:]:
        program, *arguments = shlex.split(command)
        PROGRAMS[program].main(arguments, standalone_mode=False)
    run_page(sys.argv[1])
