"""Finding patch folders by their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.archive.scan import scan_folder
from bigearthnet.errors import SourceError
from bigearthnet.names import SYNTHETIC_FILE

NAMES = ["S2A_MSIL2A_20170613T101031_87_48", "S2B_MSIL2A_20180204T94161_0_9", "S2B_MSIL2A_20170924T93020_9_90"]


def make_folders(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).mkdir(parents=True)
    return root


def test_patch_folders_are_found_by_name(tmp_path: Path) -> None:
    scan = scan_folder(make_folders(tmp_path, *NAMES))
    assert scan.folder_of == {name: name for name in NAMES}
    assert (scan.root, scan.n_stray, scan.dataset) == (tmp_path, 0, "v1")


@pytest.mark.parametrize("around", ["BigEarthNet-v1.0", "a/b"])
def test_patch_folders_are_found_further_down(around: str, tmp_path: Path) -> None:
    scan = scan_folder(make_folders(tmp_path, *(f"{around}/{name}" for name in NAMES)))
    assert scan.folder_of == {name: f"{around}/{name}" for name in NAMES}
    assert scan.n_stray == 0


def test_folders_are_found_on_several_levels_at_once(tmp_path: Path) -> None:
    make_folders(tmp_path, NAMES[0], f"part 1/{NAMES[1]}", f"part 2/{NAMES[2]}")
    assert set(scan_folder(tmp_path).folder_of.values()) == {NAMES[0], f"part 1/{NAMES[1]}", f"part 2/{NAMES[2]}"}


def test_folders_too_far_down_are_not_searched_for(tmp_path: Path) -> None:
    make_folders(tmp_path, NAMES[0], f"a/b/c/{NAMES[1]}")
    assert list(scan_folder(tmp_path).folder_of) == [NAMES[0]]


@pytest.mark.parametrize("around", ["S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "BigEarthNet-S2/scene"])
def test_v2_patches_are_found_in_their_scenes(around: str, tmp_path: Path) -> None:
    name = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"
    scan = scan_folder(make_folders(tmp_path, f"{around}/{name}"))
    assert (scan.folder_of, scan.dataset) == ({name: f"{around}/{name}"}, "v2")


def test_sentinel_1_patches_do_not_tell_the_version(tmp_path: Path) -> None:
    scan = scan_folder(make_folders(tmp_path, "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"))
    assert scan.dataset is None


@pytest.mark.parametrize("around", ["", "..", "BigEarthNet-v1.0"])
def test_the_note_of_a_sample_is_noticed_and_is_no_stray(around: str, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    make_folders(root, *(f"BigEarthNet-v1.0/{name}" for name in NAMES))
    assert not scan_folder(root).is_synthetic
    (root / around / SYNTHETIC_FILE).touch()
    scan = scan_folder(root)
    assert (scan.is_synthetic, scan.n_stray, len(scan.folder_of)) == (True, 0, len(NAMES))


@pytest.mark.parametrize(
    "other", ["S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"]
)
def test_patches_of_several_kinds_in_one_folder_are_refused(other: str, tmp_path: Path) -> None:
    scan = scan_folder(make_folders(tmp_path, NAMES[0], other))
    with pytest.raises(SourceError, match=f"{tmp_path}: expected patches of one kind, found 1 of .* and 1 of "):
        _ = scan.dataset


def test_hidden_and_stray_entries_are_ignored_but_stray_ones_counted(tmp_path: Path) -> None:
    make_folders(tmp_path, NAMES[0], f".hidden/{NAMES[1]}", "empty", "other/deeper", "__MACOSX")
    for file in (".DS_Store", f"._{NAMES[0]}", "readme.txt", NAMES[2], f"{NAMES[0]}/stray.txt"):
        (tmp_path / file).touch()
    scan = scan_folder(tmp_path)
    assert list(scan.folder_of) == [NAMES[0]]
    assert scan.n_stray == len(["empty", "other", "__MACOSX", "readme.txt", NAMES[2]])


@pytest.mark.parametrize(
    "name",
    [
        "S2A_MSIL2A_20170613T101031_87",
        "S2A_MSIL2A_20170613T101031_87_48_1",
        "S2A_MSIL2A_20170613T101031_187_48",
        "S2A_MSIL2A_20170613T1010_87_48",
        "S2C_MSIL2A_20170613T101031_87_48",
        "S2A_MSIL1C_20170613T101031_87_48",
        "s2a_msil2a_20170613t101031_87_48",
        "S2A_MSIL2A_20170613T101031_87_48 (1)",
        "S2A_MSIL2A_20170613T101031_87_48\n",
    ],
)
def test_what_is_not_quite_a_patch_name_is_stray(name: str, tmp_path: Path) -> None:
    scan = scan_folder(make_folders(tmp_path, NAMES[0], name))
    assert (list(scan.folder_of), scan.n_stray) == ([NAMES[0]], 1)


def test_a_patch_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    make_folders(tmp_path, NAMES[0], f"copy/{NAMES[0]}")
    with pytest.raises(SourceError, match=rf"the patch {NAMES[0]} is there twice, as .*; remove one") as raised:
        scan_folder(tmp_path)
    assert f"copy/{NAMES[0]}" in str(raised.value)


def test_links_are_followed_and_loops_of_them_are_harmless(tmp_path: Path) -> None:
    elsewhere = make_folders(tmp_path / "elsewhere", NAMES[0])
    root = make_folders(tmp_path / "root", NAMES[1])
    (root / NAMES[0]).symlink_to(elsewhere / NAMES[0])
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "broken").symlink_to(root / "nowhere")
    assert set(scan_folder(root).folder_of) == {NAMES[0], NAMES[1]}


def test_patch_folders_are_not_opened_or_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folders(tmp_path, NAMES[0], f"inside/{NAMES[1]}")
    real_scandir, listed = os.scandir, []

    def scandir(path: Any) -> Any:
        listed.append(Path(path).name)
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan_folder(tmp_path)
    assert sorted(listed) == sorted([tmp_path.name, "inside"])


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    told: list[int] = []
    make_folders(tmp_path, *(f"S2A_MSIL2A_20170613T101031_{i // 90}_{i % 90}" for i in range(8_000)))
    make_folders(tmp_path, *(f"S2A_MSIL2A_20170614T101031_{i // 90}_{i % 90}" for i in range(2_500)))
    scan_folder(tmp_path, told.append)
    assert told == [10_000, 10_500]


def test_a_folder_without_patches_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BigEarthNet-v1.0.tar.gz").touch()
    with pytest.raises(
        SourceError,
        match=f"{tmp_path}: expected patch folders such as S2A_MSIL2A_20170613T101031_87_48, .*found 1 other entries",
    ):
        scan_folder(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{tmp_path}/no: expected the archive, extracted or as downloaded"):
        scan_folder(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=f"{tmp_path}/file: expected a folder, found a file; extract the archive"):
        scan_folder(tmp_path / "file")
    with pytest.raises(SourceError, match="cannot be listed: File name too long"):
        scan_folder(tmp_path / ("x" * 300))
