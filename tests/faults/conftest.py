"""Conversions as users run them: processes of their own that can be killed, and the store they must end in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from converter.conversion import convert
from tests.archives import read_files
from tests.conftest import SmallArchive

N_PATCHES = 22

NOISE = (
    "Traceback",
    "distributed.",
    "asyncio",
    "tornado",
    "UserWarning",
    "resource_tracker",
    "Exception ignored",
    "CPLE",
)
"""What no user should have to read."""


@dataclass
class Running:
    """A conversion that runs in a process group of its own, as a shell would start it."""

    process: subprocess.Popen[str]
    store: Path
    err: Path

    def wait_for(self, seen: Callable[[], object], timeout_s: float = 60) -> bool:
        """Wait until something is seen; False if the process ended first."""
        end = time.monotonic() + timeout_s
        while not seen():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, self.err.read_text()
            time.sleep(0.001)
        return True

    def wait_for_receipts(self, n: int = 1) -> bool:
        return self.wait_for(lambda: len(find_receipts(self.store)) >= n)

    def wait_for_file(self, name: str) -> bool:
        return self.wait_for((self.store / name).exists)

    def wait_for_text(self, text: str) -> bool:
        return self.wait_for(lambda: text in self.err.read_text())

    def find_workers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def signal(self, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self, timeout_s: float = 60) -> Ended:
        """Wait for the end, and for that of the workers."""
        workers = self.find_workers() if self.process.poll() is None else []
        start = time.monotonic()
        code = self.process.wait(timeout_s)
        seconds = time.monotonic() - start
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive
        return Ended(code, self.err.read_text(), seconds)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    err: str
    seconds: float

    @property
    def error(self) -> str:
        """The one error message, on one line."""
        assert self.code == 1, self
        self.check_quiet()
        _, *messages = self.err.split("Error: ")
        assert len(messages) == 1, self.err
        return " ".join(messages[0].split())

    def check_quiet(self) -> None:
        assert not [noise for noise in NOISE if noise in self.err], self.err


Start = Callable[..., Running]


@pytest.fixture
def start(small: SmallArchive, tmp_path: Path) -> Start:
    """Start converting the small archive, one patch a shard."""

    def run(
        store: Path,
        *options: str | Path,
        raw: Path | None = None,
        workers: int | None = 2,
        shard_size: int = 1,
        prefix: Sequence[str] = (),
        python: Sequence[str] = ("-m", "converter"),
    ) -> Running:
        err = tmp_path / f"stderr-{time.monotonic_ns()}"
        cluster = () if workers is None else ("--workers", str(workers))
        command = [
            *(*prefix, sys.executable, *python, "convert", raw or small.archive.root, store, *options, *cluster),
            *("--lists", small.lists, "--shard-size", str(shard_size)),
        ]
        with err.open("w") as stderr:
            process = subprocess.Popen(
                list(map(os.fspath, command)),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )
        return Running(process, store, err)

    return run


@pytest.fixture(scope="session")
def reference(small: SmallArchive, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the small archive with one patch a shard, from a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("reference") / "store"
    convert(small.archive.root, path, small.options(scheduler=scheduler, shard_size=1))
    return path


@pytest.fixture(scope="session")
def expected(reference: Path) -> dict[str, bytes]:
    """Every file of the reference store."""
    return read_files(reference)


def find_receipts(store: Path) -> list[str]:
    """List the receipts of an unfinished store; one that was being written has a hidden name."""
    try:
        return sorted(path.name for path in (store / ".progress" / "receipts").iterdir() if path.name[0] != ".")
    except FileNotFoundError:
        return []


def find_finished_shards(store: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file of the shards that have a receipt."""
    shards = {str(int(name.removesuffix(".json"))) for name in find_receipts(store)}
    files = [path for path in (store / "images.zarr").glob("s2_*/c/*/0/0/0") if path.parts[-4] in shards]
    return {path.relative_to(store).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
