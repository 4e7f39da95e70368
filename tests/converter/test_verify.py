"""Verification: a true store has no fault, and whatever is changed in one is found and named."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bigearthnet.archive.records import Sources
from bigearthnet.errors import OptionError, SourceError, StoreError
from bigearthnet.store import table
from bigearthnet.store.manifest import read_manifest
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.table import read_rows
from converter.events import Advanced, Event, Started
from converter.verify.inspection import Fault
from converter.verify.sampling import count_sample, draw_rows, find_probability
from converter.verify.verification import Verification, VerifyOptions, verify
from tests.archives import Archive, read_files
from tests.conftest import RunCli, SmallArchive
from tests.manifests import seal_again


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def look(store: Path, scheduler: str, **options: Any) -> Verification:
    return verify(store, VerifyOptions(scheduler=scheduler, **options))


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_true_store_has_no_fault(store: Path, scheduler: str) -> None:
    events: list[Event] = []
    found = verify(store, VerifyOptions(scheduler=scheduler), events.append)
    assert (found.faults, found.n_patches, found.n_compared) == ([], 22, 0)
    assert isinstance(events[0], Started)
    assert events[-1] == Advanced(22, 0, 22)
    assert found.to_json() == {
        "store": str(store),
        "patches": 22,
        "compared": 0,
        "detection": {},
        "faults": [],
        "seconds": found.seconds,
    }


@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_every_pixel_and_label_is_compared_with_the_archive(
    reader: str, small: SmallArchive, store: Path, scheduler: str
) -> None:
    found = look(store, scheduler, against=Sources(small.archive.root), lists=small.lists, reader=reader)
    assert (found.faults, found.n_compared) == ([], 22)


@pytest.mark.parametrize(("sample", "n_compared"), [(1, 1), ("5", 5), ("20%", 5), (22, 22), (100, 22), ("100%", 22)])
def test_a_sample_is_compared_with_the_archive(
    sample: int | str, n_compared: int, small: SmallArchive, store: Path, scheduler: str
) -> None:
    found = look(store, scheduler, against=Sources(small.archive.root), lists=small.lists, sample=sample)
    assert (found.faults, found.n_compared) == ([], n_compared)
    assert found.detection.keys() == ({1, 10} if n_compared < 22 else set())
    if found.detection:
        assert found.detection[1] == pytest.approx(n_compared / 22)


def test_the_chance_to_find_damage_is_that_of_the_hypergeometric_distribution() -> None:
    """Against binomial coefficients, which are exact."""
    for n_patches, n_sample, n_damaged in itertools.product((1, 7, 22), range(23), range(23)):
        if max(n_sample, n_damaged) <= n_patches:
            missed = math.comb(n_patches - n_damaged, n_sample) / math.comb(n_patches, n_sample)
            assert find_probability(n_damaged, n_sample, n_patches) == pytest.approx(1 - missed, abs=1e-12)
    assert count_sample("5%", 590_326) == 29_517
    assert round(find_probability(1, 29_517, 590_326), 4) == 0.05
    assert round(find_probability(100, 29_517, 590_326), 4) == 0.9941


def test_samples_find_damage_as_often_as_is_said() -> None:
    """The rows of damage may lie in any pattern: here every fourth one, which a sample at even distances may miss."""
    damaged = set(range(1, 22, 4))
    hits = sum(bool(damaged & draw_rows(5, 22, seed)) for seed in range(4_000))
    assert hits / 4_000 == pytest.approx(find_probability(len(damaged), 5, 22), abs=0.025)
    assert draw_rows(5, 22, 1) == draw_rows(5, 22, 1)


# -- Damage ----------------------------------------------------------------------------------------------------------


def shards_of(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.glob("images.zarr/s2_*/c/*/0/0/0"))


@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_bit_in_any_shard_is_found_and_its_place_is_named(copy: Path, scheduler: str, seed: int) -> None:
    """In pixels, checksums and index alike: one bit in every shard at once, and every one of them is a fault."""
    dice = random.Random(seed)
    names = shards_of(copy)
    assert len(names) == 18
    for name in names:
        flip(copy / name, dice.randrange(8 * (copy / name).stat().st_size))
    found = look(copy, scheduler)
    where = {(fault.where, fault.shard) for fault in found.faults if fault.where.startswith("s2_")}
    assert where == {(name.split("/")[1], int(name.split("/")[3])) for name in names}


def test_a_damaged_patch_is_named(copy: Path, scheduler: str) -> None:
    """The first chunk of a shard begins the file."""
    flip(copy / "images.zarr/s2_20m/c/2/0/0/0", 8 * 100)
    (fault,) = look(copy, scheduler).faults
    assert fault == Fault("s2_20m", 2, read_rows(copy)[8]["patch_id"], "the pixels do not match their checksum")
    assert str(fault).startswith("s2_20m, shard 2, S2")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("missing", "No such file or directory"),
        ("empty", "the checksum of its index"),
        ("short", "the checksum of its index"),
        ("long", "the checksum of its index"),
        ("swapped", "fingerprint"),
    ],
)
def test_a_shard_that_is_not_the_one_that_was_written_is_found(
    damage: str, what: str, copy: Path, scheduler: str
) -> None:
    path, other = (copy / f"images.zarr/s2_60m/c/{shard}/0/0/0" for shard in (1, 3))
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "swapped":  # each is whole, and has all its checksums
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case _:
            path.write_bytes({"empty": b"", "short": content[:-1], "long": content + b"\0"}[damage])
    faults = look(copy, scheduler).faults
    assert faults
    assert any(what in str(fault) for fault in faults)


def test_shards_that_were_exchanged_are_named(copy: Path, scheduler: str) -> None:
    one, other = (copy / f"images.zarr/s2_60m/c/{shard}/0/0/0" for shard in (1, 3))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    faults = [str(fault) for fault in look(copy, scheduler).faults]
    for shard in (1, 3):
        assert f"s2_60m, shard {shard}: its chunks are not those that were written" in faults


def metadata_of(store: Path) -> list[str]:
    return sorted({*read_files(store)} - {*shards_of(store)} - {"patches.parquet"})


def test_one_flipped_bit_in_any_file_of_metadata_is_found_and_the_file_is_named(copy: Path, scheduler: str) -> None:
    dice = random.Random(0)
    names = metadata_of(copy)
    assert len(names) == 32
    for name in names:
        whole = (copy / name).read_bytes()
        for bit in dice.sample(range(8 * len(whole)), 6):
            flip(copy / name, bit)
            (fault,) = look(copy, scheduler).faults
            assert fault.where == name
            (copy / name).write_bytes(whole)
    assert look(copy, scheduler).faults == []


@pytest.mark.parametrize("name", ["patches.parquet", "manifest.json"])
def test_one_flipped_bit_anywhere_in_table_or_manifest_is_found(name: str, copy: Path) -> None:
    path = copy / name
    whole = path.read_bytes()
    step = len(whole) // 200
    for at in range(random.randrange(step), len(whole), step):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert [fault.where for fault in verify(copy).faults] == [name], at


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 1000])
def test_a_table_that_is_none_is_a_fault(content: bytes, copy: Path, scheduler: str) -> None:
    (copy / "patches.parquet").write_bytes(content)
    (fault,) = look(copy, scheduler).faults
    assert str(fault) == "patches.parquet: its bytes are not those that were written; no pixels were looked at"


def test_metadata_that_is_gone_is_a_fault(copy: Path, scheduler: str) -> None:
    for name in ("zarr.json", "patch_id/c/0"):
        (copy / "images.zarr" / name).unlink()
    faults = look(copy, scheduler).faults
    assert [fault.where for fault in faults] == ["images.zarr/patch_id/c/0", "images.zarr/zarr.json"]
    assert all("cannot be read (No such file or directory)" in fault.what for fault in faults)


def test_what_a_desktop_leaves_is_no_fault(copy: Path, scheduler: str) -> None:
    for folder in (copy, copy / "images.zarr", copy / "images.zarr" / "s2_10m"):
        for name in (".DS_Store", "._s2_10m", "Thumbs.db", "desktop.ini", ".nfs0000000004a1b2c300000001"):
            (folder / name).write_bytes(b"\0")
    assert look(copy, scheduler).faults == []


def test_whatever_the_manifest_does_not_list_is_named(copy: Path, scheduler: str) -> None:
    """Zarr would open some of it, as arrays that the group's own metadata does not know of."""
    images = copy / "images.zarr"
    for name in ("notes.txt", "images.zarr/.zmetadata", "images.zarr/.secret", "images.zarr/s2_10m/c/0/0/0/1"):
        (copy / name).write_text("{}")
    (images / "s2_5m").mkdir()
    (images / "s2_5m" / "zarr.json").write_bytes((images / "s2_10m" / "zarr.json").read_bytes())
    for name in (".git", "images.zarr/.DS_Store", "images.zarr/s2_10m/c/7"):
        (copy / name).mkdir()
    (images / "s2_10m" / "c" / "6" / "0" / "0").mkdir(parents=True)
    (images / "s2_10m" / "c" / "6" / "0" / "0" / "0").write_bytes((images / "s2_10m/c/5/0/0/0").read_bytes())
    (copy / ".progress" / "receipts").mkdir(parents=True)
    os.mkfifo(copy / "pipe")
    found = look(copy, scheduler)
    folders = [".git", "images.zarr/.DS_Store", "images.zarr/s2_10m/c/6", "images.zarr/s2_10m/c/7", "images.zarr/s2_5m"]
    files = ["images.zarr/.secret", "images.zarr/.zmetadata", "images.zarr/s2_10m/c/0/0/0/1", "notes.txt", "pipe"]
    assert sorted(map(str, found.faults)) == sorted(
        [
            ".progress: left by a conversion that was ended; run it again, or remove this",
            *(f"{name}: a folder of which manifest.json lists nothing; remove it" for name in folders),
            *(f"{name}: manifest.json does not list it; remove it" for name in files),
        ]
    )
    assert found.n_patches == 22


