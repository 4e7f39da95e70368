"""Conversions of archive files as they are downloaded: the bytes must be those of the folder's store."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.archive import members
from bigearthnet.archive.patch import PatchReader
from bigearthnet.archive.records import Sources
from bigearthnet.bands import S2_GROUPS
from bigearthnet.errors import ClusterError, OptionError, SourceError
from converter import feed
from converter.batch import Batch, BatchJob, PackedFiles, PackedPatch, encode_batch
from converter.conversion import ConvertOptions, convert, plan_conversion
from converter.events import Advanced, Event, Finishing, Ingesting, Planned, Started
from converter.spill import Spill
from converter.verify.verification import Verification, VerifyOptions, verify
from tests.archives import Archive, read_files
from tests.conftest import RunCli, SmallArchive
from tests.forms import Pairs, V2Archive, convert_here, extract_pairs, open_here, write_v2, write_v2_lists
from tests.tarballs import COMPRESSORS, list_files, write_tarball


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    return write_v2(tmp_path_factory.mktemp("v2"))


def check_same(store: Path, expected: Path) -> None:
    assert read_files(store) == read_files(expected)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_an_archive_file_becomes_the_very_store_that_its_folder_becomes(
    suffix: str, small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    raw = write_tarball(tmp_path / f"raw{suffix}", list_files(small.archive.root))
    unnamed = raw.rename(tmp_path / "download")  # known by its content
    summary = convert_here(Sources(unnamed), tmp_path / "store", small.options())
    check_same(tmp_path / "store", store)
    assert (summary.n_patches, summary.n_converted_now, summary.n_rejected) == (22, 22, 0)


def test_workers_in_processes_of_their_own_make_it_too(
    small: SmallArchive, store: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_SLOT_BYTES", 2**18)  # one patch
    raw = write_tarball(tmp_path / "raw.tar.zst", list_files(small.archive.root))
    events: list[Event] = []
    convert(raw, tmp_path / "store", small.options(scheduler=scheduler), events.append)
    check_same(tmp_path / "store", store)
    assert [event.startup_s > 0 for event in events if isinstance(event, Started)] == [True, False], "started once"


@pytest.mark.parametrize("room", [2**26, 2**20, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_members_does_not_matter(
    seed: int, room: int, small: SmallArchive, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of a patch lie anywhere; with little room, most patches are given out in parts."""
    monkeypatch.setattr(members, "_MAX_OPEN_BYTES", room)
    shuffled = list_files(small.archive.root)
    random.Random(seed).shuffle(shuffled)
    raw = write_tarball(tmp_path / "raw.tar", shuffled)
    convert_here(Sources(raw), tmp_path / "store", small.options())
    check_same(tmp_path / "store", store)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("front", ["", "./", "somewhere/else/and/deeper/" + "x" * 120 + "/"])
