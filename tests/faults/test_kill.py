"""Whatever is killed, the same command goes on: shards that were finished stay as they are, and the end is the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from bigearthnet.errors import OutputError
from converter.conversion import convert
from tests.archives import read_files
from tests.conftest import SmallArchive
from tests.faults.conftest import N_PATCHES, Running, Start, find_finished_shards, find_receipts

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def finish(start: Start, store: Path, expected: dict[str, bytes]) -> None:
    """Give the same command again and check what it made of what was left."""
    before = find_finished_shards(store)
    ended = start(store).end()
    assert ended.code == 0, ended.err
    ended.check_quiet()
    assert read_files(store) == expected
    after = {name: ((store / name).stat().st_ino, (store / name).stat().st_mtime_ns) for name in before}
    assert after == before


@pytest.mark.parametrize("whom", ["main process", "process group"])
@pytest.mark.parametrize("seed", [0])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(
    start: Start, expected: dict[str, bytes], tmp_path: Path, whom: str, seed: int
) -> None:
    """Every run is killed after a random number of further shards, until the end is near."""
    moments = random.Random(f"{whom} {seed}")
    store = tmp_path / "store"
    n_kills = 0
    while len(find_receipts(store)) < N_PATCHES - 5 and not (store / "manifest.json").exists():
        before = find_finished_shards(store)
        running = start(store)
        if running.wait_for_receipts(len(before) // 3 + moments.randint(2, 8)):
            time.sleep(moments.uniform(0, 0.02))
            running.signal(group=whom == "process group")
        ended = running.end()
        assert ended.code in (-signal.SIGKILL, 0)
        ended.check_quiet()
        n_kills += ended.code != 0
        kept = find_finished_shards(store)
        if not (store / "manifest.json").exists():
            assert {name: kept[name] for name in before} == before
    assert n_kills
    if not (store / "manifest.json").exists():
        finish(start, store, expected)
    assert read_files(store) == expected


@pytest.mark.parametrize("moment", [".progress/lock", "images.zarr/patch_id", "images.zarr/zarr.json"])
def test_killed_at_a_moment_it_goes_on_to_the_same_bytes(
    start: Start, expected: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    running = start(tmp_path / "store")
    assert running.wait_for_file(moment)
    running.signal()
    assert running.end().code == -signal.SIGKILL
    assert not (tmp_path / "store" / "manifest.json").exists()
    finish(start, tmp_path / "store", expected)


DIE = """
import os, signal, sys
n_steps, last = 0, int(os.environ["DIE_AT"])
def count(event, args):
    global n_steps
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and os.environ["STORE"] in str(args[0]):
        n_steps += 1
        if n_steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
from converter.__main__ import main
sys.argv[0] = "converter"
sys.addaudithook(count)
try:
    main()
finally:
    print("steps", n_steps, file=sys.stderr)