def test_strangers_are_named_beside_damage(copy: Path, scheduler: str) -> None:
    (copy / "notes.txt").touch()
    (copy / "croissant.json").write_text("{}")
    assert [fault.where for fault in look(copy, scheduler).faults] == ["croissant.json", "notes.txt"]


def test_links_are_named_unless_they_lead_to_what_is_listed(copy: Path, scheduler: str, tmp_path: Path) -> None:
    shards = copy / "images.zarr" / "s2_10m" / "c"
    (copy.parent / "link").symlink_to(copy)
    (shards / "0").rename(tmp_path / "elsewhere")
    (shards / "0").symlink_to(tmp_path / "elsewhere")
    (copy / "croissant.json").rename(tmp_path / "croissant.json")
    (copy / "croissant.json").symlink_to("../croissant.json")
    (copy / "again").symlink_to("patches.parquet")
    (copy / "all").symlink_to("images.zarr")
    (copy / "nowhere").symlink_to("nowhere at all")
    (copy / "loop").symlink_to("loop")
    found = look(copy.parent / "link", scheduler)
    assert sorted(map(str, found.faults)) == [
        "again: manifest.json does not list it; remove it",
        "all: a folder of which manifest.json lists nothing; remove it",
        f"croissant.json: a link out of the store, to {tmp_path}/croissant.json; put a copy in its place",
        f"images.zarr/s2_10m/c/0: a link out of the store, to {tmp_path}/elsewhere; put a copy in its place",
        "loop: manifest.json does not list it; remove it",
        "nowhere: manifest.json does not list it; remove it",
    ]


