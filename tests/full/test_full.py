"""Every command of both programs once, on an archive and a store of all 590,326 patches."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image

from tests.full.archive import build_archive, find_shortage
from tests.full.programs import Log

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]

N_PATCHES: Final = 590_326
SPLITS: Final = {"train": 269_695, "validation": 123_723, "test": 125_866}
"""As published; a fact of the official lists."""
PATCH: Final = "S2A_MSIL2A_20170617T113321_36_85"
MAX_BYTES: Final = 4_000_000_000
"""Of memory, for the largest process of a command: what a laptop has to spare."""


@pytest.fixture(scope="module")
def folder() -> Path:
    """A folder that is kept: the archive in it is slow to make."""
    folder = Path(os.environ.get("BIGEARTHNET_FULL", "data/full")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    """The archive."""
    archive = folder / "archive"
    if shortage := find_shortage(folder, is_built=archive.is_dir()):
        pytest.skip(shortage)
    if not archive.is_dir():
        build_archive(archive)
    return archive


@pytest.fixture(scope="module")
def log(folder: Path) -> Log:
    """The log of all commands, which run in an empty folder."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    log = Log(folder / "log.txt", work, MAX_BYTES)
    log.begin()
    return log


@pytest.fixture(scope="module")
def store(archive: Path, log: Log) -> Path:
    """A store of the bands of 60 m, for which all JSON files and two GeoTIFFs a patch are read."""
    words = ("--bands", "B01,B09", "--json")
    planned = json.loads(log.run("ben-convert", "convert", archive, "store", *words, "--dry-run"))
    assert planned["n_patches"] == N_PATCHES
    made = json.loads(log.run("ben-convert", "convert", archive, "store", *words))
    assert (made["n_patches"], made["n_rejected"]) == (N_PATCHES, 0)
    return log.folder / "store"


@pytest.fixture(scope="module")
def run(store: Path, log: Log) -> Path:
    """A training of one epoch; no option makes it shorter, nor its validation."""
    words = ("--bands", "B01", "--epochs", "1")
    trained = json.loads(log.run("ben-train", "fit", "store", "run", *words, "--json"))
    assert trained["epochs"] == 1
    return log.folder / "run"


def test_the_store_is_verified(store: Path, log: Log) -> None:
    verified = json.loads(log.run("ben-convert", "verify", "store", "--json"))
    assert (verified["patches"], verified["faults"]) == (N_PATCHES, [])


def test_the_store_is_verified_against_the_archive(store: Path, archive: Path, log: Log) -> None:
    words = ("--against", archive, "--sample", "1000", "--json")
    verified = json.loads(log.run("ben-convert", "verify", "store", *words))
    assert (verified["compared"], verified["faults"]) == (1000, [])


def test_info_counts_every_patch(store: Path, log: Log) -> None:
    described = json.loads(log.run("ben-convert", "info", "store", "--json"))
    assert described["counts"]["recommended_split"] == SPLITS
    assert f"{N_PATCHES:,} found" in log.run("ben-convert", "info", "store")


def test_a_query_answers_about_every_patch(store: Path, log: Log) -> None:
    asked = "SELECT split, count(*) AS n FROM patches WHERE recommended GROUP BY split"
    assert f"{SPLITS['train']}" in log.run("ben-convert", "query", "store", asked)
    for suffix in ("parquet", "csv", "json"):
        log.run("ben-convert", "query", "store", "SELECT * EXCLUDE geometry FROM patches", "--out", f"all.{suffix}")
    table = pq.read_table(log.folder / "all.parquet", columns=["patch_id"])
    assert table["patch_id"].combine_chunks().unique().equals(table["patch_id"].combine_chunks())
    assert len(table) == N_PATCHES


def test_previews_are_drawn(store: Path, archive: Path, log: Log) -> None:
    log.run("ben-convert", "preview", "store", "--sheet", "store.png", "--what", "B01")
    chosen = ("--where", "country = 'Finland'", "--random", "20", "--what", "B01")
    log.run("ben-convert", "preview", "store", *chosen, "--out", "pictures")
    log.run("ben-convert", "preview", archive, "--sheet", "archive.png")
    assert len(list((log.folder / "pictures").iterdir())) == 20
    for name in ("store.png", "archive.png"):
        with Image.open(log.folder / name) as sheet:
            assert sheet.width > 500


def test_a_patch_is_exported_as_it_was(store: Path, archive: Path, log: Log) -> None:
    log.run("ben-convert", "export", "store", PATCH, "tifs")
    file = f"{PATCH}/{PATCH}_B01.tif"
    with rasterio.open(log.folder / "tifs" / file) as ours, rasterio.open(archive / file) as theirs:
        np.testing.assert_array_equal(ours.read(), theirs.read())
        assert (ours.crs, ours.transform) == (theirs.crs, theirs.transform)


def test_every_footprint_is_exported(store: Path, log: Log) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    log.run("ben-convert", "export", "store", "footprints.gpkg")
    assert pyogrio.read_info(log.folder / "footprints.gpkg")["features"] == N_PATCHES


def test_the_store_is_shown_on_a_page(store: Path, log: Log) -> None:
    log.run("ben-convert", "report", "store", "--out", "store.html")
    assert f"{N_PATCHES:,}" in (log.folder / "store.html").read_text()


def test_every_split_is_selected_whole(store: Path, log: Log) -> None:
    for split, n_patches in SPLITS.items():
        selected = json.loads(log.run("ben-train", "select", "store", "--split", split, "--json"))
        assert selected["patches"] == n_patches
    selected = json.loads(log.run("ben-train", "select", "store", "--all", "--labels", "43", "--json"))
    assert selected["patches"] == N_PATCHES


def test_all_patches_are_streamed(store: Path, log: Log) -> None:
    speed = json.loads(log.run("ben-train", "bench", "store", "--all", "--json"))
    assert speed["n_patches"] > 0


def test_a_model_is_measured(run: Path, log: Log) -> None:
    measured = json.loads(log.run("ben-train", "evaluate", "run", "--json"))
    assert measured["patches"] == SPLITS["test"]


def test_every_patch_is_predicted(run: Path, log: Log) -> None:
    log.run("ben-train", "predict", "run", "store", "--out", "predictions.parquet")
    assert pq.read_metadata(log.folder / "predictions.parquet").num_rows == N_PATCHES


def test_a_patch_of_the_archive_is_predicted(run: Path, archive: Path, log: Log) -> None:
    (line,) = log.run("ben-train", "predict", "run", archive / PATCH).splitlines()
    assert line.startswith(f"{PATCH}\t")


def test_a_training_is_shown_on_a_page(run: Path, log: Log) -> None:
    log.run("ben-train", "report", "run")
    assert "<html" in (log.folder / "run/report.html").read_text()


def test_a_model_is_exported(run: Path, log: Log) -> None:
    described: dict[str, Any] = json.loads(log.run("ben-train", "export", "run", "model", "--json"))
    assert list(described["inputs"]) == ["s2_60m"]


def test_two_bands_are_compared(store: Path, log: Log) -> None:
    words = ("--bands", "B01", "--bands", "B09", "--seeds", "2", "--epochs", "1", "--json")
    compared = json.loads(log.run("ben-train", "compare", "store", "comparison", *words))
    assert set(compared["verdicts"]) == {"B09"}
