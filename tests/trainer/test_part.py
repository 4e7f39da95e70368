"""Parts of a store that `ben-convert stage` brings near: what is in them, and that a training sees no difference."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from bigearthnet.errors import OptionError, OutputError, SelectionError, StoreError
from bigearthnet.store.layout import CODECS
from converter.staging import StageOptions, stage
from converter.verify.verification import VerifyOptions, verify
from tests.archives import read_files
from tests.manifests import edit_metadata, edit_table
from tests.servers import Fault, break_off, flip, serve
from trainer import Store, Stream, open_store

RGB = StageOptions(("rgb",), ("train", "validation"))


@pytest.mark.parametrize("codec", CODECS)
def test_a_part_has_the_chosen_bands_and_patches_of_the_whole(
    codec: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    options = StageOptions(("B11,rgb",), where=("country = 'Finland'", "patch_id not like '%_3'"))
    staged = stage(stores[codec], tmp_path / "part", options)
    whole, part = pq.read_table(stores[codec] / "patches.parquet"), pq.read_table(tmp_path / "part/patches.parquet")
    chosen = [
        row["index"]
        for row in whole.to_pylist()
        if row["country"] == "Finland" and not row["patch_id"].endswith("_3") and row["recommended"]
    ]
    assert part["origin_index"].to_pylist() == chosen
    assert part["index"].to_pylist() == list(range(len(chosen)))
    same = [name for name in whole.column_names if name != "index"]
    assert part.select(same).equals(whole.take(chosen).select(same))
    images, expected_images = (_read_images(store) for store in (tmp_path / "part", stores[codec]))
    assert images.keys() == {"s2_10m", "s2_20m"}
    for name, places in {"s2_10m": [0, 1, 2], "s2_20m": [4]}.items():
        np.testing.assert_array_equal(images[name], expected_images[name][chosen][:, places])
    assert (staged.n_patches, staged.was_there) == (len(chosen), False)
    assert verify(tmp_path / "part", VerifyOptions(workers=1)).faults == []


def _read_images(store: Path) -> dict[str, Any]:
    """Read all pixels as zarr does."""
    group = zarr.open_group(store / "images.zarr", mode="r")
    return {name: np.asarray(array[:]) for name, array in group.arrays() if array.ndim > 1}


@pytest.mark.parametrize("order", ["global", "window", "sequential"])
@pytest.mark.parametrize("options", [RGB, StageOptions(recommended=False)])
def test_a_part_gives_the_batches_of_the_whole(
    order: Any, options: StageOptions, store: Store, stores: dict[str, Path], tmp_path: Path
) -> None:
    stage(stores["lz4"], tmp_path / "part", options)
    part = open_store(tmp_path / "part")
    assert part.fingerprint == store.fingerprint
    for split in ("train", "validation"):
        selections = [one.select(split, fraction=0.8) for one in (store, part)]
        assert selections[0].digest == selections[1].digest
        settings: dict[str, Any] = {"bands": "rgb", "batch_size": 7, "order": order, "window": 2}
        settings["turns"] = "each-quarter" if split == "train" else "none"
        with Stream(selections[0], **settings) as expected, Stream(selections[1], **settings) as found:
            position = None
            for wanted, batch in islice(zip(expected.forever(), found.forever(), strict=True), len(expected) + 5):
                assert batch.keys() == wanted.keys()
                for name, array in wanted.items():
                    np.testing.assert_array_equal(batch[name], array)
                position = expected.state()
            assert found.state() == position
    assert part.scale_of(["B04", "B02"])[0].tolist() == store.scale_of(["B04", "B02"])[0].tolist()


def test_a_part_of_a_part_is_a_part_of_the_whole(store: Store, stores: dict[str, Path], tmp_path: Path) -> None:
    stage(stores["lz4"], tmp_path / "first", StageOptions(("10m",), ("train", "test")))
    stage(tmp_path / "first", tmp_path / "second", StageOptions(("B03",), ("test",)))
    second = open_store(tmp_path / "second")
    assert second.fingerprint == store.fingerprint
    assert second.select("test").digest == store.select("test").digest
    assert second.bands == ("B03",)


def test_what_is_there_is_found_and_another_part_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    stage(stores["lz4"], tmp_path / "part", RGB)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").rglob("*")}
    assert stage(stores["lz4"], tmp_path / "part", RGB).was_there
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "part").rglob("*")} == before
    with pytest.raises(OutputError, match=r"part: a finished store is already there"):
        stage(stores["lz4"], tmp_path / "part", StageOptions(("B08",)))
    assert not stage(stores["lz4"], tmp_path / "part", StageOptions(("B08",), overwrite=True)).was_there
    assert open_store(tmp_path / "part").bands == ("B08",)


def test_killed_at_any_shard_it_goes_on(stores: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from converter.staging import StageOptions, stage\n"
        "def kill(done, total):\n"
        "    if done >= 48: os.kill(os.getpid(), signal.SIGKILL)\n"
        "stage(sys.argv[1], sys.argv[2], StageOptions(('rgb',), ('train', 'validation')), kill)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, stores["lz4"], tmp_path / "part"], check=False)
    assert killed.returncode == -signal.SIGKILL
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").glob("images.zarr/s2_10m/c/*/0/0/0")}
    assert len(made) >= 3
    assert not stage(stores["lz4"], tmp_path / "part", RGB).was_there
    assert {path: path.stat().st_mtime_ns for path in made} == made
    stage(stores["lz4"], tmp_path / "undisturbed", RGB)
    assert read_files(tmp_path / "part") == read_files(tmp_path / "undisturbed")


def test_of_processes_that_ask_at_once_one_copies(stores: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "converter", "stage", str(stores["lz4"]), str(tmp_path / "part")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(process.communicate(timeout=60)[0].partition(" ")[0] for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == ["Already", "Already", "Copied"]


def flip_a_pixel(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def take_another(path: Path) -> None:
    path.write_bytes((path.parents[3] / "1/0/0/0").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_pixel, "the crc32c of a chunk does not match"),
        (lambda path: os.truncate(path, 1000), "expected .* bytes, found 1,000"),
        (take_another, "expected .* bytes, found .*|its chunks are not those that were written"),
        (Path.unlink, "No such file or directory"),
    ],
)
def test_a_damaged_shard_is_named_and_after_it_was_mended_it_goes_on(
    damage: Callable[[Path], None], reason: str, copy_store: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = copy_store("lz4")
    shard = whole / "images.zarr/s2_20m/c/2/0/0/0"
    content = shard.read_bytes()
    damage(shard)
    with pytest.raises(StoreError, match=f"{shard}: ({reason}); convert it again or copy the shard again"):
        stage(whole, tmp_path / "part")
    assert not (tmp_path / "part/manifest.json").exists()
    shard.write_bytes(content)
    assert stage(whole, tmp_path / "part").n_patches == open_store(whole).select().indices.size


def test_a_part_comes_from_a_server_too(stores: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("requests")
    with serve(stores["lz4"]) as server:
        stage(server.url, tmp_path / "far", RGB)
    stage(stores["lz4"], tmp_path / "near", RGB)
    far, near = (read_files(tmp_path / name) for name in ("far", "near"))
    assert far.keys() == near.keys()
    different = {name for name in far if far[name] != near[name]}
    assert different <= {"images.zarr/zarr.json", "manifest.json", "croissant.json"}  # they name the origin


@pytest.mark.parametrize("fault", [flip, break_off])
def test_a_server_that_fails_does_no_harm(fault: Fault, stores: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("requests")
    with serve(stores["lz4"], [fault]) as server:
        stage(server.url, tmp_path / "far", StageOptions(("60m",)))
    stage(stores["lz4"], tmp_path / "near", StageOptions(("60m",)))
    for path in (tmp_path / "near").glob("images.zarr/s2_60m/c/**/0"):
        if path.is_file():
            assert (tmp_path / "far" / path.relative_to(tmp_path / "near")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"bands": ("B99",)}, OptionError, "B99"),
        ({"splits": ("dev",)}, OptionError, "expected splits out of train, validation, test, found dev"),
        ({"where": ("country = 'Atlantis'",)}, SelectionError, "no patch matches"),
        ({"where": ("cuntry = 'Finland'",)}, SelectionError, "cannot select where cuntry"),
    ],
)
def test_what_is_not_there_cannot_be_staged(
    options: dict[str, Any], error: type[Exception], reason: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=reason):
        stage(stores["lz4"], tmp_path / "part", StageOptions(**options))
    assert not (tmp_path / "part/.progress").exists()


def test_a_strangers_part_that_does_not_ascend_is_refused(copy_store: Callable[[str], Path], tmp_path: Path) -> None:
    stage(copy_store("lz4"), tmp_path / "part", RGB)
    edit_table(
        tmp_path / "part",
        lambda table: table.set_column(
            table.column_names.index("origin_index"),
            "origin_index",
            table["index"].combine_chunks().take(table["index"].combine_chunks()[::-1]),
        ),
    )
    with pytest.raises(StoreError, match="expected origin_index to ascend"):
        open_store(tmp_path / "part").select("train")
    edit_metadata(tmp_path / "part", lambda metadata: metadata["attributes"]["part_of"].update(whole="../up"))
    with pytest.raises(StoreError, match="does not describe a store"):
        open_store(tmp_path / "part")