def test_a_store_behind_a_link_has_no_fault(store: Path, scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    assert look(tmp_path / "link", scheduler).faults == []


# -- Lies that have all their checksums ------------------------------------------------------------------------------


@pytest.fixture
def forge(copy: Path) -> Any:
    """Change the store's own statements and seal it again, as a converter with a bug in it would."""

    def change(column: str | None = None, row: int = 0, value: Any = None, **attributes: Any) -> None:
        rows = table.read_table(copy)
        if column is not None:
            values = rows[column].to_pylist()
            values[row] = value
            field = rows.schema.field(column)
            rows = rows.set_column(rows.schema.names.index(column), field, pa.array(values, field.type))
            (copy / "patches.parquet").write_bytes(table.encode_table(rows, attributes_of(copy)["fingerprint"]))
        path = copy / "images.zarr" / "zarr.json"
        if attributes:
            group = json.loads(path.read_bytes())
            group["attributes"] |= attributes
            path.write_text(json.dumps(group))
        seal_again(copy)

    return change


def attributes_of(store: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads((store / "images.zarr" / "zarr.json").read_bytes())["attributes"]
    return attributes


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("index", 7, "index is 7, it is row 3"),
        ("labels", ["Unicorn meadows"], "unknown labels ['Unicorn meadows']"),
        ("labels_19", ["Marine waters"], "labels_19 is ('Marine waters',), labels give"),
        ("epsg", 32601, "epsg, S2"),
        ("x_ul", 1.0, "x_ul, S2"),
        ("patch_id", "S2A_MSIL2A_20170617T113321_1_1", "patch_id, S2A_MSIL2A_20170617T113321_1_1: differs"),
        ("zero_pixels", 12_345, "zero_pixels is 12345, the pixels have"),
        ("recommended", False, "the store says that splits are rows"),
        ("split", "test", "the store says that splits are rows"),
    ],
)
def test_a_table_that_lies_is_found(column: str, value: Any, what: str, copy: Path, scheduler: str, forge: Any) -> None:
    forge(column, 3, value)
    faults = [str(fault) for fault in look(copy, scheduler).faults]
    assert [fault for fault in faults if what in fault], faults


