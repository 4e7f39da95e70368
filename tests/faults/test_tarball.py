"""Conversions of archive files that are killed, starved and deceived: they go on without converting anything again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.spill import Spill, list_regions, read_region
from tests.archives import read_files
from tests.conftest import SmallArchive
from tests.faults.conftest import N_PATCHES, Running, Start, find_finished_shards, find_receipts
from tests.faults.test_disk import fill, mount_tmpfs
from tests.faults.test_kill import die_at
from tests.tarballs import list_files, make_tar, write_tarball

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SMALL_BATCHES = """
import sys
from converter import feed
feed._SLOT_BYTES = 2**18  # one patch
from converter.__main__ import main
sys.argv[0] = "converter"
main()
"""


@pytest.fixture(scope="session")
def raw(small: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tarball(tmp_path_factory.mktemp("raw") / "raw.tar.gz", list_files(small.archive.root))


def list_spilled(store: Path) -> dict[str, tuple[str, int]]:
    """Return file and offset of the last record of each patch that waits."""
    spill = Spill(str(store / ".progress" / "spill"), "")
    records = [
        (name, (patch.path, patch.offset))
        for region in list_regions(spill)
        for name, patches in read_region(spill, region, "s2").items()
        for patch in patches
    ]
    return dict(records)


def wait_for_records(running: Running, n: int) -> bool:
    return running.wait_for(lambda: len(list_spilled(running.store)) >= n)


@dataclass
class Piped:
    """A conversion that reads a pipe, and the pipe."""

    running: Running
    pipe: int

    def write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self.pipe, content) :]


@pytest.fixture
def start_piped(small: SmallArchive, tmp_path: Path) -> Callable[[Path], Piped]:
    """Start converting an archive that comes on standard input, one patch a shard and a batch."""

    def run(store: Path) -> Piped:
        err = tmp_path / f"stderr-{time.monotonic_ns()}"
        command = [sys.executable, "-c", SMALL_BATCHES, "convert", "-", store, "--workers", "2"]
        reader, writer = os.pipe()
        with err.open("w") as stderr:
            process = subprocess.Popen(
                [*map(str, command), "--lists", str(small.lists), "--shard-size", "1"],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )
        os.close(reader)
        return Piped(Running(process, store, err), writer)

    return run


@pytest.mark.parametrize("whom", ["main process", "process group"])
def test_killed_while_it_reads_a_pipe_it_goes_on_when_the_same_stream_is_piped_again(
    small: SmallArchive, start_piped: Callable[[Path], Piped], expected: dict[str, bytes], tmp_path: Path, whom: str
) -> None:
    """Killed after more and more of the archive; no record that was there is made again, moved or lost."""
    files = list_files(small.archive.root)
    store = tmp_path / "store"
    before: dict[str, tuple[str, int]] = {}
    for n_sent in (7, 13, 19):
        content = make_tar(files[: n_sent * 13])
        piped = start_piped(store)
        piped.write(content.rstrip(b"\0") + bytes(1024))
        assert wait_for_records(piped.running, n_sent - 4)
        time.sleep(random.Random(n_sent).uniform(0, 0.02))
        piped.running.signal(group=whom == "process group")
        ended = piped.running.end()
        os.close(piped.pipe)
        assert ended.code == -signal.SIGKILL
        ended.check_quiet()
        assert list_spilled(store).items() >= before.items()
        before = list_spilled(store)
    piped = start_piped(store)
    piped.write(make_tar(files))
    os.close(piped.pipe)
    seen = [list_spilled(store)]

    def watch() -> bool:
        if not (store / ".progress" / "ingested.json").exists():
            seen.append(list_spilled(store))
            return False
        return True

    piped.running.wait_for(watch)
    ended = piped.running.end()
    assert ended.code == 0, ended.err
    ended.check_quiet()
    assert seen[-1].items() >= before.items()
    assert read_files(store) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(
    start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    """While it reads, checks, and puts shards together; every run gets a little further."""
    moments = random.Random(seed)
    store = tmp_path / "store"
    n_kills = 0
    for n_receipts in (0, 0, 3, 9, 15):
        before = find_finished_shards(store)
        running = start(store, raw=raw, python=("-c", SMALL_BATCHES))
        if n_receipts == 0:
            running.wait_for(lambda: list_spilled(store))
        else:
            running.wait_for_receipts(n_receipts)
        time.sleep(moments.uniform(0, 0.1))
        running.signal(group=moments.random() < 0.5)
        ended = running.end()
        assert ended.code in (-signal.SIGKILL, 0)
        n_kills += ended.code != 0
        ended.check_quiet()
        if ended.code == 0:
            break
        after = find_finished_shards(store)
        assert {name: after[name] for name in before} == before
    assert n_kills >= 3
    if not (store / "manifest.json").exists():
        assert start(store, raw=raw).end().code == 0
    assert read_files(store) == expected


def test_killed_at_any_step_after_the_archive_was_read_it_ends_in_the_same_bytes_without_the_archive(
    small: SmallArchive, start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The archive itself is gone, to show that it is not read again."""
    gone = Path(shutil.copy(raw, tmp_path / "gone.tar.gz"))
    whole = tmp_path / "whole"
    running = start(whole, raw=gone)
    assert running.wait_for_file(".progress/ingested.json")
    running.signal()
    running.end()
    gone.write_bytes(b"")
    counted = die_at(0, small, gone, shutil.copytree(whole, tmp_path / "counted"))
    assert counted.returncode == 0, counted.stderr
    n_steps = int(counted.stderr.split()[-1])
    for step in (1, n_steps // 3, n_steps // 2, n_steps - 2):
        store = Path(shutil.copytree(whole, tmp_path / str(step)))
        assert die_at(step, small, gone, store).returncode == -signal.SIGKILL
        if (store / ".progress").exists():
            is_finished = (store / "manifest.json").exists()
            if is_finished:  # and not tidied up: that it is finished is said once the archive has been opened
                shutil.copy(raw, gone)
            ended = start(store, raw=gone).end()
            assert "a finished store is already there" in ended.error if is_finished else ended.code == 0
            gone.write_bytes(b"")
        assert read_files(store) == expected, step
        shutil.rmtree(store)


def test_a_worker_killed_in_the_middle_of_a_batch_is_replaced(
    start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    running = start(tmp_path / "store", "--reader", "rasterio", raw=raw, workers=1, python=("-c", SMALL_BATCHES))
    for n_done in (2, 6):
        assert wait_for_records(running, n_done)
        (worker,) = running.find_workers()
        worker.kill()
        worker.wait(20)
    ended = running.end()
    assert ended.code == 0, ended.err
    ended.check_quiet()
    assert read_files(tmp_path / "store") == expected


def test_ctrl_c_while_an_archive_is_read_ends_with_one_clear_message(
    small: SmallArchive, start_piped: Callable[[Path], Piped], tmp_path: Path
) -> None:
    """The pipe stands still, as that of a slow download does."""
    piped = start_piped(tmp_path / "store")
    piped.write(make_tar(list_files(small.archive.root)[: 5 * 13 + 4]).rstrip(b"\0"))
    assert wait_for_records(piped.running, 2)
    piped.running.signal(signal.SIGINT, group=True)
    ended = piped.running.end()
    os.close(piped.pipe)
    assert ended.code == 130, ended.err
    ended.check_quiet()
    assert ended.err.endswith("Interrupted. What is finished is kept: run the same command again to go on.\n")
    assert len(list_spilled(tmp_path / "store")) < N_PATCHES


def test_a_pipe_that_breaks_off_is_one_clear_error(
    small: SmallArchive, start_piped: Callable[[Path], Piped], tmp_path: Path
) -> None:
    content = make_tar(list_files(small.archive.root))
    piped = start_piped(tmp_path / "store")
    piped.write(content[: len(content) // 2])
    os.close(piped.pipe)
    error = piped.running.end().error
    assert error.startswith("standard input: cut short, as by a download that broke off")
    assert "Before that came 10 whole patches" in error or "Before that came 11 whole patches" in error


def test_a_record_of_what_was_read_that_is_not_whole_counts_for_nothing(
    start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    running = start(store, raw=raw)
    assert running.wait_for_receipts(3)
    running.signal()
    running.end()
    record = store / ".progress" / "ingested.json"
    record.write_bytes(record.read_bytes()[:-20])
    assert start(store, raw=raw).end().code == 0
    assert read_files(store) == expected


@pytest.mark.parametrize("lie", ["cut", "bit in the pixels", "bit in the description", "gone"])
def test_spilled_patches_that_are_not_true_are_noticed(
    lie: str, start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """What is not true is removed, and the same command makes it again."""
    store = tmp_path / "store"
    running = start(store, raw=raw)
    assert running.wait_for_file(".progress/ingested.json")
    running.signal()
    running.end()
    assert len(find_receipts(store)) < N_PATCHES
    path, offset = next(iter(list_spilled(store).values()))
    content = bytearray(Path(path).read_bytes())
    match lie:
        case "cut":
            content = content[:-1]
        case "bit in the pixels":
            content[offset + 50] ^= 1
        case "bit in the description":
            content[offset - 5] ^= 1
    Path(path).write_bytes(content) if lie != "gone" else Path(path).unlink()
    error = start(store, raw=raw).end().error
    assert "was encoded, and is" in error
    assert "It was removed: run the same command again" in error
    ended = start(store, raw=raw).end()
    assert ended.code == 0, ended.err
    assert read_files(store) == expected


def test_a_disk_that_fills_up_while_an_archive_is_read_keeps_what_is_encoded(
    start: Start, raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with mount_tmpfs(tmp_path / "disk", 16_000_000) as disk:
        store = disk / "store"
        running = start(store, raw=raw, python=("-c", SMALL_BATCHES))
        assert running.wait_for_file(".progress/plan.json")
        fill(disk / "big", 1_000_000)
        error = running.end().error
        assert "cannot be written: No space left on device. What is finished is kept: make room" in error
        before = list_spilled(store)
        assert 0 < len(before) < N_PATCHES
        (disk / "big").unlink()
        running = start(store, raw=raw)
        running.wait_for_file(".progress/ingested.json")
        running.signal(signal.SIGSTOP)
        kept = list_spilled(store)
        running.signal(signal.SIGCONT)
        assert running.end().code == 0
        assert {name: place for name, place in before.items() if name in kept}.items() <= kept.items()
        assert read_files(store) == expected
