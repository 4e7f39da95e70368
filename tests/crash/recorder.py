"""Record what a program does to a folder, in the order in which it does it.

The program runs in this process. Before each operation on a file (Python's audit events, and `os.fsync`, which has none
and is wrapped), the recorder looks at the whole folder and notes what has changed since it last looked: which names
stand for which inode, and what is in each file. So it does not matter who changed it: what C or Rust code writes is
seen as well, at the next look at the latest, and only a flush by such code goes unnoticed, which is on the safe side.
Tools that watch a process from outside (strace, a preloaded library, FUSE) would see each single write, but need
rights, compilers or packages that not every machine has; since writes between two flushes may be lost in any part,
nothing is gained by that.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.crash.disk import ROOT, Disk, Flushed, Operation, Place, Promised, Record, Renamed, Written

_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PRODUCT = tuple(
    str(Path(__file__).parents[2] / package) + os.sep for package in ("bigearthnet", "converter", "trainer")
)


class KilledError(BaseException):
    """Stands for SIGKILL: from now on, nothing that the program does to files has an effect."""


class Recorder:
    """Watches a folder.

    Args:
        folder: What is watched; it is there already.

    Attributes:
        n_steps: Operations so far, those without effect too.
        kill_at: The program is killed before the operation of this number, from 1; never if None.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_steps = 0
        self.kill_at: int | None = None
        self._operations: list[Operation] = []
        self._numbers = {folder.stat().st_ino: ROOT}
        self._folders = {ROOT}
        self._n_numbers = 1
        self._names: dict[Place, int] = {}
        self._contents: dict[int, bytes] = {}
        self._lock = threading.RLock()
        self._look()
        self._start = Disk(self._folders, dict(self._names), dict(self._contents))
        self._operations.clear()

    def promise(self, what: str) -> None:
        """Note that the program has said that something is done."""
        with self._lock:
            self._look()
            self._operations.append(Promised(what))

    def finish(self) -> Record:
        with self._lock:
            self._look()
            return Record(self._start, tuple(self._operations))

    def step(self, path: object = None) -> None:
        """Look before an operation, of which the path may be known."""
        if isinstance(path, str | bytes | os.PathLike):
            path = os.fsdecode(path)
            if os.path.isabs(path) and not Path(path).is_relative_to(self.folder):
                return
        with self._lock:
            self._look()
            self.n_steps += 1
            if self.kill_at is not None and self.n_steps >= self.kill_at:
                raise KilledError

    def flush(self, fd: Any) -> None:
        """Note a flush; nothing need really reach the disk."""
        with self._lock:
            self.step()
            number = self._numbers.get(os.fstat(fd).st_ino)
            if number is not None:
                self._operations.append(Flushed(number, _name_callers()))

    def _look(self) -> None:
        """Note all changes since the last look."""
        names: dict[Place, int] = {}
        contents: dict[int, bytes] = {}
        inodes = {self.folder.stat().st_ino}
        rest = [(str(self.folder), ROOT)]
        for path, folder in rest:
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                inodes.add(entry.inode())
                number = self._numbers.setdefault(entry.inode(), self._n_numbers)
                self._n_numbers = max(self._n_numbers, number + 1)
                names[folder, entry.name] = number
                if entry.is_dir(follow_symlinks=False):
                    self._folders.add(number)
                    rest.append((entry.path, number))
                else:
                    contents[number] = Path(entry.path).read_bytes()
        self._numbers = {inode: number for inode, number in self._numbers.items() if inode in inodes}
        self._operations += _compare_names(self._names, names)
        self._operations += [
            Written(file, content) for file, content in contents.items() if content != self._contents.get(file, b"")
        ]
        self._names, self._contents = names, contents


def _compare_names(old: dict[Place, int], new: dict[Place, int]) -> Iterator[Renamed]:
    gone = {old[place]: place for place in old if place not in new}
    for place, number in new.items():
        if old.get(place) != number:
            before = gone.pop(number, None)
            yield Renamed(((place, number),) if before is None else ((before, None), (place, number)))
    for place in reversed(gone.values()):
        yield Renamed(((place, None),))


def _name_callers() -> str:
    """Say which lines of the product are at work."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_PRODUCT)]
    return " > ".join(f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in frames[-6:])


_active: Recorder | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _active is None:
        return
    if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
        _active.step(arguments[0])


sys.addaudithook(_hear)  # for ever: there is no way to remove one


@contextmanager
def record(folder: Path) -> Iterator[Recorder]:
    """Watch a folder while the program runs in this process."""
    global _active  # noqa: PLW0603 - an audit hook cannot be given anything
    recorder = Recorder(folder)
    real, os.fsync = os.fsync, recorder.flush
    _active = recorder
    try:
        yield recorder
    finally:
        _active, os.fsync = None, real
