"""A store on a server, whose objects are fetched whole, compared with the manifest, and kept in a folder."""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

from bigearthnet.errors import OptionError, OutputError, RemoteError, StoreError
from bigearthnet.store.cache import Cache
from bigearthnet.store.objects import LocalObjects, StoredObject
from bigearthnet.store.server import MissingError, Server
from bigearthnet.store.shard import DamagedError

_N_FETCHERS: Final = 4
"""Objects fetched at a time; shards are tens of megabytes, so more would only share the same line."""

_FIRST_PATIENCE_S: Final = 30
"""When the first answer of a server is given up: nothing is lost yet, and the URL may be wrong."""

_OPENINGS: Final = 10
"""Attempts to open what was just fetched, before other processes remove it again."""


_Work = tuple[str, Callable[[], object]]
"""What fetches an object, after its key."""


class RemoteObjects:
    """A store behind a URL, whose objects are kept whole in a folder.

    They are fetched on threads that end with the process, so that whoever waits for them can always be interrupted.

    Args:
        url: Such as `s3://bucket/store` or `https://host/store`.
        cache: Where objects are kept.
        storage_options: See `bigearthnet.store.server.Server`.
        stall_s: Likewise.
        patience_s: When to give an object up.

    Raises:
        MissingPackageError, OptionError, StoreError: See `Server`.
    """

    def __init__(
        self, url: str, cache: Cache, storage_options: Mapping[str, Any], stall_s: float, patience_s: float
    ) -> None:
        for name, limit in {"cache_bytes": cache.max_bytes, "stall_s": stall_s, "patience_s": patience_s}.items():
            if limit <= 0:
                raise OptionError(f"{name} must be positive, not {limit:,}")
        self.name = url.rstrip("/")
        self.max_bytes = cache.max_bytes
        self._cache, self._patience_s = cache, patience_s
        self._server = Server(self.name, storage_options, stall_s)
        self._guard = threading.Lock()
        self._asked: dict[str, Future[Any]] = {}
        self._urgent: deque[_Work] = deque()
        self._ahead: deque[_Work] = deque()
        self._n_fetchers = 0

    def bind(self, fingerprint: str) -> None:
        """Name the content that the URL leads to, so that a store written anew never meets its old objects."""
        try:
            self._cache.bind(fingerprint)
        except OSError as error:
            raise self._refuse_cache(error) from error

    def read(self, key: str) -> bytes:
        """Read an object of which nothing is known; FileNotFoundError if there is none."""

        def receive() -> bytes:
            file = io.BytesIO()
            self._server.fetch(key, file, None, min(_FIRST_PATIENCE_S, self._patience_s))
            return file.getvalue()

        try:
            content: bytes = self._wait(key, receive)
        except DamagedError as error:
            raise StoreError(f"{self.name}/{key}: {error}; see whether the URL is right") from error
        return content

    def load(self, wanted: StoredObject) -> bytes:
        """Read a small object; FileNotFoundError if there is none, DamagedError if it is another."""
        content = Path(self.path(wanted)).read_bytes()
        try:
            wanted.check(content)
        except DamagedError:  # on this machine, or it is of an earlier store with the same content in other bytes
            self.forget(wanted.key)
            content = Path(self.path(wanted)).read_bytes()
            wanted.check(content)
        return content

    def path(self, wanted: StoredObject, closed: Future[None] | None = None) -> str:
        """Return the kept copy of an object, fetched now if need be."""
        kept = self._cache.path(wanted.key)
        if not kept.exists():
            self._wait(wanted.key, partial(self._fetch, wanted), closed)
        with suppress(FileNotFoundError):  # another process may just have removed it
            os.utime(kept)
        return str(kept)

    def open(self, wanted: StoredObject, closed: Future[None] | None = None) -> int:
        """Open the kept copy of an object, fetched now if need be.

        Args:
            wanted: The object.
            closed: Waiting ends with an error when this is done.
        """
        for _ in range(_OPENINGS):
            path = self.path(wanted, closed)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except FileNotFoundError:
                continue  # another process has just made room
            if os.fstat(descriptor).st_size == wanted.n_bytes:
                return descriptor
            os.close(descriptor)
            self.forget(wanted.key)
        raise RemoteError(
            f"{self.name}/{wanted.key}: removed from {self._cache.folder} or changed there as soon as fetched; "
            "give the processes that share it more cache_bytes"
        )

    def fetch_ahead(self, wanted: Iterable[StoredObject]) -> None:
        """Fetch objects that will be needed; a fault is left to whoever asks for the object."""
        for one in wanted:
            if not self._cache.path(one.key).exists():
                self._ask(one.key, partial(self._fetch, one), self._ahead)

    def forget(self, key: str) -> None:
        """Remove the kept copy of an object, if there is one."""
        self._cache.forget(key)

    def advise(self, key: str) -> str:
        """Say what to do about an object that is damaged or missing."""
        return (
            f"{self.name}/{key} was fetched whole into {self._cache.path(key)}; if that file is damaged again after it "
            "is deleted, choose another cache_dir"
        )

    def _wait(self, key: str, work: Callable[[], object], closed: Future[None] | None = None) -> Any:
        asked = self._ask(key, work, self._urgent)
        if closed is not None:
            wait((asked, closed), return_when=FIRST_COMPLETED)
            if not asked.done():
                raise RemoteError(f"{self.name}/{key}: no longer waited for, since its stream was closed")
        return asked.result()

    def _ask(self, key: str, work: Callable[[], object], queue: deque[_Work]) -> Future[Any]:
        """Have something done by a thread, unless it is being done."""
        with self._guard:
            if key in self._asked and queue is self._ahead:
                return self._asked[key]
            asked = self._asked.setdefault(key, Future())
            queue.append((key, work))
            if self._n_fetchers < _N_FETCHERS:
                self._n_fetchers += 1
                threading.Thread(target=self._work, daemon=True, name="trainer-fetch").start()
            return asked

    def _work(self) -> None:
        """Do what is asked for until nothing is left; what is asked for twice is done once."""
        while True:
            with self._guard:
                if not (queue := self._urgent or self._ahead):
                    self._n_fetchers -= 1
                    return
                key, work = queue.popleft()
                asked = self._asked.get(key)
                if asked is None or asked.running():
                    continue
                asked.set_running_or_notify_cancel()
            try:
                done, fault = work(), None
            except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
                done, fault = None, error
            with self._guard:
                del self._asked[key]
            if fault is None:
                asked.set_result(done)
            else:
                asked.set_exception(fault)

    def _fetch(self, wanted: StoredObject) -> None:
        """Fetch an object into the cache, and once more if the first copy is damaged."""
        if self._cache.path(wanted.key).exists():  # fetched between the question whether it is there and this
            return
        for is_last in (False, True):
            try:
                with self._cache.add(wanted.key) as file:
                    self._server.fetch(wanted.key, file, wanted.n_bytes, self._patience_s)
                    file.flush()
                    wanted.check(mmap(file.fileno(), 0, access=ACCESS_READ) if file.tell() else b"")
                return
            except MissingError:
                raise
            except DamagedError as error:
                if is_last:
                    raise StoreError(
                        f"{self.name}/{wanted.key}: {error}, twice; the copy on the server is damaged, "
                        "or something between answers in its place: upload it again"
                    ) from error
            except OSError as error:
                raise self._refuse_cache(error) from error

    def _refuse_cache(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._cache.folder}: objects of {self.name} cannot be kept there ({error.strerror or error}); "
            f"make room there, or choose another cache_dir or fewer cache_bytes than {self.max_bytes:,}"
        )


Objects = LocalObjects | RemoteObjects
