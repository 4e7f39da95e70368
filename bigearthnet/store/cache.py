"""A folder that keeps objects of remote stores, within a limit; several stores and processes may share it."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from bigearthnet.files import replace_file, write_durably

_ABANDONED_S: Final = 3_600
"""A file under a temporary name that has not grown for so long was left by a process that died; others are not touched,
since another process is writing them."""

_TAG: Final = "CACHEDIR.TAG"
"""Marks a folder of kept objects, so that nothing is ever removed in another; backups leave such folders out."""
_TAG_TEXT: Final = b"""Signature: 8a477f597d28d172789f06887806bc55
# Shards of a remote store, kept by bigearthnet-store. See https://bford.info/cachedir/
"""

_SHARD: Final = re.compile(r"images\.zarr/\w+/c/(\d+/)*(\d+|(?P<temporary>\.\d+\.[0-9a-f]{8}))")
"""The files that may be removed to make room; metadata and tables are small, and stay."""

_ROOM_LEFT: Final = 0.1
"""Share of the limit that is free after files were removed, so that they are not counted at every fetch."""


class Cache:
    """Kept objects of one store, which are complete files under their own names.

    What is removed while it is mapped stays readable. No link below the folder is followed to remove anything.

    Args:
        folder: Of all stores.
        max_bytes: When the shards of all stores take more than this, those used longest ago are removed.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._own = folder
        self._room = 0
        """Bytes that may be added before files are counted again."""
        self._guard = threading.Lock()
        self._unfinished: set[Path] = set()
        """Files under temporary names; some may be gone."""
        self._end = weakref.finalize(self, _remove_all, self._unfinished, self._guard)

    def bind(self, fingerprint: str) -> None:
        """Name the content that is kept, so that a store written anew never meets its old objects."""
        self._own = self.folder / fingerprint
        if not (self._own / _TAG).exists():
            write_durably(str(self._own / _TAG), [_TAG_TEXT])

    def path(self, key: str) -> Path:
        """Name the file of an object, which may not be kept."""
        return self._own / key

    @contextmanager
    def add(self, key: str) -> Iterator[IO[bytes]]:
        """Give a file to write an object to, which gets its name when no error is raised."""
        path = self.path(key)
        with replace_file(path, flushed=False) as temporary:  # a power cut's damage is found, and fetched again
            with self._guard:
                if not self._end.alive:
                    raise OSError(errno.ECANCELED, "the process is ending")
                file = open(temporary, "w+b")  # noqa: SIM115 - closed below, and not under the lock
                self._unfinished.add(temporary)
            with file:
                yield file
                n_bytes = file.tell()
        with self._guard:
            self._unfinished.remove(temporary)
            self._room -= n_bytes
            if self._room < 0:
                self._make_room(path)

    def forget(self, key: str) -> None:
        """Remove the kept copy of an object, if there is one."""
        self.path(key).unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        """Walk the whole folder, and remove the shards used longest ago if there are too many bytes."""
        shards = self._find_shards()
        total = sum(size for _, size, _ in shards)
        limit = self.max_bytes * (1 - _ROOM_LEFT) if total > self.max_bytes else self.max_bytes
        for _, size, path in shards:
            if total <= limit:
                break
            if path != str(newest):
                Path(path).unlink(missing_ok=True)
                total -= size
        self._room = (self.max_bytes - total) // 2  # another process may be adding as much

    def _find_shards(self) -> list[tuple[int, int, str]]:
        """List time of last use, size and path of what may be removed, in that order."""
        shards = []
        for entry in os.scandir(self.folder):
            if not (entry.is_dir(follow_symlinks=False) and _is_tagged(entry.path)):
                continue
            for folder, _, names in os.walk(entry.path):  # it follows no links
                for name in names:
                    path = f"{folder}/{name}"
                    match = _SHARD.fullmatch(path, len(entry.path) + 1)
                    with suppress(FileNotFoundError):  # another process makes room too
                        if match and not os.path.islink(path):
                            status = os.stat(path)
                            if not match["temporary"] or time.time() - status.st_mtime > _ABANDONED_S:
                                shards.append((status.st_mtime_ns, status.st_size, path))
        return sorted(shards)


def _remove_all(paths: set[Path], guard: threading.Lock) -> None:
    """Remove what threads have not finished when the process ends, which does not wait for them."""
    with guard:
        for path in paths:
            path.unlink(missing_ok=True)


def _is_tagged(folder: str) -> bool:
    try:
        return Path(folder, _TAG).read_bytes() == _TAG_TEXT
    except OSError:
        return False
