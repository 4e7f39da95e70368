"""Open a file that is perhaps compressed, known by its content and not by its name, and read it from end to end."""

from __future__ import annotations

import bz2
import io
import os
import stat
import zlib
from pathlib import Path
from typing import IO, Any, Final, cast

import zstandard
from isal import igzip, isal_zlib

from bigearthnet.archive.records import STDIN
from bigearthnet.errors import SourceError

_HEAD_BYTES: Final = 512
_READ_BYTES: Final = 2**20
_BUFFER_BYTES: Final = 2**17
"""Decompressed bytes at a time; so many are lost at most where a file is cut short."""
_MAX_WINDOW: Final = 2**31
"""The largest window that zstd knows, `--long=31`: the most memory that a file can ask for."""

_MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_DAMAGED: Final = cast(
    "tuple[type[Exception], ...]", (zlib.error, isal_zlib.error, zstandard.ZstdError, OSError, EOFError)
)
"""What the libraries raise for bytes that cannot be what was compressed."""


class StreamError(Exception):
    """A compressed file that is damaged; says how, and leaves which to whoever asked."""


def name_format(head: bytes) -> str | None:
    """Name the format that begins like some bytes; None for one that is not known, such as tar."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


class Stream:
    """The decompressed bytes of a file or of standard input, in order, once.

    Args:
        path: The file, or `STDIN`.

    Raises:
        SourceError: It cannot be opened, or is compressed in a way that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = "standard input" if path == STDIN else str(path)
        self.n_bytes = 0
        """Decompressed bytes that were read."""
        self.is_cut = False
        """The compressed file ended before its end."""
        try:
            file = open(0 if path == STDIN else path, "rb", buffering=0, closefd=path != STDIN)  # noqa: SIM115
            self._raw = _Counted(file)
            status = os.fstat(file.fileno())
            self.n_raw_total = status.st_size if stat.S_ISREG(status.st_mode) else None
            """Bytes of the file; None of a stream, of which nobody knows."""
            head = self._raw.peek(_HEAD_BYTES)
        except OSError as error:
            raise SourceError(f"{self.label}: cannot be read: {error.strerror or error}") from error
        self.format = name_format(head)
        try:
            self._file = self._decompress()
        except SourceError:
            self._raw.close()
            raise

    @property
    def n_raw(self) -> int:
        """Bytes of the file that were read, compressed as they are."""
        return self._raw.n_bytes

    def read(self, n_bytes: int) -> bytes:
        """Read so many bytes, fewer only at the end.

        Raises:
            StreamError: The file is damaged or cannot be read.
        """
        try:
            content = self._file.read(n_bytes)
        except EOFError:
            self.is_cut = True
            return b""
        except _DAMAGED as error:
            raise StreamError(str(error)) from error
        self.n_bytes += len(content)
        return content

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def _decompress(self) -> IO[bytes]:
        raw = cast("Any", self._raw)
        match self.format:
            case "gzip":
                return io.BufferedReader(
                    cast("Any", cast("Any", igzip.IGzipFile)(fileobj=raw, mode="rb")), _BUFFER_BYTES
                )
            case "zstd":
                decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
                reader = decompressor.stream_reader(raw, read_size=_READ_BYTES, read_across_frames=True, closefd=False)
                return io.BufferedReader(cast("Any", reader), _BUFFER_BYTES)
            case "bzip2":
                return cast("IO[bytes]", bz2.BZ2File(raw))
            case None:
                return io.BufferedReader(raw, _READ_BYTES)
        raise SourceError(
            f"{self.label}: expected a tar archive, plain or compressed with gzip, zstd or bzip2; found {self.format}. "
            "Unpack it and give the folder"
        )


class _Counted(io.RawIOBase):
    """Counts the bytes read from a file, whose first bytes may be looked at before."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._head = b""
        self.n_bytes = 0

    def peek(self, n_bytes: int) -> bytes:
        while len(self._head) < n_bytes and (more := self._file.read(n_bytes - len(self._head))):
            self._head += more
        return self._head

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._head:
            n_bytes = min(len(view), len(self._head))
            view[:n_bytes], self._head = self._head[:n_bytes], self._head[n_bytes:]
        else:
            n_bytes = self._file.readinto(view) or 0
        self.n_bytes += n_bytes
        return n_bytes

    def close(self) -> None:
        self._file.close()
        super().close()
