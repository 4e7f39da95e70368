"""What a program prints never commands the terminal, whoever wrote the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bigearthnet.commandline import echo
from tests.conftest import RunCli

_OTHER_THAN_TEXT = re.compile(r"[^\n\t -~]")


def test_an_answer_that_would_command_the_terminal_is_shown_as_text(store: Path, run_cli: RunCli) -> None:
    ended = run_cli("query", store, "SELECT chr(27) || ']0;renamed' || chr(7) || chr(155) || chr(8238) AS name")
    assert ended.code == 0
    assert r"]0;renamed\a\x9b\u202e" in ended.out
    assert not set(ended.out) & set("\x1b\x07\x9b\u202e")


def test_an_error_that_would_command_the_terminal_is_shown_as_text(
    store: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("preview", store, "--where", "country = '\x1b[2J\r'", "--sheet", tmp_path / "sheet.png")
    assert ended.code == 1
    assert r"\x1b[2J\r" in ended.err
    assert not _OTHER_THAN_TEXT.search(ended.err)


@pytest.mark.parametrize("text", ["Forêt de conifères, 120 m²\n\tμ ± σ", "│ 北京 │", ""])
def test_other_text_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo(text)
    assert capsys.readouterr().out == f"{text}\n"
