"""The lock of a folder that is being written, a store or a training, also on file systems that have no locks.

It is two. `flock`, where the file system has it: the system drops it when its holder dies, however that happens. And a
lease, which needs no more than that only one process can make a file of a name (O_EXCL: NFS since version 3, Lustre
however it is mounted). The N-th holder makes `lease.N` and touches it every few seconds; whoever made the highest one
holds it. Who sees for long enough that nobody touches it makes the next. Only one process can, so only one takes over,
and the one before finds a higher lease than its own and stops.

A holder on the same machine is known to be alive or dead, whatever its lease says. Of one elsewhere it is assumed that
a process that was held up (stopped, or without its file system) asks `Lock.check` before it goes on to write. Clocks of
different machines are never compared.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bigearthnet.errors import BusyError, OutputError
from bigearthnet.files import make_folder, read_json

LOCK: Final = "lock"
LEASE: Final = re.compile(r"lease\.(\d{1,9})")
"""Names of the files of a lock."""

BEAT_S: Final = 5.0
"""Time between two touches of a lease."""
HELD_UP_S: Final = 30.0
"""A holder that could not touch its lease for so long goes on no more: another may soon take over."""
DEAD_S: Final = 90.0
"""Time without a touch after which another takes over, on its own clock; three times the above, for caches of NFS."""

_LOOK_S: Final = 1.0
_NO_FLOCK: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where the system has such a clock."""


@dataclass(frozen=True)
class Watching:
    """Whoever wrote there last may be alive on another machine; if it shows no sign of life in time, it is dead."""

    holder: str
    seconds: float


OnWatching = Callable[[Watching], None]


@dataclass(frozen=True)
class Holder:
    """Who made a lease."""

    host: str
    process: int
    started: str
    """When, as the system counts it: numbers of processes are used again."""
    boot: str
    """Of the machine; empty if it does not say."""
    processes: str
    """The namespace that the number is of."""

    @staticmethod
    def here() -> Holder:
        """Describe this process."""
        process = os.getpid()
        boot, processes = "", ""
        with suppress(OSError):
            boot, processes = (
                Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                os.readlink("/proc/self/ns/pid"),
            )
        return Holder(socket.gethostname(), process, _find_start(process), boot, processes)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def lives(self, *, has_flock: bool) -> bool | None:
        """Tell whether it lives; None if that cannot be known from here.

        Args:
            has_flock: This process has the lock that the other would have if it were alive and on this machine.
        """
        here = Holder.here()
        if not here.boot or self.boot != here.boot:
            return None
        if has_flock:
            return False
        return _find_start(self.process) == self.started if self.processes == here.processes else None


def _find_start(process: int) -> str:
    """Find out when a process started; empty if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class Lock:
    """A lock that is held.

    Args:
        target: What errors name.
        lease: The file that was made for it.
        has_flock: Nobody can take over while this process lives.
    """

    def __init__(self, target: Path, lease: Path, *, has_flock: bool) -> None:
        self._target, self._lease, self._has_flock = target, lease, has_flock
        self._next = lease.with_name(f"lease.{_number(lease) + 1}")
        self._identity = (_identify(lease) or ())[:2]
        self._touched = _now()
        self._ended = threading.Event()

    def check(self) -> None:
        """Make sure that it is still held, before anything is written that counts.

        Raises:
            OutputError: Another process has taken over, or may do so.
        """
        is_late = not self._has_flock and _now() - self._touched > HELD_UP_S
        if is_late or self._next.exists():
            raise OutputError(
                f"{self._target}: this process was held up, and another has gone on there or may do so; what is "
                "finished is kept. See that no other runs, then run the same command again"
            )

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Touch the lease now and then; in the end remove it, and the rest of the lock if nothing else is there."""
        thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._remove()

    def _remove(self) -> None:
        folder, found = self._lease.parent, _identify(self._lease)
        if found and found[:2] == self._identity:  # not that of another, after somebody removed the folder
            for number in range(_number(self._lease) + 1):
                (folder / f"lease.{number}").unlink(missing_ok=True)
            if {path.name for path in folder.iterdir()} == {LOCK}:
                (folder / LOCK).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self._lease)
                self._touched = _now()


