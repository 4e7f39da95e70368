"""The command line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bigearthnet.errors import OptionError
from tests.documents import check_command
from trainer.commands.cli import COMMANDS, cli
from trainer.source.store import open_store
from trainer.stream.options import StreamOptions
from trainer.stream.speed import measure_stream


def _run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=True)


def test_bench_says_how_fast_the_stream_is(stores: dict[str, Path]) -> None:
    found = _run("bench", stores["lz4"], "--bands", "rgb", "--batch-size", "16", "--seconds", "0.2", "--json")
    assert found.exit_code == 0, found.output
    speed = json.loads(found.stdout)
    assert speed["patches_per_s"] > 0
    assert speed["patch_bytes"] == 3 * 120 * 120 * 2
    assert speed["mb_per_s"] == pytest.approx(speed["patches_per_s"] * speed["patch_bytes"] / 1e6)
    assert speed["decode_us"] > 0
    assert speed["options"]["bands"] == "rgb"


def test_bench_reads_well(stores: dict[str, Path]) -> None:
    found = _run(
        "bench", stores["none"], "--split", "train", "--turns", "each-quarter", "--threads", "1", "--seconds", "0.1"
    )
    assert found.exit_code == 0, found.output
    for part in ("patches/s", "MB/s", "1 threads", "first batch", "order an epoch", "decode", "checksums", "caller"):
        assert part in found.stdout


def test_select_counts_patches_and_classes(stores: dict[str, Path]) -> None:
    store = open_store(stores["lz4"])
    found = _run("select", stores["lz4"], "--split", "train", "--json")
    assert json.loads(found.stdout)["patches"] == len(store.select("train"))
    assert sum(json.loads(found.stdout)["classes"].values()) == store.select("train").labels.sum()
    found = _run("select", stores["lz4"], "--all", "--labels", "43")
    assert f"{store.n_patches:,} of {store.n_patches:,} patches" in found.stdout


def test_a_failure_is_one_line_and_exit_code_1(stores: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "trainer", "select", str(stores["lz4"]), "--split", "nowhere"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr == "Error: no split 'nowhere'; the store has test, train, validation\n"


def test_wrong_usage_is_exit_code_2() -> None:
    assert _run("bench").exit_code == 2
    assert _run("bench", "x", "--order", "random").exit_code == 2


def _load_commands() -> list[click.Command]:
    commands = [cli.get_command(click.Context(cli), name) for name in COMMANDS]
    return [command for command in commands if command is not None]


def test_every_command_and_option_is_explained() -> None:
    assert len(_load_commands()) == len(COMMANDS) > 5
    for command in _load_commands():
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name


def _list_examples() -> list[str]:
    lines = [line.strip() for command in _load_commands() for line in (command.help or "").splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("ben-train ")]


@pytest.mark.parametrize("line", _list_examples())
def test_an_example_in_a_help_text_has_such_options(line: str) -> None:
    check_command(shlex.split(line))


def test_no_time_cannot_be_measured(stores: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="seconds must be positive"):
        measure_stream(open_store(stores["lz4"]).select(), StreamOptions(), 0)
