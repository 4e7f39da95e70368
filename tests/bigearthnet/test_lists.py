"""The official v1.0 lists, and one's own under the same names."""

from __future__ import annotations

import bz2
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.archive.lists import OfficialLists, Pairing, packaged_example, read_lists
from bigearthnet.archive.records import Patch, Source
from bigearthnet.errors import SourceError
from tests.archives import LIST_FILES, PAIRS_FILE, write_lists

ONE, TWO, THREE = (f"S2A_MSIL2A_20170613T101031_0_{i}" for i in range(3))


@pytest.fixture(scope="module")
def official() -> OfficialLists:
    return read_lists()


def test_the_official_lists_have_the_published_sizes(official: OfficialLists) -> None:
    assert len(official.pairing_of) == len(official.patch_ids) == 590_326
    splits = list(official.split_of.values())
    assert {split: splits.count(split) for split in set(splits)} == {
        "train": 269_695,
        "validation": 123_723,
        "test": 125_866,
    }
    assert (len(official.snow), len(official.cloud), len(official.no_19)) == (61_707, 9_280, 57)
    assert not official.snow & official.cloud
    assert len(official.no_19 & (official.snow | official.cloud)) == 2
    assert {pairing.country for pairing in official.pairing_of.values()} == {
        *("Austria", "Belgium", "Finland", "Ireland", "Kosovo"),
        *("Lithuania", "Luxembourg", "Portugal", "Serbia", "Switzerland"),
    }
    assert {pairing.season for pairing in official.pairing_of.values()} == {"Spring", "Summer", "Fall", "Winter"}


def test_the_official_splits_are_exactly_the_recommended_patches(official: OfficialLists) -> None:
    patches = [official.describe(Source(name, s2=name)) for name in official.patch_ids]
    recommended = {patch.patch_id for patch in patches if patch.recommended}
    assert recommended == set(official.split_of)
    assert recommended == official.patch_ids - official.snow - official.cloud - official.no_19
    assert len(recommended) == 519_284


def test_the_lists_name_the_sentinel_1_partner_of_a_real_patch(official: OfficialLists) -> None:
    name = "S2A_MSIL2A_20170613T101031_87_48"
    assert official.s1_name(name) == "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"
    assert official.s1_name("S2A_MSIL2A_20170613T101031_91_0") is None
    assert official.describe(Source(name)) == Patch(Source(name), "test", True, "Austria", "Summer")


@pytest.mark.parametrize("sensor", ["S1", "S2"])
def test_the_package_ships_six_real_patches_of_each_sensor(sensor: str) -> None:
    with tarfile.open(packaged_example(sensor)) as archive:
        folders = {Path(member.name).parent.name for member in archive if member.isfile()}
    assert len(folders) == 6
    assert all(folder.startswith(sensor) for folder in folders)


def make_lists(folder: Path, **changes: Any) -> Path:
    lists: dict[str, Any] = {
        "pairs": [("S1A_one", ONE, "Austria", "Summer"), ("S1B_two", TWO, "Kosovo", "Winter")],
        "train": [ONE],
        "test": [TWO],
    }
    return write_lists(folder, **(lists | changes))


def test_ones_own_lists_are_read_in_their_place(tmp_path: Path) -> None:
    lists = read_lists(make_lists(tmp_path, snow=[TWO], cloud=[THREE], no_19=[THREE]))
    assert lists == OfficialLists(
        split_of={ONE: "train", TWO: "test"},
        pairing_of={ONE: Pairing("S1A_one", "Austria", "Summer"), TWO: Pairing("S1B_two", "Kosovo", "Winter")},
        snow=frozenset({TWO}),
        cloud=frozenset({THREE}),
        no_19=frozenset({THREE}),
    )


@pytest.mark.parametrize(
    ("flag", "recommended"), [("snow", False), ("cloud", False), ("no_19", False), ("train", True)]
)
def test_a_flagged_patch_is_not_recommended_even_in_a_split(flag: str, recommended: bool, tmp_path: Path) -> None:
    patch = read_lists(make_lists(tmp_path, **{flag: [ONE]})).describe(Source(ONE))
    assert patch.recommended is recommended
    assert patch.contains_seasonal_snow is (flag == "snow")
    assert patch.contains_cloud_or_shadow is (flag == "cloud")


def test_lists_may_be_empty(tmp_path: Path) -> None:
    """Of one's own patches some are in no split, or all: the plan says how many."""
    assert read_lists(write_lists(tmp_path)) == OfficialLists({}, {}, frozenset(), frozenset(), frozenset())


def test_an_unlisted_patch_is_in_no_split_and_not_recommended(tmp_path: Path) -> None:
    assert read_lists(make_lists(tmp_path)).describe(Source(THREE)) == Patch(Source(THREE))


