"""Archives that lie, move, change or have strange names, and receipts that do not tell the truth."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigearthnet.archive.records import Sources
from bigearthnet.bands import S2_10M
from bigearthnet.errors import ClusterError, SourceError, StoreError
from bigearthnet.store.images import read_layout
from bigearthnet.store.manifest import read_attributes
from bigearthnet.store.shard import read_pixels
from bigearthnet.store.table import read_rows
from converter import plan
from converter.conversion import convert
from converter.events import Advanced, Event, Planned
from converter.verify.verification import VerifyOptions, verify
from tests.archives import Archive, read_files
from tests.conftest import SmallArchive
from tests.faults.conftest import find_finished_shards, find_receipts
from tests.forms import convert_here


class CutError(Exception):
    """Stands for whatever ends a run."""


def begin(small: SmallArchive, raw: Path, store: Path, scheduler: str, n_done: int = 3) -> None:
    """Begin a conversion and break it off after some shards."""
    seen: list[Event] = []

    def cut(event: Event) -> None:
        if isinstance(event, Advanced):
            seen.append(event)
            if len(seen) == n_done:
                raise CutError

    with pytest.raises(CutError):
        convert(raw, store, small.options(scheduler=scheduler), cut)
    assert find_receipts(store)


@pytest.fixture
def raw(small: SmallArchive, tmp_path: Path) -> Archive:
    return small.archive.copy(tmp_path / "raw")


def test_a_file_that_vanishes_between_scan_and_read_is_a_rejected_patch(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    lost, gone = small.test[0], small.train[0]

    def remove(event: Event) -> None:
        if isinstance(event, Planned):
            raw.tif(lost, "B11").unlink()
            shutil.rmtree(raw.folder(gone))

    with pytest.raises(SourceError) as raised:
        convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler, max_bad=1.0), remove)
    message = str(raised.value)
    assert f"{lost}/{lost}_B11.tif: the file is missing" in message
    assert f"{gone}/{gone}_labels_metadata.json: the file is missing" in message


def test_an_archive_that_goes_away_as_a_whole_makes_no_patch_a_bad_one(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    """A file system that is unmounted leaves the empty folder on which it was mounted."""
    away, target = tmp_path / "away", tmp_path / "store"

    def unmount(event: Event) -> None:
        if isinstance(event, Advanced) and not away.exists():
            raw.root.rename(away)
            raw.root.mkdir()

    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=1.0)
    with pytest.raises(ClusterError, match=f"cannot see what is in {raw.root}; mount it there"):
        convert(raw.root, target, options, unmount)
    raw.root.rmdir()
    away.rename(raw.root)
    assert convert(raw.root, target, options).n_rejected == 0
    assert read_files(target) == read_files(store)


def test_files_that_are_others_when_opened_again_give_a_store_of_what_was_read_first(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain band, one that only rasterio reads, and a JSON are replaced whenever they have been opened."""
    name = small.train[0]
    raw.rewrite_tif(name, "B03", compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    others = small.archive.copy(tmp_path / "others", [name])
    others.rewrite_tif(name, "B02", small.archive.read_band(name, "B02")[::-1])
    others.rewrite_tif(name, "B03", small.archive.read_band(name, "B03")[::-1], compress="deflate")
    others.edit_note(name, labels=["Airports"])
    replaced: list[str] = []
    real_open = os.open

    def replace_once_open(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = real_open(path, *arguments, **options)
        if str(path) in (str(raw.tif(name, "B02")), str(raw.tif(name, "B03")), str(raw.note(name))):
            replaced.append(Path(path).name)
            os.replace(shutil.copy(others.folder(name) / replaced[-1], tmp_path / "other"), path)
        return descriptor

    monkeypatch.setattr(os, "open", replace_once_open)
    convert_here(raw.root, tmp_path / "store", small.options())
    monkeypatch.undo()
    assert sorted(replaced) == [f"{name}_B02.tif", f"{name}_B03.tif", f"{name}_labels_metadata.json"]
    row = next(row for row in read_rows(tmp_path / "store") if row["patch_id"] == name)
    layout = read_layout(tmp_path / "store", read_attributes(tmp_path / "store"))
    stored = read_pixels(tmp_path / "store", layout, S2_10M, row["index"])
    np.testing.assert_array_equal(stored, small.archive.read_array(name, "s2_10m"))
    assert list(row["labels"]) == small.archive.read_note(name)["labels"]
    assert verify(tmp_path / "store", VerifyOptions(scheduler=scheduler)).faults == []
    against = VerifyOptions(scheduler=scheduler, against=Sources(raw.root), lists=small.lists)
    faults = sorted(map(str, verify(tmp_path / "store", against).faults))
    assert len(faults) == 2
    assert faults[0].startswith(f"patches.parquet, shard {row['index'] // 4}, {name}: labels is ")
    assert faults[1].startswith(f"s2_10m, shard {row['index'] // 4}, {name}: differs from the archive in ")


@pytest.mark.parametrize("name", [b"with spaces  and 'quotes'", "Bücher 卫星 🛰".encode(), b"not \xff\xfe UTF-8", b"-n"])
def test_any_path_will_do(name: bytes, small: SmallArchive, store: Path, scheduler: str, tmp_path: Path) -> None:
    """The archive, a folder inside it that holds some scenes, and the store all have the name."""
    strange = os.fsdecode(name)
    outer = tmp_path / strange
    raw = small.archive.copy(outer / strange)
    inside = raw.root / f"scenes {strange}"
    inside.mkdir()
    for patch in small.names[:5]:
        raw.folder(patch).rename(inside / patch)
    path = outer / "store"
    convert(raw.root, path, small.options(scheduler=scheduler))
    options = VerifyOptions(against=Sources(raw.root), lists=small.lists, scheduler=scheduler)
    assert verify(path, options).faults == []
    (after, before) = (read_files(folder) for folder in (path, store))
    assert after == before


def test_loops_of_links_are_harmless(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    (raw.root / "again").symlink_to(raw.root)
    (raw.root / "itself").symlink_to("itself")
    (raw.root / "S2A_MSIL2A_20170617T113321_77_77").symlink_to("S2A_MSIL2A_20170617T113321_77_77")
    (raw.root / "ping").symlink_to("pong")
    (raw.root / "pong").symlink_to("ping")
    convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler))
    assert read_files(tmp_path / "store") == read_files(store)


def test_a_store_may_be_moved_finished_or_not(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    begin(small, raw.root, tmp_path / "first place", scheduler)
    moved = (tmp_path / "first place").rename(tmp_path / "second place")
    archive = raw.root.rename(tmp_path / "archive, moved too")
    before = find_finished_shards(moved)
    convert(archive, moved, small.options(scheduler=scheduler))
    assert read_files(moved) == read_files(store)
    assert {name: ((moved / name).stat().st_ino, (moved / name).stat().st_mtime_ns) for name in before} == before
    again = moved.rename(tmp_path / "third place")
    options = VerifyOptions(against=Sources(archive), lists=small.lists, scheduler=scheduler)
    found = verify(again, options)
    assert (found.faults, found.n_compared) == ([], 22)


def test_another_version_of_the_converter_does_not_go_on(
    small: SmallArchive, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(small, small.archive.root, tmp_path / "store", scheduler)
    monkeypatch.setattr("converter.conversion.__version__", "99.0")
    monkeypatch.setattr(plan, "__version__", "99.0")
    before = read_files(tmp_path / "store")
    with pytest.raises(
        StoreError, match=r"another plan is there \(converter version was .*, is 99\.0; .*option overwrite"
    ):
        convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler))
    assert shards_of(read_files(tmp_path / "store")) == shards_of(before)


def test_another_patch_in_place_of_one_of_the_archive_is_refused(
    small: SmallArchive, raw: Archive, scheduler: str, tmp_path: Path
) -> None:
    """The number of patches is the same."""
    begin(small, raw.root, tmp_path / "store", scheduler)
    shutil.rmtree(raw.folder(small.names[0]))
    raw.vary("S2A_MSIL2A_20170617T113321_33_33", small.archive, small.names[0], 40)
    with pytest.raises(StoreError, match="digest of the patches was"):
        convert(raw.root, tmp_path / "store", small.options(scheduler=scheduler))


def test_another_split_in_the_lists_is_refused(small: SmallArchive, scheduler: str, tmp_path: Path) -> None:
    begin(small, small.archive.root, tmp_path / "store", scheduler)
    lists = Path(shutil.copytree(small.lists, tmp_path / "lists"))
    train = (lists / "train.csv").read_text().splitlines()
    (lists / "train.csv").write_text("".join(f"{name}\n" for name in train[1:]))
    (lists / "test.csv").write_text((lists / "test.csv").read_text() + f"{train[0]}\n")
    with pytest.raises(StoreError, match="digest of the patches was"):
        convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, lists=lists))