@pytest.mark.parametrize("column", ["country", "season", "s1_name", "tile", "s2_time", "labels"])
def test_a_table_that_differs_from_archive_and_lists_is_found(
    column: str, copy: Path, scheduler: str, forge: Any, small: SmallArchive
) -> None:
    rows = table.read_table(copy)[column].to_pylist()
    forge(column, 3, next(value for value in rows if value not in (None, rows[3])))
    found = look(copy, scheduler, against=Sources(small.archive.root), lists=small.lists)
    patch_id = read_rows(copy)[3]["patch_id"]
    assert any(f"{patch_id}: {column} is " in str(fault) for fault in found.faults)


def test_root_attributes_that_lie_are_found(copy: Path, scheduler: str, forge: Any) -> None:
    attributes = attributes_of(copy)
    statistics = attributes["statistics"]
    statistics["B02"]["mean"] += 0.001
    counts = attributes["counts"] | {"found": 23, "rejected": 1}
    forge(statistics=statistics, counts=counts, labels_19=attributes["labels_19"][::-1])
    faults = "\n".join(map(str, look(copy, scheduler).faults))
    assert "statistics of B02 are" in faults
    assert "the store says 23 found, the tables have 22" in faults
    assert "the store says 1 rejected, the tables have 0" in faults
    assert "the class names in the root attributes are not those of BigEarthNet" in faults


def test_a_fingerprint_that_is_another_is_found(copy: Path, scheduler: str, forge: Any) -> None:
    forge(fingerprint="0" * 32)
    faults = "\n".join(map(str, look(copy, scheduler).faults))
    assert "its fingerprint is not that of the images" in faults
    assert "the contents give" in faults


def test_a_manifest_that_lies_is_found(copy: Path, scheduler: str) -> None:
    shards = read_manifest(LocalObjects(copy)).shards
    first, second, *rest = shards
    lies = {first: shards[second], **{name: shards[name] for name in rest}}
    seal_again(copy, fingerprint="0" * 32, counts={"found": 1}, shards=lies)
    faults = [str(fault) for fault in look(copy, scheduler).faults]
    assert f"manifest.json: fingerprint: {'0' * 32}, the images have {attributes_of(copy)['fingerprint']}" in faults
    assert any(fault.startswith("manifest.json: counts: {'found': 1}, the images have") for fault in faults)
    assert "manifest.json: expected 6 shards of each array, it lists others" in faults
    assert "s2_10m, shard 0: its chunks are not those that were written" in faults