"""


def test_killed_at_any_step_of_the_finish_it_ends_in_the_same_bytes(
    small: SmallArchive, reference: Path, start: Start, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The process kills itself at the n-th time it opens, makes, renames or removes something in the store."""
    whole = tmp_path / "whole"
    running = start(whole)
    assert running.wait_for_file("images.zarr/zarr.json")
    running.signal()
    running.end()
    assert len(find_receipts(whole)) == N_PATCHES
    counted = die_at(0, small, small.archive.root, shutil.copytree(whole, tmp_path / "counted"))
    n_steps = int(counted.stderr.split()[-1])
    assert n_steps > 60
    codes = []
    for step in sorted({*range(1, n_steps, n_steps // 8), *range(n_steps - 4, n_steps + 1)}):
        store = Path(shutil.copytree(whole, tmp_path / str(step)))
        codes.append(die_at(step, small, small.archive.root, store).returncode)
        finished = (store / "manifest.json").exists()
        if finished and not (store / ".progress").exists():
            assert read_files(store) == expected
            continue
        # Nothing is left to convert, so no cluster is started.
        with pytest.raises(OutputError, match="a finished store is already there") if finished else nullcontext():
            convert(small.archive.root, store, small.options(shard_size=1, workers=1))
        assert read_files(store) == expected, step
        shutil.rmtree(store)
    assert set(codes) == {-signal.SIGKILL}


def die_at(step: int, small: SmallArchive, raw: Path, store: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DIE, "convert", raw, store, "--lists", small.lists]
    return subprocess.run(
        [*map(str, command), "--shard-size", "1", "--workers", "1"],
        capture_output=True,
        text=True,
        env=os.environ | {"DIE_AT": str(step), "STORE": str(store)},
        timeout=120,
        check=False,
    )


def test_a_worker_killed_in_the_middle_of_a_shard_is_replaced(start: Start, store: Path, tmp_path: Path) -> None:
    """With the default of 4 patches a shard as in the fixture, read slowly so that the kill comes in the middle."""
    running = start(tmp_path / "store", "--reader", "rasterio", shard_size=4, workers=1)
    for n_done in (1, 2):
        assert running.wait_for_receipts(n_done)
        time.sleep(0.01)
        (worker,) = running.find_workers()
        worker.kill()
        worker.wait(20)
    ended = running.end()
    assert ended.code == 0, ended.err
    ended.check_quiet()
    assert read_files(tmp_path / "store") == read_files(store)


def test_a_worker_that_stands_still_holds_nothing_up_for_ever_once_it_is_killed(
    start: Start, expected: dict[str, bytes], tmp_path: Path
) -> None:
    running = start(tmp_path / "store")
    assert running.wait_for_receipts(2)
    worker, *_ = running.find_workers()
    worker.suspend()
    time.sleep(0.5)
    worker.kill()
    assert running.end().code == 0
    assert read_files(tmp_path / "store") == expected


# -- Interruption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["start of the workers", "conversion", "one large shard", "finish"])
def test_ctrl_c_ends_within_seconds_with_one_clear_message(
    start: Start, small: SmallArchive, expected: dict[str, bytes], tmp_path: Path, moment: str
) -> None:
    """A terminal sends SIGINT to the whole foreground process group, workers included."""
    store = tmp_path / "store"
    large = moment == "one large shard"
    running = start(store, *(("--reader", "rasterio") if large else ()), shard_size=22 if large else 1)
    if moment == "start of the workers":
        running.wait_for_file(".progress/plan.json")
        time.sleep(0.2)
    elif large:
        running.wait_for_text("dashboard")
        time.sleep(0.3)
    elif moment == "finish":
        running.wait_for_file("images.zarr/patch_id")
    else:
        running.wait_for_receipts(3)
    running.signal(signal.SIGINT, group=True)
    ended = running.end()
    assert ended.code == 130, ended.err
    ended.check_quiet()
    assert ended.err.endswith("Interrupted. What is finished is kept: run the same command again to go on.\n")
    assert ended.seconds < 15  # 1 to 3 s on an idle machine
    if not large:
        finish(start, store, expected)


def test_ctrl_c_that_is_ignored_changes_nothing(start: Start, expected: dict[str, bytes], tmp_path: Path) -> None:
    """So `nohup` in some shells, and jobs in the background of a script, are started."""
    running = start(tmp_path / "store", prefix=("sh", "-c", 'trap "" INT; exec "$@"', "sh"))
    assert running.wait_for_file(".progress/lock")
    while running.process.poll() is None:
        running.signal(signal.SIGINT)
        time.sleep(0.02)
    ended = running.end()
    assert ended.code == 0, ended.err
    ended.check_quiet()
    assert read_files(tmp_path / "store") == expected


def test_sigterm_ends_at_once_and_can_be_resumed(start: Start, expected: dict[str, bytes], tmp_path: Path) -> None:
    """What a batch system sends when the time of a job is up, to every process of it."""
    running = start(tmp_path / "store")
    running.wait_for_receipts(3)
    running.signal(signal.SIGTERM, group=True)
    ended = running.end()
    assert ended.code in (-signal.SIGTERM, 143)
    assert ended.seconds < 15
    ended.check_quiet()
    finish(start, tmp_path / "store", expected)


# -- A cluster of somebody else --------------------------------------------------------------------------------------


@contextmanager
def run_scheduler(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a scheduler and a worker by their command lines; yields the scheduler's process and address."""
    file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    scheduler = start_dask("scheduler", "--port", "0", "--scheduler-file", file, *options)
    worker = start_dask("worker", "--scheduler-file", file, "--nthreads", "1", *options)
    try:
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text().endswith("}")):
            assert time.monotonic() < end
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
        yield scheduler, address
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait(30)


def start_dask(what: str, *options: str | Path) -> subprocess.Popen[str]:
    module = f"distributed.cli.dask_{what}"
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_scheduler_that_goes_away_is_one_clear_error_and_the_same_command_goes_on_without_it(
    start: Start, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with run_scheduler(tmp_path) as (scheduler, address):
        running = start(tmp_path / "store", "--scheduler", address, workers=None)
        assert running.wait_for_receipts(2)
        scheduler.kill()
        ended = running.end()
        assert ended.error.startswith(f"{address}: the connection to the dask scheduler was lost. What is finished is")
        assert ended.seconds < 20
    assert not (tmp_path / "store" / "manifest.json").exists()
    finish(start, tmp_path / "store", expected)


# -- Two at once -----------------------------------------------------------------------------------------------------


def test_a_second_converter_is_refused_while_the_first_lives_and_not_after(
    start: Start, expected: dict[str, bytes], tmp_path: Path
) -> None:
    first: Running = start(tmp_path / "store")
    assert first.wait_for_receipts(1)
    first.signal(signal.SIGSTOP)  # alive, however long the second takes
    try:
        for options in ((), ("--overwrite",)):
            second = start(tmp_path / "store", *options).end()
            assert f"process {first.process.pid} on " in second.error
            assert "is writing there; wait for it to end" in second.error
    finally:
        first.signal(signal.SIGCONT)
    first.signal()
    first.end()
    assert (tmp_path / "store" / ".progress" / "lock").exists()
    finish(start, tmp_path / "store", expected)
