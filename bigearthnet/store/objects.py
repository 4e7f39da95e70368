"""Where the objects of a store are: a folder, or a server whose objects are kept in a local folder."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bigearthnet.errors import MissingPackageError, OptionError, RemoteError, StoreError
from bigearthnet.files import open_regular, read_regular, write_durably

_N_FETCHERS: Final = 4
"""Objects fetched ahead at a time; shards are tens of megabytes, so more would only share the same line."""

_ABANDONED_S: Final = 3_600
"""A file under a temporary name that has not grown for so long was left by a process that died; others are not touched,
since another process is fetching them."""

_TAG: Final = "CACHEDIR.TAG"
"""Marks a folder of kept objects, so that nothing else is ever removed; backups leave such folders out."""
_TAG_TEXT: Final = b"""Signature: 8a477f597d28d172789f06887806bc55
# Shards of a remote store, kept by bigearthnet-store. See https://bford.info/cachedir/
"""

_MAX_READ_BYTES: Final = 512 * 2**20
"""Of a small object; the manifest of a whole store takes 300 MB if each shard is one patch."""

_OPENINGS: Final = 10
"""Attempts to open what was just fetched, before other processes remove it again."""


class LocalObjects:
    """A store in a folder, whose objects go by their names relative to it."""

    max_bytes: int | None = None
    """Bytes of objects that may be kept open; None if there is no limit."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        """The store as the user gave it."""
        self._folder = folder

    def read(self, key: str) -> bytes:
        """Read a whole small object; FileNotFoundError if there is none."""
        return read_regular(self._folder / key, _MAX_READ_BYTES)

    def path(self, key: str) -> str:
        """Name the file of an object, which may not exist."""
        return f"{self._folder}/{key}"

    def open(self, key: str) -> int:
        """Open an object for reading and return the descriptor; FileNotFoundError if there is none."""
        return open_regular(self.path(key))

    def fetch_ahead(self, keys: Iterable[str]) -> None:
        """Do nothing: the objects are here."""

    def bind(self, fingerprint: str) -> None:
        """Do nothing: no copies are kept."""

    def forget(self, key: str) -> None:
        """Do nothing: no copies are kept."""


class RemoteObjects:
    """A store behind a URL that fsspec understands, whose objects are kept whole in a folder.

    Several processes may share the folder: an object appears there under its name only when whole, and one that
    another process removes while this one reads it stays readable, since it is mapped.

    Args:
        url: Such as `s3://bucket/store` or `https://host/store`.
        cache: Folder to keep objects in; several stores may share it.
        max_bytes: When the objects of all stores there take more than this, those used longest ago are removed.
        storage_options: What fsspec needs for this server: keys, endpoint and so on.
    """

    def __init__(self, url: str, cache: Path, max_bytes: int, storage_options: Mapping[str, Any]) -> None:
        try:
            import fsspec  # noqa: PLC0415 - an optional dependency

            self._files, root = fsspec.core.url_to_fs(url, **storage_options)
        except ImportError as error:
            raise MissingPackageError(f"{url}: {error}; install bigearthnet-store[remote]") from error
        except ValueError as error:
            raise StoreError(f"{url}: {error}") from error
        self.name = url
        self.max_bytes = max_bytes
        self._root = root.rstrip("/")
        self._folder = self._cache = cache
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._asked: set[str] = set()
        self._fetchers = ThreadPoolExecutor(_N_FETCHERS, thread_name_prefix="trainer-fetch")

    def bind(self, fingerprint: str) -> None:
        """Name the content that the URL leads to, so that a store written anew never meets its old objects."""
        self._cache = self._folder / fingerprint
        tag = self._cache / _TAG
        if not tag.exists():
            write_durably(str(tag), [_TAG_TEXT])

    def forget(self, key: str) -> None:
        """Remove the kept copy of an object, if there is one."""
        (self._cache / key).unlink(missing_ok=True)

    def read(self, key: str) -> bytes:
        """Read an object from the server."""
        with self._name_faults(key):
            return bytes(self._files.cat_file(f"{self._root}/{key}"))

    def path(self, key: str) -> str:
        """Return the kept copy of an object, fetched now if need be."""
        kept = self._cache / key
        with self._locks.setdefault(key, threading.Lock()):
            if not kept.exists():
                self._fetch(key, kept)
            with contextlib.suppress(FileNotFoundError):  # another process may just have removed it
                os.utime(kept)
        return str(kept)

    def open(self, key: str) -> int:
        """Open the kept copy of an object, fetched now if need be."""
        for _ in range(_OPENINGS):
            path = self.path(key)
            try:
                return os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # another process has just made room
        raise RemoteError(
            f"{self.name}/{key}: removed from {self._cache} as soon as fetched; "
            "give the processes that share it more cache_bytes"
        )

    def fetch_ahead(self, keys: Iterable[str]) -> None:
        """Fetch objects on threads of their own; a fault is left to whoever asks for the object."""
        with self._guard:
            wanted = [key for key in keys if key not in self._asked]
            self._asked.update(wanted)
        for key in wanted:
            self._fetchers.submit(self._try_fetch, key)

    def _try_fetch(self, key: str) -> None:
        with contextlib.suppress(OSError, RemoteError):
            self.path(key)
        with self._guard:
            self._asked.discard(key)

    def _fetch(self, key: str, kept: Path) -> None:
        """Fetch an object under a name of its own, then give it the name it is known by."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
        try:
            with self._name_faults(key):
                self._files.get_file(f"{self._root}/{key}", str(temporary))
                temporary.replace(kept)
        finally:
            temporary.unlink(missing_ok=True)
        self._make_room(kept)

    @contextlib.contextmanager
    def _name_faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # fsspec promises nothing about what its backends raise; some say only its name
            raise RemoteError(f"{self.name}/{key}: cannot be fetched: {type(error).__name__}: {error}") from error

    def _make_room(self, newest: Path) -> None:
        """Remove the shards used longest ago, of any store, until the rest fits."""
        found = []
        ours = [tag.parent for tag in self._folder.glob(f"*/{_TAG}") if tag.read_bytes() == _TAG_TEXT]
        for path in chain.from_iterable(folder.glob("**/c/**/*") for folder in ours):
            with contextlib.suppress(FileNotFoundError):  # another process makes room too
                status = path.stat()
                fetching = path.name.startswith(".") and time.time() - status.st_mtime < _ABANDONED_S
                if stat.S_ISREG(status.st_mode) and not fetching:
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.max_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


Objects = LocalObjects | RemoteObjects


def locate_objects(
    location: str | Path, cache_dir: Path, cache_bytes: int, storage_options: Mapping[str, Any]
) -> Objects:
    """Tell a folder from a URL."""
    text = str(location).removeprefix("file://")
    if "://" not in text:
        return LocalObjects(Path(text))
    if cache_bytes <= 0:
        raise OptionError(f"cache_bytes must be positive, not {cache_bytes:,}")
    return RemoteObjects(text, cache_dir, cache_bytes, storage_options)
