"""The lock of a store on file systems without `flock`, between machines, and after its holder died or was held up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from bigearthnet import lock
from bigearthnet.errors import OutputError
from bigearthnet.lock import Watching, hold_lock
from converter.conversion import convert
from converter.events import Event, Started, ignore
from tests.archives import read_files
from tests.conftest import SmallArchive

ELSEWHERE: Final = {"host": "far", "process": 7, "started": "1", "boot": "another", "processes": "pid:[1]"}
"""What a process on another machine writes into its lease."""

HOLD: Final = """
import sys
from pathlib import Path
from bigearthnet.errors import OutputError
from bigearthnet import lock
lock.BEAT_S, lock.DEAD_S, lock._LOOK_S = 0.05, 1.0, 0.1
folder = Path(sys.argv[1])
def tell(event):
    print("watching", event.holder, flush=True)
try:
    with lock.hold_lock(folder / ".progress", folder, tell):
        print("held", flush=True)
        sys.stdin.read()
except OutputError as error:
    print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    monkeypatch.setattr(lock, "DEAD_S", 1.0)
    monkeypatch.setattr(lock, "_LOOK_S", 0.1)


@pytest.fixture(scope="session")
def without_flock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `flock` fails as it does on Lustre without the mount option of that name."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text("#include <errno.h>\nint flock(int fd, int how) { errno = ENOSYS; return -1; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c"], check=True)
    return {**os.environ, "LD_PRELOAD": str(folder / "shim.so")}


@contextmanager
def hold(folder: Path, environment: dict[str, str] | None = None, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in a process of its own."""
    command = [*before, sys.executable, "-c", HOLD, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process
        process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def plant(folder: Path, number: int = 0) -> Path:
    """Leave the lease of a process elsewhere."""
    (folder / ".progress").mkdir(parents=True, exist_ok=True)
    lease = folder / ".progress" / f"lease.{number}"
    lease.write_text(json.dumps(ELSEWHERE))
    return lease


def test_nothing_is_left_of_a_lock(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "store" / ".progress", tmp_path / "store", ignore):
        assert sorted(path.name for path in (tmp_path / "store/.progress").iterdir()) == ["lease.0", "lock"]
    assert list((tmp_path / "store").iterdir()) == []


def test_a_holder_on_this_machine_keeps_others_out_even_if_it_is_stopped(
    without_flock: dict[str, str], tmp_path: Path
) -> None:
    with hold(tmp_path, without_flock) as first:
        assert read_line(first) == "held"
        first.send_signal(signal.SIGSTOP)
        time.sleep(2)  # longer than a lease lasts
        with hold(tmp_path, without_flock) as second:
            assert f"process {first.pid} on" in read_line(second)
        first.kill()
        first.wait()
        with hold(tmp_path, without_flock) as third:
            assert read_line(third) == "held"  # at once, for it is known to be dead
            assert (tmp_path / ".progress" / "lease.1").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="namespaces need root")
def test_a_holder_of_whom_nothing_is_known_keeps_others_out_until_it_dies(
    without_flock: dict[str, str], tmp_path: Path
) -> None:
    apart = ("unshare", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child")
    with hold(tmp_path, without_flock, *apart) as first:
        assert read_line(first) == "held"
        with hold(tmp_path, without_flock) as second:
            assert read_line(second).startswith("watching process ")
            assert "is writing there" in read_line(second)
        first.kill()
        first.wait()
        with hold(tmp_path, without_flock) as third:
            assert read_line(third).startswith("watching process ")
            assert read_line(third) == "held"


def test_a_dead_lease_from_elsewhere_is_taken_over_and_a_touched_one_is_not(tmp_path: Path) -> None:
    lease = plant(tmp_path)
    events: list[Event] = []
    start = time.monotonic()
    with hold_lock(tmp_path / ".progress", tmp_path, events.append):
        assert time.monotonic() - start >= 1
        assert events == [Watching("process 7 on far", 1.0)]
    lease = plant(tmp_path)

    def touch(_: Event) -> None:
        os.utime(lease, (1, 1))  # an old time: clocks may differ

    with (
        pytest.raises(OutputError, match=f"{tmp_path}: process 7 on far is writing there"),
        hold_lock(tmp_path / ".progress", tmp_path, touch),
    ):
        pass


def test_who_died_while_it_wrote_its_lease_is_followed_at_once(tmp_path: Path) -> None:
    plant(tmp_path).write_bytes(b"")
    events: list[Event] = []
    with hold_lock(tmp_path / ".progress", tmp_path, events.append):
        assert events == []


def read_answer(process: subprocess.Popen[str]) -> str:
    """Read what comes after all leases that a process has watched, of the dead one and of whoever followed."""
    while (line := read_line(process)).startswith("watching"):
        pass
    return line


def test_of_many_that_wait_for_a_dead_lease_one_takes_over(without_flock: dict[str, str], tmp_path: Path) -> None:
    plant(tmp_path, 3)
    running = [hold(tmp_path, without_flock) for _ in range(6)]
    processes = [one.__enter__() for one in running]
    try:
        answers = [read_answer(process) for process in processes]
        assert answers.count("held") == 1
        assert sum("is writing there" in answer for answer in answers) == 5
    finally:
        for one in running:
            one.__exit__(None, None, None)


def test_who_was_held_up_goes_on_no_more(small: SmallArchive, scheduler: str, tmp_path: Path) -> None:
    def overtake(event: Event) -> None:
        if isinstance(event, Started):
            plant(tmp_path / "store", 1)

    with pytest.raises(OutputError, match=f"{tmp_path}/store: this process was held up, and another has gone on"):
        convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler), overtake)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_without_flock_who_could_not_touch_its_lease_goes_on_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HELD_UP_S", 0.5)
    held = lock.Lock(tmp_path, plant(tmp_path), has_flock=False)
    held.check()
    time.sleep(0.6)
    with pytest.raises(OutputError, match="was held up"):
        held.check()


def test_a_store_is_made_without_flock(
    without_flock: dict[str, str], small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    words = [*("convert", small.archive.root, tmp_path / "store", "--lists", small.lists, "--shard-size", 4)]
    command = [sys.executable, "-m", "converter", *map(str, words), "--workers", "1"]
    done = subprocess.run(command, env=without_flock, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_files(tmp_path / "store") == read_files(store)
