"""Disks that are full, read-only or forbidden: one clear error, and once that is mended the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bigearthnet.archive.records import Sources
from converter.verify.verification import VerifyOptions, verify
from tests.archives import Archive, read_files
from tests.conftest import SmallArchive
from tests.faults.conftest import N_PATCHES, Start, find_finished_shards, find_receipts

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

AS_ROOT = os.geteuid() == 0


@contextmanager
def mount_tmpfs(folder: Path, n_bytes: int) -> Iterator[Path]:
    """Mount a small disk; skips where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def fill(path: Path, n_free: int) -> None:
    """Write a file that leaves so much room."""
    path.write_bytes(b"x" * (shutil.disk_usage(path.parent).free - n_free))


def check_kept_and_go_on(start: Start, store: Path, expected: dict[str, bytes]) -> None:
    before = find_finished_shards(store)
    ended = start(store).end()
    assert ended.code == 0, ended.err
    assert read_files(store) == expected
    assert {name: ((store / name).stat().st_ino, (store / name).stat().st_mtime_ns) for name in before} == before


def test_a_disk_that_fills_up_during_the_shards(start: Start, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Something else takes the room that was there when the run began."""
    with mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        running = start(disk / "store")
        assert running.wait_for_file(".progress/plan.json")
        fill(disk / "big", 1_000_000)
        error = running.end().error
        assert "cannot be written: No space left on device. What is finished is kept: make room" in error
        n_kept = len(find_receipts(disk / "store"))
        assert 0 < n_kept < N_PATCHES
        assert not list((disk / "store").rglob("*.tmp"))
        (disk / "big").unlink()
        check_kept_and_go_on(start, disk / "store", expected)


@pytest.mark.parametrize("n_free", [0, 16_384, 65_536])
def test_a_disk_that_fills_up_during_the_finish(
    start: Start, expected: dict[str, bytes], tmp_path: Path, n_free: int
) -> None:
    with mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        running = start(disk / "store")
        assert running.wait_for_receipts(N_PATCHES)
        running.signal(signal.SIGSTOP)
        fill(disk / "big", n_free)
        running.signal(signal.SIGCONT)
        error = running.end().error
        assert "cannot be written: No space left on device" in error
        assert "What is finished is kept: make room" in error
        assert not (disk / "store" / "manifest.json").exists()
        (disk / "big").unlink()
        check_kept_and_go_on(start, disk / "store", expected)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(start: Start, tmp_path: Path) -> None:
    with mount_tmpfs(tmp_path / "disk", 1_000_000) as disk:
        assert " free; make room, or try the codec zstd" in start(disk / "store").end().error
        assert not (disk / "store" / "images.zarr").exists()


def test_a_limit_on_the_size_of_files(start: Start, expected: dict[str, bytes], tmp_path: Path) -> None:
    """As `ulimit -f` or a quota sets it; the 60 m shards still fit, the 10 m ones do not."""
    limited = start(tmp_path / "store", prefix=("prlimit", "--fsize=20000")).end()
    assert "cannot be written: File too large. What is finished is kept" in limited.error
    assert find_receipts(tmp_path / "store") == []
    check_kept_and_go_on(start, tmp_path / "store", expected)


def test_a_target_that_is_read_only(start: Start, expected: dict[str, bytes], tmp_path: Path) -> None:
    with mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        remount(disk, "ro")
        error = start(disk / "store").end().error
        assert f"{disk / 'store'}: cannot be written: Read-only file system" in error
        remount(disk, "rw")
        running = start(disk / "store")
        assert running.wait_for_receipts(1)
        running.signal()
        running.end()
        remount(disk, "ro")
        assert "cannot be written: Read-only file system" in start(disk / "store").end().error
        remount(disk, "rw")
        check_kept_and_go_on(start, disk / "store", expected)


# Root may do anything, unless these two capabilities are taken from it.
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if AS_ROOT else ()


@pytest.fixture
def raw(small: SmallArchive, tmp_path: Path) -> Archive:
    return small.archive.copy(tmp_path / "raw")


@pytest.mark.skipif(AS_ROOT and shutil.which("setpriv") is None, reason="root is never refused, and cannot be made to")
def test_permission_denied_on_one_patch_folder_and_one_file(
    start: Start, small: SmallArchive, raw: Archive, expected: dict[str, bytes], tmp_path: Path
) -> None:
    closed, *_, other = small.train
    raw.folder(closed).chmod(0)
    raw.tif(other, "B05").chmod(0)
    store = tmp_path / "store"
    try:
        error = start(store, "--max-bad", "1", raw=raw.root, prefix=WITHOUT_PRIVILEGE).end().error
        assert error.startswith("2 bad patches")
        assert f"{closed}/{closed}_labels_metadata.json: cannot be read: Permission denied" in error
        assert f"{other}/{other}_B05.tif: cannot be read: Permission denied" in error
        assert len(find_receipts(store)) == N_PATCHES - 2
    finally:
        raw.folder(closed).chmod(0o755)
        raw.tif(other, "B05").chmod(0o644)
    before = find_finished_shards(store)
    assert start(store, "--max-bad", "1", raw=raw.root, prefix=WITHOUT_PRIVILEGE).end().code == 0
    assert read_files(store) == expected
    assert {name: (store / name).stat().st_ino for name in before} == {name: ino for name, (ino, _) in before.items()}


@pytest.mark.skipif(AS_ROOT and shutil.which("setpriv") is None, reason="root is never refused, and cannot be made to")
@pytest.mark.parametrize("what", ["archive", "store", "folder of the store", "folder of the archive"])
def test_permission_denied_on_the_whole(start: Start, raw: Archive, tmp_path: Path, what: str) -> None:
    around = tmp_path / "around"
    around.mkdir()
    archive, store = around / "raw", around / "store"
    raw.root.rename(archive)
    store.mkdir()
    closed = {"archive": archive, "store": store}.get(what, around)
    target = store if "store" in what else tmp_path / "store"
    source = tmp_path / "raw" if "store" in what else archive
    if "store" in what:
        archive.rename(source)
    closed.chmod(0)
    try:
        ended = start(target, raw=source, prefix=WITHOUT_PRIVILEGE).end()
    finally:
        closed.chmod(0o755)
    ended.check_quiet()
    if closed is around:
        assert "Permission denied" in ended.error
        assert str(target if "store" in what else source) in ended.error
    else:  # the command line looks at its arguments itself
        assert ended.code == 2
        assert f"'{closed}' is not readable" in ended.err


def test_rejects_across_all_splits_leave_a_dense_store_that_reconciles(
    start: Start, small: SmallArchive, raw: Archive, tmp_path: Path
) -> None:
    """Bad patches in every part, killed after they are known: the same store, and every row where it belongs."""
    bad = [*small.train[:3], small.validation[-1], small.test[0], *small.others[:2]]
    for number, name in enumerate(bad):
        raw.tif(name, "B02").write_bytes(b"II*\0" * (number + 1))
    options = ("--on-bad", "skip", "--max-bad", "0.5")
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    assert start(undisturbed, *options, raw=raw.root).end().code == 0
    running = start(store, *options, raw=raw.root)
    assert running.wait_for_receipts(N_PATCHES - len(bad) - 2)
    running.signal(group=True)
    running.end()
    assert start(store, *options, raw=raw.root).end().code == 0
    assert read_files(store) == read_files(undisturbed)
    table = pq.read_table(store / "patches.parquet").to_pylist()
    assert [row["index"] for row in table] == list(range(N_PATCHES - len(bad)))
    assert {row["patch_id"] for row in table} == set(small.names) - set(bad)
    rejected = pq.read_table(store / "rejected.parquet").to_pylist()
    assert sorted(row["patch_id"] for row in rejected) == sorted(bad)
    assert all("that cannot be read as one" in row["reason"] for row in rejected)
    found = verify(store, VerifyOptions(against=Sources(raw.root), lists=small.lists, workers=1))
    assert (found.faults, found.n_compared) == ([], N_PATCHES - len(bad))