@contextmanager
def hold_lock(folder: Path, target: Path, on_event: OnWatching) -> Iterator[Lock]:
    """Take the lock and hold it; in the end the folder goes too, if nothing else is in it.

    Args:
        folder: Where the files of the lock are; it is made if it is not there, and so is `target`.
        target: What is written, and errors name.
        on_event: Called when the last holder may be alive elsewhere.

    Raises:
        BusyError: Another process holds it.
        OSError: The folder cannot be written.
    """
    descriptor, has_flock = _take_flock(folder, target)
    try:
        lock = Lock(target, _take_lease(folder, target, on_event, has_flock=has_flock), has_flock=has_flock)
        with lock.keep():
            yield lock
    finally:
        os.close(descriptor)  # before the folder: on NFS an open file stays in it, under another name
        with suppress(OSError):
            folder.rmdir()


def _take_flock(folder: Path, target: Path) -> tuple[int, bool]:
    """Take the lock of the system; returns the open file, and whether the file system has such locks."""
    while True:
        make_folder(target)
        make_folder(folder)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _identify(folder / LOCK) == _identify(descriptor):
                return descriptor, True
        except BlockingIOError as error:
            os.close(descriptor)
            raise _refuse(target, _find_holder(folder)) from error
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it in between


def _take_lease(folder: Path, target: Path, on_event: OnWatching, *, has_flock: bool) -> Path:
    """Make the next lease, once the holder of the last is known to be gone."""
    while True:
        try:
            last = _find_last(folder)
            if last:
                _outlive(last, target, on_event, has_flock=has_flock)
            lease = folder / f"lease.{_number(last) + 1 if last else 0}"
            with open(lease, "x") as file:
                json.dump(asdict(Holder.here()), file)
            return lease
        except FileExistsError:  # another was faster
            pass
        except FileNotFoundError:  # the last holder removed the folder when it had finished
            make_folder(folder)


def _outlive(lease: Path, target: Path, on_event: OnWatching, *, has_flock: bool) -> None:
    """Return when the holder of a lease is gone; refuse to go on if it is not."""
    holder = _read(lease)
    # Whoever died while it wrote its lease would have `flock` if it lived.
    lives = holder.lives(has_flock=has_flock) if holder else False if has_flock else None
    if lives:
        raise _refuse(target, holder)
    before, deadline = _identify(lease), _now() + DEAD_S
    if lives is None and before:
        on_event(Watching(str(holder or "another process"), DEAD_S))
    while lives is None and _now() < deadline and (found := _identify(lease)):
        if found != before:
            raise _refuse(target, holder)
        time.sleep(_LOOK_S)


def _refuse(target: Path, holder: Holder | None) -> BusyError:
    return BusyError(
        f"{target}: {holder or 'another process'} is writing there; wait for it to end, or give another folder"
    )


def _find_last(folder: Path) -> Path | None:
    leases = [path for path in folder.iterdir() if LEASE.fullmatch(path.name)]
    return max(leases, key=_number, default=None)


def _find_holder(folder: Path) -> Holder | None:
    last = _find_last(folder)
    return _read(last) if last else None


def _read(lease: Path) -> Holder | None:
    """Read who made a lease; nobody knows if it is being written, or its maker died at that."""
    try:
        return read_json(lease, Holder)
    except (OSError, ValueError):
        return None


def _number(lease: Path) -> int:
    return int(lease.suffix[1:])


def _identify(file: Path | int) -> tuple[int, ...] | None:
    """Tell a file from any other and from itself before it was touched; None if it is not there.

    It is opened for that: only then NFS asks the server how it is.
    """
    try:
        with open(file, "rb", closefd=isinstance(file, Path)) as opened:
            found = os.fstat(opened.fileno())
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _now() -> float:
    return time.clock_gettime(_CLOCK)
