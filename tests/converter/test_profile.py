"""`--profile`: pieces that add up, of a run that is otherwise the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from converter.profile import OTHER, PIECES, put_clocks, run_clock
from tests.archives import read_files
from tests.conftest import RunCli, SmallArchive
from tests.tarballs import list_files, write_tarball


@pytest.fixture
def given(small: SmallArchive, scheduler: str) -> list[str]:
    """Options that make a conversion of the small archive quick."""
    return ["--lists", str(small.lists), "--scheduler", scheduler, "--shard-size", "4"]


def check_sums(profile: dict[str, Any]) -> None:
    """Pieces add up to the workers' time, workers to all of it, and shares to one."""
    assert profile["seconds"] == pytest.approx(sum(profile["stages"].values()))
    assert sum(piece["share"] for piece in profile["pieces"].values()) == pytest.approx(1)
    for worker in profile["workers"].values():
        assert sum(worker["pieces"].values()) == pytest.approx(profile["stages"]["convert"])
        assert min(worker["pieces"].values()) >= 0
        assert worker["cpu_seconds"] > 0
    for piece, total in profile["pieces"].items():
        assert total["seconds"] == pytest.approx(
            sum(worker["pieces"].get(piece, 0) for worker in profile["workers"].values())
        )


def test_a_profile_adds_up_and_the_store_is_the_same(
    small: SmallArchive, store: Path, given: list[str], run_cli: RunCli, tmp_path: Path
) -> None:
    path = tmp_path / "new/profile.json"
    start = time.perf_counter()
    ended = run_cli("convert", small.archive.root, tmp_path / "store", *given, "--profile", path)
    seconds = time.perf_counter() - start
    assert ended.code == 0, ended.err
    profile = json.loads(path.read_text())
    check_sums(profile)
    assert profile["seconds"] < seconds
    assert profile["n_patches"] == 22
    # The file has all pieces that a plain archive in a folder has, and no other.
    assert set(profile["pieces"]) == {
        *("reading", "annotation", "headers", "pixels", "statistics", "encoding", "checksums", "writing", "flushing"),
        *("other", "waiting"),
    }
    for piece, total in profile["pieces"].items():
        assert f"{piece:10}" in ended.out
        assert f"{total['share']:.1%}" in ended.out
    assert f"{profile['stages']['convert']:.1f} s convert" in ended.out
    assert read_files(tmp_path / "store") == read_files(store)


@pytest.mark.parametrize("kind", ["rasterio", "tar"])
def test_other_ways_through_the_code_have_their_pieces(
    kind: str, small: SmallArchive, given: list[str], run_cli: RunCli, tmp_path: Path
) -> None:
    path, raw = tmp_path / "profile.json", small.archive.root
    if kind == "tar":
        raw = write_tarball(tmp_path / "raw.tar", list_files(raw))
        given = [word for word in given if word != "--scheduler" and not word.startswith("tcp://")] + ["--workers", "1"]
    else:
        given += ["--reader", "rasterio"]
    ended = run_cli("convert", raw, tmp_path / "store", *given, "--profile", path, "--json")
    assert json.loads(ended.out)["n_patches"] == 22
    profile = json.loads(path.read_text())
    check_sums(profile)
    if kind == "tar":  # statistics of training patches are taken of what was encoded
        assert {"decoding", "reading", "writing"} <= profile["pieces"].keys()
    else:
        assert profile["pieces"]["rasterio"]["seconds"] > profile["pieces"]["pixels"]["seconds"]


def test_a_run_that_goes_on_is_profiled_for_what_it_does_itself(
    small: SmallArchive, given: list[str], run_cli: RunCli, tmp_path: Path
) -> None:
    raw = small.archive.copy(tmp_path / "raw")
    (bad := raw.tif(small.names[0], "B08")).rename(tmp_path / "aside.tif")
    words = ("convert", raw.root, tmp_path / "store", *given, "--max-bad", "1", "--profile", tmp_path / "profile.json")
    assert "the file is missing" in run_cli(*words).error
    assert not (tmp_path / "profile.json").exists()
    (tmp_path / "aside.tif").rename(bad)
    assert run_cli(*words).code == 0
    profile = json.loads((tmp_path / "profile.json").read_text())
    check_sums(profile)
    assert (profile["n_patches"], len(profile["workers"])) == (4, 1)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_converted(
    small: SmallArchive, given: list[str], run_cli: RunCli, tmp_path: Path
) -> None:
    raw, store, path = small.archive.root, tmp_path / "store", tmp_path / "profile.json"
    path.write_text("mine")
    assert f"{path}: it is already there" in run_cli("convert", raw, store, *given, "--profile", path).error
    for folder in (raw, store):
        error = run_cli("convert", raw, store, *given, "--profile", folder / "profile.json").error
        assert f"expected a file outside of {folder} for the profile" in error
    ended = run_cli("convert", raw, store, *given, "--profile", tmp_path / "new.json", "--dry-run")
    assert ended.code == 2
    assert "--dry-run converts nothing that --profile could measure" in ended.err
    assert (path.read_text(), store.exists()) == ("mine", False)


def test_every_place_of_a_piece_is_a_function() -> None:
    for places in PIECES.values():
        for place in places:
            module, _, name = place.partition(":")
            assert callable(attrgetter(name)(import_module(module))), place


spent: list[float] = []


def take(seconds: float) -> None:
    spent.append(seconds)


def outer() -> int:
    take(2)
    return sum(items())


def items() -> Iterator[int]:
    for number in range(3):
        take(10)
        yield number


def test_each_second_counts_once_and_only_in_the_thread_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("outer", "items"):  # so that what is put around them is taken away again
        monkeypatch.setattr(f"{__name__}.{name}", globals()[name])
    monkeypatch.setattr("converter.profile.time.perf_counter", lambda: sum(spent))
    put_clocks({"out": [f"{__name__}:outer"], "in": [f"{__name__}:items"]})
    with run_clock() as clock:
        take(100)
        assert outer() == 3
        thread = threading.Thread(target=outer)  # counts for what this thread does meanwhile: nothing that is named
        thread.start()
        thread.join()
        assert clock.stop() == {"in": 30, "out": 2, OTHER: 100 + 32}
    assert outer() == 3
    assert clock.stop() == {"in": 30, "out": 2, OTHER: 100 + 32 + 32}
