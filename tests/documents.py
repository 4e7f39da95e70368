"""The code in the documents: find its blocks and run them, as a notebook or DuckDB's shell would."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

DOCS = Path(__file__).parents[1] / "docs"


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

    def run(self) -> Any:
        """Run it in the current folder; returns the rows of SQL, or the value of the last line of Python."""
        if self.language == "sql":
            return duckdb.sql(self.code)
        body = ast.parse(self.code).body
        last = body.pop()
        names: dict[str, Any] = {}
        if not isinstance(last, ast.Expr):
            body.append(last)
        exec(compile(ast.Module(body, []), str(self), "exec"), names)
        return (
            eval(compile(ast.Expression(last.value), str(self), "eval"), names) if isinstance(last, ast.Expr) else None
        )


def find_blocks(document: str, *languages: str) -> list[Block]:
    """Find the blocks of some languages in a document, by its name in `docs`."""
    return [block for block in _parse((DOCS / document).read_text()) if block.language in languages]


def _parse(text: str) -> Iterator[Block]:
    heading, numbers = "", dict[tuple[str, str], int]()
    for title, language, code in re.findall(r"^(?:#+ ([^\n]*)|```(\w+)\n(.*?)^```)$", text, re.MULTILINE | re.DOTALL):
        heading = title or heading
        if language:
            number = numbers[heading, language] = numbers.get((heading, language), -1) + 1
            yield Block(heading, number, language, code)


def find_commands(document: str) -> list[list[str]]:
    """Find the words of each command in the shell blocks of a document."""
    lines = (line for block in find_blocks(document, "bash") for line in block.code.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]
