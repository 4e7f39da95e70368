"""The command line: one clear message for whatever can go wrong, and the right exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from bigearthnet import __version__
from converter.commands.cli import cli
from tests.archives import Archive, read_files, write_lists
from tests.conftest import RunCli, SmallArchive
from tests.terminal import show_on_terminal

COMMAND = [sys.executable, "-m", "converter"]

Damage = Callable[[Archive, str], object]


@pytest.fixture
def raw(small: SmallArchive, tmp_path: Path) -> Archive:
    """A copy of the small archive that may be damaged."""
    return small.archive.copy(tmp_path / "raw")


@pytest.fixture
def given(small: SmallArchive, scheduler: str) -> list[str]:
    """Options that make a conversion of the small archive quick."""
    return ["--lists", str(small.lists), "--scheduler", scheduler, "--shard-size", "4"]


# -- Bad input -------------------------------------------------------------------------------------------------------


def truncate(archive: Archive, name: str) -> None:
    path = archive.tif(name, "B08")
    path.write_bytes(path.read_bytes()[:12_345])


def break_corner(archive: Archive, name: str) -> None:
    corners = archive.read_note(name)["coordinates"]
    archive.edit_note(name, coordinates={key: value + 60 for key, value in corners.items()})


BAD_PATCHES: dict[str, tuple[Damage, str, str, str]] = {
    "a truncated tif": (truncate, "B08.tif", "a GeoTIFF of 120 x 120 uint16 pixels of 10 m", "found 12,345 bytes"),
    "a missing band": (lambda archive, name: archive.tif(name, "B11").unlink(), "B11.tif", "", "the file is missing"),
    "a tif of the wrong size": (
        lambda archive, name: archive.rewrite_tif(name, "B05", np.zeros((120, 120), "uint16")),
        *("B05.tif", "a GeoTIFF of 60 x 60 uint16 pixels of 20 m", "found 1 band(s) of 120 x 120 uint16"),
    ),
    "a tif of the wrong dtype": (
        lambda archive, name: archive.rewrite_tif(name, "B01", np.zeros((20, 20), "float32")),
        *("B01.tif", "a GeoTIFF of 20 x 20 uint16 pixels of 60 m", "found 1 band(s) of 20 x 20 float32"),
    ),
    "broken JSON": (
        lambda archive, name: archive.note(name).write_text('{"labels": ["Pastures"'),
        *("labels_metadata.json", "expected JSON", "found 22 bytes that are not"),
    ),
    "missing JSON": (
        lambda archive, name: archive.note(name).unlink(),
        *("labels_metadata.json", "", "the file is missing"),
    ),
    "an unknown label": (
        lambda archive, name: archive.edit_note(name, labels=["Pastures", "Lava fields"]),
        *("labels_metadata.json", "expected labels of the 43-class nomenclature", "found ['Lava fields']"),
    ),
    "a corner that disagrees": (break_corner, "B02.tif", "expected the upper-left corner (", "found ("),
}


@pytest.mark.parametrize("kind", BAD_PATCHES)
def test_a_bad_patch_is_one_clear_error(
    kind: str, raw: Archive, small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    damage, file, expected, found = BAD_PATCHES[kind]
    name = small.names[4]
    damage(raw, name)
    error = run_cli("convert", raw.root, tmp_path / "store", *given, "--max-bad", "1").error
    assert error.startswith("1 bad patch")
    assert f" {name}/{name}_{file}: " in error
    assert expected in error
    assert found in error
    assert "run the same command" in error
    assert "the option on-bad skip" in error
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_bad_patch_ends_a_process_of_its_own_with_exit_code_1(
    raw: Archive, small: SmallArchive, tmp_path: Path
) -> None:
    truncate(raw, small.names[0])
    options = ["--lists", str(small.lists), "--workers", "1"]
    ended = subprocess.run(
        [*COMMAND, "convert", str(raw.root), f"{tmp_path}/store", *options], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("Error: ") == 1
    assert f"{small.names[0]}_B08.tif: expected" in ended.stderr


def test_a_folder_without_patches_is_refused(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/BigEarthNet-v1.0.tar.gz").touch()
    error = run_cli("convert", tmp_path / "raw", tmp_path / "store").error
    assert error.startswith(f"{tmp_path}/raw: expected patch folders such as S2A_MSIL2A_20170613T101031_87_48")
    assert "found 1 other entr" in error
    assert not (tmp_path / "store").exists()


def test_a_missing_folder_and_an_empty_file_are_refused(tmp_path: Path, run_cli: RunCli) -> None:
    error = run_cli("convert", tmp_path / "nowhere", tmp_path / "store").error
    assert (
        error
        == f"{tmp_path}/nowhere: expected the archive, extracted or as downloaded (.tar.zst, .tar.gz), found neither"
    )
    (tmp_path / "archive.tar.gz").touch()
    error = run_cli("convert", tmp_path / "archive.tar.gz", tmp_path / "store").error
    assert error.startswith(f"{tmp_path}/archive.tar.gz: expected a tar archive, found nothing")


def test_a_missing_list_is_refused(small: SmallArchive, tmp_path: Path, run_cli: RunCli) -> None:
    error = run_cli("convert", small.archive.root, tmp_path / "store", "--lists", tmp_path / "no").error
    assert f"{tmp_path}/no: expected the official list train.csv" in error


# -- Bad targets -----------------------------------------------------------------------------------------------------


def test_a_finished_store_is_refused_and_not_touched(
    small: SmallArchive, store: Path, given: list[str], run_cli: RunCli
) -> None:
    before = read_files(store)
    error = run_cli("convert", small.archive.root, store, *given).error
    assert error.startswith(f"{store}: a finished store is already there; ")
    assert "the option overwrite" in error
    assert read_files(store) == before


@pytest.mark.parametrize("option", [[], ["--overwrite"]], ids=str)
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_with_other_things_in_it_is_never_touched(
    inside: bool,
    option: list[str],
    raw: Archive,
    given: list[str],
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    target = raw.root if inside else tmp_path / "home"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "letter.txt").write_text("dear")
    before = read_files(target)
    error = run_cli("convert", raw.root, target, *given, *option).error
    assert error.startswith(
        f"{target}: expected a folder outside of the archive "
        if inside
        else f"{target}: expected an empty folder or a store, found "
    )
    assert read_files(target) == before


def test_a_store_that_cannot_be_written_is_refused(
    small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    (tmp_path / "file").touch()
    for store in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store"), tmp_path / ("x" * 300)):
        error = run_cli("convert", small.archive.root, store, *given).error
        assert error.startswith(f"{store}: ")


def test_a_store_that_another_conversion_is_writing_is_refused(
    small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    import fcntl

    (tmp_path / "store" / ".progress").mkdir(parents=True)
    with (tmp_path / "store" / ".progress" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = run_cli("convert", small.archive.root, tmp_path / "store", *given).error
    assert error == f"{tmp_path}/store: another process is writing there; wait for it to end, or give another folder"


def test_an_unfinished_store_of_other_options_is_refused(
    raw: Archive, small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    truncate(raw, small.names[0])
    assert run_cli("convert", raw.root, tmp_path / "store", *given, "--max-bad", "1").code == 1
    error = run_cli("convert", raw.root, tmp_path / "store", *given, "--codec", "zstd").error
    assert "an unfinished store of another plan is there (codec was lz4, is zstd" in error


# -- Wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert"],
        ["convert", "raw"],
        ["convert", "raw", "store", "third"],
        ["convert", "raw", "store", "--codec", "gzip"],
        ["convert", "raw", "store", "--on-bad", "ignore"],
        ["convert", "raw", "store", "--reader", "gdal"],
        ["convert", "raw", "store", "--shard-size", "many"],
        ["convert", "raw", "store", "--workers", "1.5"],
        ["convert", "raw", "store", "--max-bad", "few"],
        ["convert", "raw", "store", "--no-such-option"],
        ["info"],
        ["sample"],
        ["no-such-command"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_exit_code_2_and_says_how_it_is_right(arguments: list[str], run_cli: RunCli) -> None:
    ended = run_cli(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: " in ended.err
    assert "Error: " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard-size", "0"], "shard size must be between 1 and 65,536 patches, not 0"),
        (["--shard-size", "-3"], "shard size must be between 1 and 65,536 patches, not -3"),
        (["--workers", "0"], "expected at least one worker, not 0"),
        (["--workers", "2", "--scheduler", "tcp://head:8786"], "give one of them"),
        (["--max-bad", "2"], "max_bad is a fraction between 0 and 1, not 2.0"),
        (["--max-bad", "nan"], "max_bad is a fraction between 0 and 1, not nan"),
        (["--bands", "B10"], "no band 'B10'; choose from B02"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_before_anything_is_done(
    options: list[str], message: str, small: SmallArchive, tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *options)
    assert ended.code in {1, 2}
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert "Scanning" not in ended.err
    assert not (tmp_path / "store").exists()


# -- What works ------------------------------------------------------------------------------------------------------


def test_results_go_to_stdout_and_progress_to_stderr(
    small: SmallArchive, store: Path, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *given)
    assert ended.code == 0
    assert ended.out.startswith(f"Finished  {tmp_path}/store\nPatches   22 found = 22 converted + 0 rejected")
    assert "Found     22 of the 590,326 patches" in ended.err
    assert "dashboard: http://" in ended.err
    assert "22 of 22 patches" in ended.err
    assert read_files(tmp_path / "store") == read_files(store)


def test_json_is_all_that_goes_to_stdout(
    small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *given, "--json", "--codec", "none")
    assert ended.code == 0
    summary = json.loads(ended.out)
    assert (summary["n_patches"], summary["store"]) == (22, str(tmp_path / "store"))
    assert summary["stored_bytes"] > summary["pixel_bytes"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    small: SmallArchive, store: Path, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *given, "--dry-run")
    assert ended.code == 0
    assert "9 train, 5 validation, 4 test, 4 others" in ended.out
    told = json.loads(run_cli("convert", small.archive.root, tmp_path / "store", *given, "--dry-run", "--json").out)
    assert (told["n_patches"], told["n_shards"]) == (22, 6)
    assert list(tmp_path.iterdir()) == []
    before = read_files(store)
    assert run_cli("convert", small.archive.root, store, *given, "--dry-run", "--overwrite").code == 0
    assert read_files(store) == before


def test_bad_patches_can_be_skipped(
    raw: Archive, small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    truncate(raw, small.names[0])
    ended = run_cli("convert", raw.root, tmp_path / "store", *given, "--on-bad", "skip", "--max-bad", "0.1")
    assert ended.code == 0
    assert "22 found = 21 converted + 1 rejected" in ended.out
    assert "rejected.parquet" in {path.name for path in (tmp_path / "store").iterdir()}
    info = run_cli("info", tmp_path / "store")
    assert "22 found = 21 converted + 1 rejected, of 590,326 published" in info.out


def test_overwriting_replaces_a_store(
    small: SmallArchive, store: Path, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    assert run_cli("convert", small.archive.root, tmp_path / "store", *given, "--codec", "none").code == 0
    assert run_cli("convert", small.archive.root, tmp_path / "store", *given, "--overwrite").code == 0
    assert read_files(tmp_path / "store") == read_files(store)


def test_info_describes_a_store(store: Path, run_cli: RunCli) -> None:
    ended = run_cli("info", store)
    assert (ended.code, ended.err) == (0, "")
    assert f"Store     {store}" in ended.out
    found = json.loads(run_cli("info", store, "--json").out)
    assert found["attributes"]["format"] == "bigearthnet-store"


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "damaged"])
def test_info_on_what_is_no_store_is_one_clear_error(kind: str, store: Path, tmp_path: Path, run_cli: RunCli) -> None:
    path = tmp_path / "store"
    if kind == "file":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    elif kind == "damaged":
        shutil.copytree(store, path)
        (path / "images.zarr" / "zarr.json").write_text("{")
    assert str(path) in run_cli("info", path).error


def test_a_sample_is_written_and_says_what_is_synthetic(tmp_path: Path, run_cli: RunCli) -> None:
    ended = run_cli("sample", tmp_path / "sample", "--patches", "7", "--workers", "1")
    assert ended.code == 0
    assert re.match(rf"Wrote 7 patches \(6 real, 1 synthetic\), [\d.]+ MB, to {tmp_path}/sample\n$", ended.out)


def test_the_version_is_that_of_the_package(run_cli: RunCli) -> None:
    ended = run_cli("--version")
    assert (ended.code, ended.out) == (0, f"ben-convert, version {__version__}\n")


def test_every_command_and_option_has_a_help_text() -> None:
    context = click.Context(cli)
    assert set(cli.list_commands(context)) >= {"convert", "sample", "info"}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"
        shown = CliRunner().invoke(cli, [name, "--help"])
        assert shown.exit_code == 0
        assert "Usage: " in shown.output
        assert "\\b" not in shown.output, "click's mark must be a control character, so no raw docstring"


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "ben-convert"
    if not script.exists():
        pytest.skip("the package is not installed, only importable")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith(f"{__version__}\n")


# -- Interruption ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def wait_until_gone(group: int) -> None:
    """Wait for the last process of a group; some end a moment after the one that started them."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process is left")


