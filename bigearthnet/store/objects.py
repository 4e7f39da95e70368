"""The objects of a store, how each is recognised, and those that lie in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Final

from bigearthnet.files import open_regular, read_regular
from bigearthnet.store.shard import DamagedError

_MAX_READ_BYTES: Final = 512 * 2**20
"""Of a small object; the manifest of a whole store takes 300 MB if each shard is one patch."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a store, as the manifest describes it."""

    key: str
    """Its path relative to the store."""
    n_bytes: int
    checksum: str
    hash_content: Callable[[bytes | mmap], str]
    """Computes the checksum; raises DamagedError for bytes that cannot be hashed."""

    def check(self, content: bytes | mmap) -> None:
        """Make sure that some bytes are this object.

        Raises:
            DamagedError: They are not.
        """
        expected = f"its bytes are not those that were written: expected {self.n_bytes:,}"
        if len(content) != self.n_bytes:
            page = ", which look like a web page" if content[:100].lstrip()[:1] == b"<" else ""
            raise DamagedError(f"{expected}, found {len(content):,}{page}")
        try:
            actual = self.hash_content(content)
        except DamagedError as error:
            raise DamagedError(f"{expected} with the checksum {self.checksum}, but {error}") from error
        if actual != self.checksum:
            raise DamagedError(f"{expected} with the checksum {self.checksum}, found {actual}")


class LocalObjects:
    """A store in a folder."""

    max_bytes: int | None = None
    """Bytes of objects that may be kept open; None if there is no limit."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        """The store as the user gave it."""

    def read(self, key: str) -> bytes:
        """Read an object of which nothing is known; FileNotFoundError if there is none."""
        return read_regular(Path(self.name, key), _MAX_READ_BYTES)

    def load(self, wanted: StoredObject) -> bytes:
        """Read a small object; FileNotFoundError if there is none, DamagedError if it is another."""
        content = self.read(wanted.key)
        wanted.check(content)
        return content

    def path(self, wanted: StoredObject) -> str:
        """Name the file of an object, which may not exist."""
        return f"{self.name}/{wanted.key}"

    def open(self, wanted: StoredObject, closed: Future[None] | None = None) -> int:  # noqa: ARG002 - nothing to wait for
        """Open an object for reading and return the descriptor; FileNotFoundError if there is none."""
        return open_regular(self.path(wanted))

    def fetch_ahead(self, wanted: Iterable[StoredObject]) -> None:
        """Do nothing: the objects are here."""

    def bind(self, fingerprint: str) -> None:
        """Do nothing: no copies are kept."""

    def forget(self, key: str) -> None:
        """Do nothing: no copies are kept."""

    def advise(self, key: str) -> str:  # noqa: ARG002
        """Say what to do about an object that is damaged or missing."""
        return "convert it again or copy the shard again"