def shards_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith("images.zarr/s2_")}


@pytest.mark.parametrize("lie", ["digit", "bit", "cut", "empty", "of another shard", "of another store", "folder"])
def test_a_receipt_that_is_not_true_counts_for_nothing(
    lie: str, small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    begin(small, small.archive.root, path, scheduler)
    first, second, *_ = (path / ".progress" / "receipts" / name for name in find_receipts(path))
    content = first.read_text()
    match lie:
        case "digit":
            receipt: dict[str, Any] = json.loads(content)
            receipt["facts"][0][2] += 10  # the patch would lie 10 m further east
            first.write_text(json.dumps(receipt))
        case "bit":
            first.write_text(content.replace("Mixed forest", "Mixed forfst").replace('"epsg":', '"epsh":')[:-2] + "}}")
        case "cut":
            first.write_text(content[: len(content) // 2])
        case "empty":
            first.write_text("")
        case "of another shard":
            shutil.copy(second, first)
        case "of another store":
            receipt = json.loads(content)
            first.write_text(json.dumps(receipt | {"digest": "0" * 32}))
        case "folder":
            first.unlink()
    summary = convert(small.archive.root, path, small.options(scheduler=scheduler))
    assert summary.n_converted_now >= 2
    assert read_files(path) == read_files(store)


def test_a_shard_cut_short_after_its_receipt_is_done_again(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    begin(small, small.archive.root, path, scheduler)
    number = int(find_receipts(path)[0].removesuffix(".json"))
    shard = path / f"images.zarr/s2_20m/c/{number}/0/0/0"
    os.truncate(shard, shard.stat().st_size - 1)
    convert(small.archive.root, path, small.options(scheduler=scheduler))
    assert read_files(path) == read_files(store)


def test_mending_a_patch_redoes_its_shard_alone(
    small: SmallArchive, raw: Archive, store: Path, scheduler: str, tmp_path: Path
) -> None:
    """Bad patches in the first, a middle and the last part of the store."""
    bad = [small.train[4], small.test[1], small.unlisted]
    whole = {name: raw.tif(name, "B09").read_bytes() for name in bad}
    for name in bad:
        raw.tif(name, "B09").write_bytes(whole[name][:-1])
    options = small.options(scheduler=scheduler, max_bad=1.0)
    with pytest.raises(SourceError, match="3 bad patches"):
        convert(raw.root, tmp_path / "store", options)
    before = find_finished_shards(tmp_path / "store")
    assert len(before) == 3 * (6 - 3)
    for name in bad[:2]:
        raw.tif(name, "B09").write_bytes(whole[name])
    with pytest.raises(SourceError, match=f"1 bad patch(es)?(.|\n)*{bad[2]}"):
        convert(raw.root, tmp_path / "store", options)
    raw.tif(bad[2], "B09").write_bytes(whole[bad[2]])
    convert(raw.root, tmp_path / "store", options)
    after = {name: (tmp_path / "store" / name).stat() for name in before}
    assert {name: (found.st_ino, found.st_mtime_ns) for name, found in after.items()} == before
    assert read_files(tmp_path / "store") == read_files(store)