def test_ctrl_c_stops_all_processes_and_the_same_command_goes_on(
    small: SmallArchive, store: Path, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    command = [
        *COMMAND,
        "convert",
        str(small.archive.root),
        f"{tmp_path}/store",
        "--lists",
        str(small.lists),
        "--workers",
    ]
    begun = subprocess.Popen(
        [*command, "1", "--shard-size", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    receipts = tmp_path / "store" / ".progress" / "receipts"
    while begun.poll() is None and not list(receipts.glob("*.json")):
        time.sleep(0.002)
    os.killpg(begun.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    out, err = begun.communicate(timeout=60)
    if begun.returncode == 0:
        pytest.skip("it was finished before it could be interrupted")
    assert (begun.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "Interrupted. What is finished is kept: run the same command again to go on." in err
    wait_until_gone(begun.pid)
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *given, "--json")
    assert json.loads(ended.out)["n_converted_now"] < 22
    assert read_files(tmp_path / "store") == read_files(store)


def test_a_reader_that_goes_away_is_no_traceback(store: Path) -> None:
    begun = subprocess.Popen([*COMMAND, "info", store, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert begun.stdout is not None
    assert begun.stderr is not None
    begun.stdout.close()  # as `| head` does
    err = begun.stderr.read().decode()
    begun.stderr.close()
    begun.wait(timeout=60)
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_store_whose_name_is_no_text_works(
    small: SmallArchive, given: list[str], tmp_path: Path, run_cli: RunCli
) -> None:
    """A Latin-1 name on a UTF-8 machine: legal, if ugly."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    ended = run_cli("convert", small.archive.root, name, *given)
    assert ended.code == 0
    assert "22 converted" in ended.out
    assert run_cli("info", name).code == 0


def test_a_conversion_draws_a_bar_on_a_terminal(
    small: SmallArchive, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ben-convert", "convert", str(small.archive.root), f"{tmp_path}/store", *given])

    def run() -> None:
        with pytest.raises(SystemExit) as ended:
            _main()
        assert not ended.value.code

    text = show_on_terminal(run, monkeypatch)
    assert re.search(r"Converting: 100%\|.*\| 22/22 \[.*0 rejected\]", text)


def _main() -> Any:
    from converter.__main__ import main

    main()


def test_an_archive_of_unlisted_patches_says_so(
    small: SmallArchive, scheduler: str, tmp_path: Path, run_cli: RunCli
) -> None:
    lists = write_lists(tmp_path / "lists")
    ended = run_cli(
        "convert", small.archive.root, tmp_path / "store", "--lists", lists, "--scheduler", scheduler, "--dry-run"
    )
    assert "22 patches in no official list" in ended.out