def test_any_form_of_tar_and_any_folder_in_front_will_do(
    front: str, form: int, small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    files = [(f"{front}{name}", content) for name, content in list_files(small.archive.root)]
    raw = write_tarball(tmp_path / "raw.tar", files, form=form)
    convert_here(Sources(raw), tmp_path / "store", small.options())
    check_same(tmp_path / "store", store)


def test_patches_right_at_the_top_will_do(small: SmallArchive, store: Path, tmp_path: Path) -> None:
    files = [(name.partition("/")[2], content) for name, content in list_files(small.archive.root)]
    convert_here(Sources(write_tarball(tmp_path / "raw.tar", files)), tmp_path / "store", small.options())
    check_same(tmp_path / "store", store)


@pytest.mark.parametrize("archives", ["s2", "s1", "s2 s1"])
def test_pairs_come_from_archives_and_folders_in_any_mixture(archives: str, pairs: Pairs, tmp_path: Path) -> None:
    roots = {"s2": pairs.s2.root, "s1": pairs.s1.root}
    convert_here(pairs.sources, tmp_path / "expected", pairs.options())
    for sensor in archives.split():
        files = list_files(roots[sensor])
        roots[sensor] = write_tarball(tmp_path / f"{sensor}.tar.gz", files[::-1] if sensor == "s1" else files)
    convert_here(Sources(roots["s2"], roots["s1"]), tmp_path / "store", pairs.options())
    check_same(tmp_path / "store", tmp_path / "expected")


def test_sentinel_1_alone_comes_from_an_archive(pairs: Pairs, tmp_path: Path) -> None:
    convert_here(Sources(s1=pairs.s1.root), tmp_path / "expected", pairs.options())
    raw = write_tarball(tmp_path / "s1.tar", list_files(pairs.s1.root))
    convert_here(Sources(s1=raw), tmp_path / "store", pairs.options())
    check_same(tmp_path / "store", tmp_path / "expected")


@pytest.mark.parametrize("bands", ["all", "rgb", "s1"])
def test_all_of_v2_comes_from_archives_with_the_metadata_beside_them(
    bands: str, v2: V2Archive, pairs: Pairs, tmp_path: Path
) -> None:
    lists = write_v2_lists(tmp_path / "lists", v2)
    options = pairs.options(lists=lists, bands=(bands,))
    convert_here(v2.sources, tmp_path / "expected", options)
    raw = [
        write_tarball(tmp_path / name, list_files(folder))
        for name, folder in (("s2.tar.zst", v2.s2), ("s1.tar.zst", v2.s1), ("maps.tar.zst", v2.maps))
    ]
    for path in v2.root.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    convert_here(Sources(*raw), tmp_path / "store", options)
    check_same(tmp_path / "store", tmp_path / "expected")


# -- Bad patches -----------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(pairs: Pairs, tmp_path: Path) -> Pairs:
    """Pairs of which four are bad in a way of their own, one of them in both sensors."""
    copy = pairs.copy(tmp_path / "damaged")
    one, two, three, four, *_ = copy.s2.names
    partner_of = pairs.partner_of
    copy.s2.tif(one, "B05").write_bytes(copy.s2.tif(one, "B05").read_bytes()[:-7])
    copy.s2.note(two).write_text("[]")
    copy.s1.tif(partner_of[two], "VV").unlink()
    note = copy.s1.read_note(partner_of[three])
    moved = {name: value + 1_200 for name, value in note["coordinates"].items()}
    copy.s1.edit_note(partner_of[three], coordinates=moved)
    for path in copy.s1.folder(partner_of[four]).iterdir():
        path.unlink()
    copy.s1.folder(partner_of[four]).rmdir()
    return copy


def pack_pairs(pairs: Pairs, folder: Path) -> Sources:
    return Sources(
        write_tarball(folder / "s2.tar.gz", list_files(pairs.s2.root)),
        write_tarball(folder / "s1.tar.zst", list_files(pairs.s1.root)),
    )


def test_bad_patches_are_left_out_with_the_same_reasons_as_from_folders(damaged: Pairs, tmp_path: Path) -> None:
    options = damaged.options(on_bad="skip", max_bad=1.0)
    convert_here(damaged.sources, tmp_path / "expected", options)
    raw = pack_pairs(damaged, tmp_path)
    summary = convert_here(raw, tmp_path / "store", options)
    assert (summary.n_patches, summary.n_rejected) == (2, 4)
    stores = [read_files(tmp_path / name) for name in ("store", "expected")]
    assert stores[0].keys() == stores[1].keys()
    assert find_differences(*stores) <= {"rejected.parquet", "croissant.json", "manifest.json"}  # both know its hash
    ours, theirs = (read_rejects(tmp_path / name, damaged, raw) for name in ("store", "expected"))
    assert ours == theirs
    assert len(ours) == 4


def find_differences(ours: dict[str, bytes], theirs: dict[str, bytes]) -> set[str]:
    return {name for name in ours if ours[name] != theirs[name]}


def read_rejects(store: Path, pairs: Pairs, raw: Sources) -> list[dict[str, Any]]:
    """Read the list of rejects; the one thing that may differ is what the archive is called."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(store / "rejected.parquet").to_pylist()
    for row in rows:
        row["reason"] = row["reason"].replace(str(raw.s1), "ARCHIVE").replace(str(pairs.s1.root), "ARCHIVE")
    return rows


def test_bad_patches_end_a_run_with_their_list_and_a_mended_archive_goes_on(
    pairs: Pairs, damaged: Pairs, tmp_path: Path
) -> None:
    options = pairs.options(max_bad=1.0)
    with pytest.raises(SourceError, match="4 bad patches, listed in"):
        convert_here(pack_pairs(damaged, tmp_path), tmp_path / "store", options)
    converted: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, Ingesting):
            converted.append(event.n_before)

    convert_here(pack_pairs(pairs, tmp_path), tmp_path / "store", options, count)
    assert converted[-1] == 4 + 3  # Sentinel-2: all but two; Sentinel-1: three are whole and as they were
    convert_here(pairs.sources, tmp_path / "expected", options)
    check_same(tmp_path / "store", tmp_path / "expected")


def test_too_many_bad_patches_end_a_run_even_if_they_may_be_skipped(damaged: Pairs, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="4 bad patches"):
        convert_here(pack_pairs(damaged, tmp_path), tmp_path / "store", damaged.options(on_bad="skip", max_bad=0.5))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "cannot be read: it is a link to '/etc/passwd'; expected the file itself"),
        (tarfile.LNKTYPE, "cannot be read: it is a link to '/etc/passwd'; expected the file itself"),
        (tarfile.CHRTYPE, "cannot be read: expected a regular file, found a member of the kind device"),
        (tarfile.FIFOTYPE, "cannot be read: expected a regular file, found a member of the kind device"),
        (tarfile.GNUTYPE_SPARSE, "cannot be read: expected a regular file, found a member of the kind sparse"),
        ("again", "cannot be read: it is in the archive twice"),
        ("again, far away", "cannot be read: it is in the archive twice"),
        ("large", "cannot be read: expected at most 1,048,576 bytes, found 1,048,577"),
        ("gone", "the file is missing"),
    ],
)
def test_members_that_are_no_whole_files_make_a_bad_patch(
    kind: bytes | str, reason: str, pairs: Pairs, tmp_path: Path
) -> None:
    bad = pairs.s2.names[2]
    files: list[tuple[str, bytes] | tarfile.TarInfo] = list(list_files(pairs.s2.root))
    place = next(i for i, (name, _) in enumerate(list_files(pairs.s2.root)) if name.endswith(f"{bad}_B11.tif"))
    member = files[place]
    assert isinstance(member, tuple)
    name = member[0]
    match kind:
        case "again":
            files.insert(place, member)
        case "again, far away":
            files.append(member)
        case "large":
            files[place] = (name, bytes(2**20 + 1))
        case "gone":
            del files[place]
        case bytes():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            files[place] = info
    raw = write_tarball(tmp_path / "raw.tar", files)
    with pytest.raises(SourceError) as raised:
        convert_here(Sources(raw), tmp_path / "store", pairs.options(max_bad=1.0))
    assert f"1 bad patch, listed in {tmp_path / 'store' / 'rejected.parquet'}:\n  {bad}/{bad}_B11.tif: {reason}" in str(
        raised.value
    )


# -- Bad archives ----------------------------------------------------------------------------------------------------


def refuse(raw: Path, pairs: Pairs, tmp_path: Path, **sources: Path) -> str:
    """Convert what must be refused, and return why; nothing may be written but below the store's `.progress`."""
    before = set(os.listdir(tmp_path))
    with pytest.raises(SourceError) as raised:
        convert_here(Sources(raw, **sources), tmp_path / "store", pairs.options())
    assert set(os.listdir(tmp_path)) <= before | {"store"}
    return str(raised.value)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_an_archive_that_is_cut_short_says_how_much_was_good_and_the_whole_one_goes_on(
    suffix: str, pairs: Pairs, tmp_path: Path
) -> None:
    whole = write_tarball(tmp_path / f"whole{suffix}", list_files(pairs.s2.root)).read_bytes()
    raw = tmp_path / f"raw{suffix}"
    raw.write_bytes(whole[: len(whole) // 2])
    message = refuse(raw, pairs, tmp_path)
    assert f"{raw}: cut short, as by a download that broke off: it ends after" in message
    assert "Before that came 2 whole patches" in message or "Before that came 3 whole patches" in message
    assert f"{len(whole) // 2:,} of its {len(whole) // 2:,} bytes were read" in message
    raw.write_bytes(whole)
    convert_here(Sources(raw), tmp_path / "store", pairs.options())
    convert_here(Sources(pairs.s2.root), tmp_path / "expected", pairs.options())
    check_same(tmp_path / "store", tmp_path / "expected")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
def test_a_flipped_bit_is_noticed_and_no_patch_that_it_changed_stays(suffix: str, pairs: Pairs, tmp_path: Path) -> None:
    """Near the end: in gzip and zstd perhaps only the checksum of the whole tells, after all has been converted."""
    whole = write_tarball(tmp_path / f"whole{suffix}", list_files(pairs.s2.root)).read_bytes()
    convert_here(Sources(pairs.s2.root), tmp_path / "expected", pairs.options())
    for place in (len(whole) // 3, len(whole) - len(whole) // 50, len(whole) - 6):
        raw = tmp_path / f"raw{suffix}"
        raw.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        store = tmp_path / f"store-{place}"
        with pytest.raises(SourceError, match=f"{raw}: (damaged|cut short)"):
            convert_here(Sources(raw), store, pairs.options())
        raw.write_bytes(whole)
        convert_here(Sources(raw), store, pairs.options())
        check_same(store, tmp_path / "expected")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../outside", "BigEarthNet/../../outside", "/"])
def test_members_that_lead_out_of_the_archive_are_refused(path: str, pairs: Pairs, tmp_path: Path) -> None:
    raw = write_tarball(tmp_path / "raw.tar", [*list_files(pairs.s2.root), (path, b"evil")])
    assert f"the member {path!r} leads out of the archive" in refuse(raw, pairs, tmp_path)


def test_what_macos_and_others_leave_between_the_patches_is_passed_by(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    files = []
    for name, content in list_files(small.archive.root):
        folder, _, file = name.rpartition("/")
        files += [(f"{folder}/._{file}", b"\0\5\x16\7" * 20), (name, content)]
    files += [("archive/.DS_Store", b"Bud1"), ("._archive", b"\0"), ("archive/readme.txt", b"one stray file")]
    raw = write_tarball(tmp_path / "raw.tar", files)
    assert plan_conversion(Sources(raw), small.options()).archive.n_stray == 1
    convert_here(Sources(raw), tmp_path / "store", small.options())
    check_same(tmp_path / "store", store)


def test_an_archive_of_something_else_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    raw = write_tarball(tmp_path / "raw.tar.gz", [(f"cats/{i}.png", b"cat") for i in range(3)])
    assert (
        "expected patch folders such as S2A_MSIL2A_20170613T101031_87_48, found 3 other entries and no patch"
        in refuse(raw, pairs, tmp_path)
    )
    inner = tmp_path / "inner.tar"
    write_tarball(inner, [("BigEarthNet-S2.tar.zst", b"anything"), ("readme", b"")])
    assert "It holds the archive 'BigEarthNet-S2.tar.zst': unpack that" in refuse(inner, pairs, tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "nothing"),
        (b"<!DOCTYPE html><title>404</title>", "b'<!DOCTYPE html><'"),
        (b"PK\3\4" + bytes(600), "zip"),
        (b"\xfd7zXZ\0" + bytes(600), "xz"),
        (bytes(range(256)) * 20, "b'\\x00\\x01\\x02"),
        (bytes(20 * 512), "no patch"),
        (b"\x1f\x8b" + bytes(600), "damaged"),
        (COMPRESSORS[".tar.gz"](COMPRESSORS[".tar.gz"](b"twice")), "gzip"),
    ],
)
def test_a_file_that_is_no_tar_is_refused(content: bytes, found: str, pairs: Pairs, tmp_path: Path) -> None:
    raw = tmp_path / "raw.tar"
    raw.write_bytes(content)
    message = refuse(raw, pairs, tmp_path)
    assert str(raw) in message
    assert found in message


def test_archives_that_were_mixed_up_are_refused_before_anything_is_read(pairs: Pairs, tmp_path: Path) -> None:
    s2 = write_tarball(tmp_path / "s2.tar", list_files(pairs.s2.root))
    s1 = write_tarball(tmp_path / "s1.tar", list_files(pairs.s1.root))
    message = refuse(s1, pairs, tmp_path, s1=s2)
    assert f"{s1}: expected patches named like S2A_..., found S1 patches" in message
    both = write_tarball(tmp_path / "both.tar", list_files(pairs.s2.root, pairs.s1.root))
    assert "expected patches of one kind, found S1 (S1" in refuse(both, pairs, tmp_path)
    assert "after 6 of S2 v1; give each an archive of its own" in refuse(both, pairs, tmp_path)


def test_a_patch_in_two_places_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    files = list_files(pairs.s2.root)
    raw = write_tarball(tmp_path / "raw.tar", [*files, *((f"copy/{name}", content) for name, content in files)])
    name, folder = pairs.s2.names[0], pairs.s2.root.name
    assert f"the patch {name} is there twice, as {folder}/{name} and copy/{folder}/{name}" in refuse(
        raw, pairs, tmp_path
    )


def test_two_archives_one_after_another_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    raw = write_tarball(tmp_path / "raw.tar", list_files(pairs.s2.root))
    raw.write_bytes(raw.read_bytes() * 2)
    assert "something follows its end" in refuse(raw, pairs, tmp_path)


def test_the_spill_is_freed_while_shards_are_written(small: SmallArchive, tmp_path: Path) -> None:
    """So the disk never needs to hold the patches twice; here a shard is a patch, and a region holds few."""
    raw = write_tarball(tmp_path / "raw.tar", list_files(small.archive.root))
    spill = tmp_path / "store" / ".progress" / "spill"
    left: list[int] = []
    held: set[str] = set()

    def measure(event: Event) -> None:
        if isinstance(event, Planned | Advanced | Finishing):
            left.append(sum(path.stat().st_size for path in spill.rglob("*") if path.is_file()))
            opened = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
            held.update(file for file in opened if file.startswith(str(spill)) and file.endswith("(deleted)"))

    convert_here(Sources(raw), tmp_path / "store", small.options(shard_size=1), measure)
    assert len(left) == 1 + 22 + 1
    assert left == sorted(left, reverse=True)
    assert left[0] > 2_000_000
    assert left[12] < left[0] * 0.7
    assert left[-1] == 0
    assert not held, "a file that is removed and still open takes as much room"


# -- What else one may do with them ----------------------------------------------------------------------------------


def test_a_dry_run_reads_names_alone_and_says_what_the_spill_takes(
    small: SmallArchive, tmp_path: Path, run_cli: RunCli
) -> None:
    raw = write_tarball(tmp_path / "raw.tar.gz", list_files(small.archive.root))
    expected = run_cli("convert", small.archive.root, tmp_path / "store", "--lists", small.lists, "--dry-run")
    found = run_cli("convert", raw, tmp_path / "store", "--lists", small.lists, "--dry-run")
    lines = [line for line in found.out.splitlines() if not line.startswith("Spill ")]
    assert lines == expected.out.splitlines()
    assert "Spill     about 2.6 MB of encoded patches in STORE/.progress, freed as shards are written" in found.out
    assert not (tmp_path / "store").exists()


def test_standard_input_is_for_one_archive(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="standard input has one archive"):
        Sources(Path("-"), Path("-"))


def test_another_archive_does_not_go_on_what_was_begun_with_one(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    """Until an archive has been read through, whatever is in it may come; patches that it lacks are forgotten."""
    files = list_files(small.archive.root)
    cut = write_tarball(tmp_path / "cut.tar", files)
    cut.write_bytes(cut.read_bytes()[: 512 * 3000])
    with pytest.raises(SourceError, match="cut short"):
        convert_here(Sources(cut), tmp_path / "store", small.options())
    fewer = write_tarball(tmp_path / "fewer.tar", [file for file in files if small.train[0] not in file[0]])
    convert_here(Sources(fewer), tmp_path / "store", small.options())
    raw = Archive(tmp_path / "fewer")
    small.archive.copy(raw.root, [name for name in small.archive.names if name != small.train[0]])
    convert_here(Sources(raw.root), tmp_path / "expected", small.options())
    check_same(tmp_path / "store", tmp_path / "expected")


@pytest.fixture
def verify_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    monkeypatch.setattr("converter.verify.verification.open_cluster", open_here)

    def run(store: Path, raw: Sources, lists: Path, **options: Any) -> Verification:
        return verify(store, VerifyOptions(against=raw, lists=lists, **options))

    return run


def test_a_store_is_verified_against_archive_files_in_one_pass(
    damaged: Pairs, pairs: Pairs, tmp_path: Path, verify_here: Callable[..., Verification]
) -> None:
    """Faults are those that the folders give, whichever sensor they are in."""
    convert_here(pairs.sources, tmp_path / "store", pairs.options())
    good = verify_here(tmp_path / "store", pack_pairs(pairs, tmp_path), pairs.lists)
    assert (good.faults, good.n_compared) == ([], 6)
    pixels = damaged.s2.tif(damaged.s2.names[4], "B11")
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"\x7f")
    raw = pack_pairs(damaged, tmp_path)
    found = [verify_here(tmp_path / "store", sources, pairs.lists) for sources in (raw, damaged.sources)]
    faults = [{(fault.where, fault.patch_id) for fault in verification.faults} for verification in found]
    one, two, three, four, five, _ = pairs.s2.names
    assert faults[1] == {("archive", name) for name in (one, two, three, four)} | {("s2_20m", five)}
    assert faults[0] == faults[1]


def test_all_of_v2_is_verified_against_archive_files_and_folders(
    v2: V2Archive, tmp_path: Path, verify_here: Callable[..., Verification]
) -> None:
    lists = write_v2_lists(tmp_path / "lists", v2)
    convert_here(v2.sources, tmp_path / "store", ConvertOptions(lists=lists, shard_size=4))
    maps = write_tarball(tmp_path / "maps.tar.zst", list_files(v2.maps))
    found = verify_here(tmp_path / "store", Sources(v2.s2, v2.s1, maps), lists)
    assert (found.faults, found.n_compared) == ([], 9)
    row = v2.rows[3]["patch_id"]
    copy = v2.copy(tmp_path / "copy")
    copy.rewrite(row, "reference_map", copy.read_array(row, "reference_map") + 1)
    maps = write_tarball(tmp_path / "maps.tar.zst", list_files(copy.maps))
    found = verify_here(tmp_path / "store", Sources(v2.s2, v2.s1, maps), lists)
    assert [(fault.where, fault.patch_id) for fault in found.faults] == [("reference_map", row)]


def test_only_a_sample_is_compared_if_asked_and_what_is_missing_is_named(
    small: SmallArchive, store: Path, tmp_path: Path, verify_here: Callable[..., Verification]
) -> None:
    gone = small.test[1]
    files = [file for file in list_files(small.archive.root) if gone not in file[0]]
    raw = Sources(write_tarball(tmp_path / "raw.tar", [*files, files[3]]))
    found = verify_here(store, raw, small.lists)
    assert found.n_compared == 21
    assert {(fault.patch_id, fault.what.partition(" ")[2]) for fault in found.faults} == {
        (gone, "patch is in the store and not in the archive"),
        (files[3][0].split("/")[1], "is in it twice"),
    }
    assert verify_here(store, raw, small.lists, sample=5).n_compared == 5


@pytest.mark.parametrize("memory", ["/proc/self/fd/0", "/proc/999999999/fd/3"])
def test_a_worker_on_another_machine_says_so(memory: str, tmp_path: Path) -> None:
    """There, the path leads nowhere, or to something else."""
    reader = PatchReader({}, "v1", S2_GROUPS)
    patch = PackedPatch("S2A_MSIL2A_20170613T101031_87_48", "0-00", PackedFiles(0, {"one.tif": 9}, {}), is_whole=True)
    job = BatchJob(reader, "lz4", Spill(str(tmp_path), "0123456789abcdef"))
    with pytest.raises(ClusterError, match="both must be on one machine: leave out the option scheduler, or unpack"):
        encode_batch(job, Batch("s2", memory, 0, (patch,)))