def _pair(*rows: str) -> bytes:
    return "\n".join(["s1_name,s2_name,country,season", *rows]).encode()


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: text.replace("\n", ",extra\n") if text.startswith("S2") else text,
    ],
    ids=["dos line ends", "old mac line ends", "byte order mark", "no last line end", "empty lines", "more columns"],
)
def test_small_differences_of_form_do_not_matter(rewrite: Any, tmp_path: Path) -> None:
    expected = read_lists(make_lists(tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(rewrite(path.read_text()).encode())
    assert read_lists(tmp_path) == expected


def test_packed_lists_are_read_too(tmp_path: Path) -> None:
    expected = read_lists(make_lists(tmp_path))
    for path in list(tmp_path.iterdir()):
        path.with_name(f"{path.name}.bz2").write_bytes(bz2.compress(path.read_bytes()))
        path.unlink()
    assert read_lists(tmp_path) == expected


@pytest.mark.parametrize("file", [*LIST_FILES.values(), PAIRS_FILE])
def test_a_missing_list_is_named(file: str, tmp_path: Path) -> None:
    (make_lists(tmp_path) / file).unlink()
    with pytest.raises(
        SourceError, match=rf"{tmp_path}: expected the official list {file} or {file}\.bz2, found neither"
    ):
        read_lists(tmp_path)


def test_a_missing_folder_of_lists_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{tmp_path}/no: expected the official list train.csv"):
        read_lists(tmp_path / "no")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.csv", b"\nname,split\n", r"train\.csv:2: expected a Sentinel-2 patch name, found 'name'"),
        ("test.csv", b"S1A_IW_GRDH\n", r"test\.csv:1: expected a Sentinel-2 patch name, found 'S1A_IW_GRDH'"),
        ("val.csv", b"S2A\xff\n", r"val\.csv: cannot be decoded as a UTF-8 list"),
        (PAIRS_FILE, b"", r"season\.csv: cannot be read as CSV \(Empty CSV file"),
        (PAIRS_FILE, b"s2_name,s1_name,country,season\n", r"season\.csv: expected the columns"),
        (
            PAIRS_FILE,
            b"s1_name,s2_name,country,season\na,b,c\n",
            r"season\.csv: cannot be read as CSV .*Row #2: Expected 4 columns, got 3: a,b,c",
        ),
        (
            PAIRS_FILE,
            b"s1_name,s2_name,country,season\n" + b"x" * 200_000,
            r"season\.csv: cannot be read as CSV .*Row #2: Expected 4 columns, got 1",
        ),
        ("train.csv", f"{ONE}\0\n".encode(), r"train\.csv:1: expected a Sentinel-2 patch name, found '.*\\x00'"),
        ("val.csv", f"{ONE[:-1]}\u0663".encode(), r"val\.csv:1: expected a Sentinel-2 patch name, found"),
        ("val.csv", f"{ONE}\n".encode("utf-16"), r"val\.csv: cannot be decoded as a UTF-8 list"),
        ("val.csv", f"{ONE}\n".encode("utf-16-le"), r"val\.csv:1: expected a Sentinel-2 patch name, found 'S\\x002"),
        (
            "train.csv",
            f"{ONE}\n{TWO}\n\n{ONE}\n".encode(),
            rf"train\.csv:4: expected .* once, found {ONE} again",
        ),
        (
            PAIRS_FILE,
            _pair(f"S1A,{ONE},Serbia,Fall", f"S1B,{ONE},Kosovo,Fall"),
            rf"season\.csv:3: .*{ONE} again",
        ),
        (PAIRS_FILE, _pair(f"S1A,{ONE},Serbia,Fall", f"S1A,{TWO},Serbia,Fall"), r"season\.csv:3: .* S1A again"),
        (PAIRS_FILE, _pair(f"S1A,{ONE}\0,Serbia,Fall"), r"season\.csv:2: expected a Sentinel-2 patch name, found"),
        (PAIRS_FILE, _pair(f"../S1A,{ONE},Serbia,Fall"), r"season\.csv:2: expected a Sentinel-1 patch name, found"),
        (
            PAIRS_FILE,
            _pair(f"S1A,{ONE},Ser\0bia,Fall"),
            r"season\.csv:2: expected a country and a season, found 'Ser",
        ),
        (PAIRS_FILE, _pair(f"S1A,{ONE},Serbia,\x1b[2J"), r"season\.csv:2: expected a country and a season, found"),
    ],
    ids=range(18),
)
def test_a_list_that_is_not_what_its_name_says_is_refused(
    file: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (make_lists(tmp_path, test=[]) / file).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_lists(tmp_path)


def test_a_packed_list_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    packed = bz2.compress((make_lists(tmp_path) / "train.csv").read_bytes())
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.csv.bz2").write_bytes(packed[:-10])
    with pytest.raises(SourceError, match=r"train\.csv\.bz2: cannot be decoded"):
        read_lists(tmp_path)


def test_a_patch_in_two_splits_is_refused(tmp_path: Path) -> None:
    """Whoever mixes lists of v1.0 and v2.0 would otherwise train on the test set without a word."""
    with pytest.raises(SourceError, match=f"{ONE}.*train.*test|train.*test.*{ONE}"):
        read_lists(make_lists(tmp_path, test=[ONE, TWO]))