def test_root_attributes_that_describe_nothing_are_an_error(copy: Path, scheduler: str, forge: Any) -> None:
    forge(dataset="ImageNet")
    with pytest.raises(StoreError, match="the root attributes do not describe a store"):
        look(copy, scheduler)


# -- The archive -----------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(small: SmallArchive, tmp_path: Path) -> Archive:
    return small.archive.copy(tmp_path / "raw")


def test_differences_from_the_archive_are_named(small: SmallArchive, raw: Archive, store: Path, scheduler: str) -> None:
    one, label, gone, lost = small.names[2], small.names[8], small.names[12], small.names[15]
    pixels = raw.read_band(one, "B11")
    pixels[59, 59] ^= 1
    raw.rewrite_tif(one, "B11", pixels)
    raw.edit_note(label, labels=["Airports", "Sea and ocean"])
    raw.tif(gone, "B05").unlink()
    shutil.rmtree(raw.folder(lost))
    found = look(store, scheduler, against=Sources(raw.root), lists=small.lists)
    faults = sorted(str(fault) for fault in found.faults)
    assert len(faults) == 4
    assert f"archive, {lost}: the patch is in the store and not in the archive" in faults
    assert any(f"{gone}: {gone}_B05.tif: the file is missing" in fault for fault in faults)
    assert any(f"{label}: labels is " in fault for fault in faults)
    assert any(f"{one}: differs from the archive in 1 bytes" in fault for fault in faults)
    assert found.n_compared == 21


def test_an_archive_that_is_not_there_is_an_error(store: Path, scheduler: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected the archive, extracted or as downloaded .*, found neither"):
        look(store, scheduler, against=Sources(tmp_path / "nowhere"))


# -- Stores and options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nothing", "empty", "unfinished"])
def test_what_is_no_finished_store_is_an_error(kind: str, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "store"
    if kind != "nothing":
        path.mkdir()
    if kind == "unfinished":
        shutil.copytree(store / "images.zarr", path / "images.zarr")
    with pytest.raises(StoreError, match=f"{path}: expected a finished store"):
        verify(path)


def test_options_that_cannot_be_are_refused() -> None:
    for sample in (0, "0", "0%"):
        with pytest.raises(OptionError, match="a sample of at least one patch, not 0"):
            VerifyOptions(against=Sources(Path("raw")), sample=sample)
    for sample in (-1, "many", "5 %", "%", "1e3", "1/2", "٥%", ""):
        with pytest.raises(OptionError, match="expected a sample of a number of patches or a percentage"):
            VerifyOptions(against=Sources(Path("raw")), sample=sample)
    with pytest.raises(OptionError, match="a sample is compared with an archive"):
        VerifyOptions(sample=5)


def test_the_command_says_what_a_sample_finds(
    small: SmallArchive, store: Path, scheduler: str, run_cli: RunCli
) -> None:
    words = ("--against", small.archive.root, "--lists", small.lists, "--sample", "20%", "--scheduler", scheduler)
    ended = run_cli("verify", store, *words)
    assert "Sample    chance to find differences by patches that differ: 22.7% in 1, 96.9% in 10\n" in ended.out
    assert "Verified  22 patches, 5 of them against the archive, in " in ended.out
    detection = json.loads(run_cli("verify", store, *words, "--json").out)["detection"]
    assert detection == {"1": pytest.approx(5 / 22), "10": pytest.approx(1 - math.comb(12, 5) / math.comb(22, 5))}


def test_the_command_prints_each_fault_and_ends_in_1(copy: Path, scheduler: str, run_cli: RunCli) -> None:
    assert run_cli("verify", copy, "--scheduler", scheduler).code == 0
    flip(copy / "images.zarr/s2_20m/c/2/0/0/0", 8 * 100)
    ended = run_cli("verify", copy, "--scheduler", scheduler)
    assert ended.code == 1
    assert "Fault     s2_20m, shard 2, S2" in ended.out
    assert ended.err.count("Error: ") == 1
    assert "1 fault" in ended.err
    found = json.loads(run_cli("verify", copy, "--scheduler", scheduler, "--json").out)
    assert len(found["faults"]) == 1
