"""What a program prints never commands the terminal, whoever wrote the data, and help comes at once."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigearthnet.commandline import echo, show_progress
from converter.commands.cli import COMMANDS
from converter.report import ReportOptions
from tests.conftest import RunCli

SLOW = {"distributed", "zarr", "pyarrow", "rasterio", "shapely", "pandas"}
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


@pytest.mark.parametrize(
    ("n_total", "expected"),
    [
        (1_000, ["Staging: 100 of 1,000 patches, 10 patches/s, 1 min 30 s left", "Staging: 200 of 1,000 patches, "]),
        (0, ["Staging: 100 patches, 10 patches/s", "Staging: 200 patches, 10 patches/s"]),
    ],
)
def test_without_a_terminal_progress_is_a_line_every_ten_seconds(
    n_total: int, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with show_progress("Staging") as show:
        for n_done in range(5, 250, 5):
            now += 0.5
            show(n_done, n_total)
    lines = capsys.readouterr().err.splitlines()
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_does_not_wait_for_libraries_that_take_long(words: list[str]) -> None:
    code = f"""
import atexit, sys
atexit.register(lambda: print(sorted({SLOW} & sys.modules.keys()), file=sys.stderr))
sys.argv[1:] = {words}
from bigearthnet.commandline import ben_convert
ben_convert()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout
    assert ended.stderr == "[]\n"


def test_help_names_the_default_of_a_report(run_cli: RunCli) -> None:
    assert f"default: {ReportOptions.sample};" in " ".join(run_cli("report", "--help").out.split())


@pytest.mark.parametrize(
    ("word", "message"),
    [("convrt", "No such command 'convrt'. Did you mean 'convert'?\n"), ("xyz", "No such command 'xyz'.\n")],
)
def test_a_command_that_is_misspelt_is_guessed(run_cli: RunCli, word: str, message: str) -> None:
    ended = run_cli(word)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith(f"Error: {message}")
