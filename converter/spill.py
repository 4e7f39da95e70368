"""Keep encoded patches on disk until all patches of their shards have come out of an archive.

An archive has its patches in an order of its own, so a shard is complete only when nearly all of it has been read.
Until then each patch waits as the very bytes that its shard will hold, in the folder of its region: a stretch of the
store's order. Once all shards of a region are written, its folder is removed whole.

Every record vouches for itself. What a killed process left at the end of its file counts for nothing, and no process
ever writes to the file of another. Nothing is flushed: what a power cut takes is noticed, and made again.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any, Final

from bigearthnet.archive.patch import Place, SensorReading
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import Annotation
from bigearthnet.bands import Sensor
from bigearthnet.errors import StoreError
from bigearthnet.store.layout import INGESTED
from bigearthnet.store.shard import checksum_parts

_HEAD: Final = struct.Struct("<4sIQI")
"""Mark, bytes of the description, bytes of what follows it, checksum of the description."""
_MARK: Final = b"BENp"
_NOTE: Final = tuple(field.name for field in fields(Annotation))
_PARTS: Final = ".parts"
"""Suffix of files that hold files of patches as they came, until the last of each has come."""


@dataclass(frozen=True)
class Spill:
    """Where patches wait."""

    folder: str
    token: str
    """Different in every run: a worker that outlives one never goes on in its files."""


@dataclass(frozen=True)
class SpilledPatch:
    """One sensor of a patch, read and encoded."""

    reading: SensorReading
    source_checksum: int
    """That of the files it was made from."""
    sizes: tuple[int, ...]
    """Bytes of the chunk of each array of the sensor; none if a file was bad."""
    path: str
    offset: int
    """Where the first chunk begins."""

    def read_chunks(self) -> list[bytes]:
        """Read the chunk of each array.

        Raises:
            OSError: The file cannot be read.
        """
        content = _read_at(self.path, self.offset, sum(self.sizes))
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes))]
        return [content[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]


def hash_files(files: Files) -> int:
    """Return a checksum of the files of a patch, by which another archive's are told from them; 0 of a folder's."""
    if isinstance(files, str):
        return 0
    parts = (part for name, content in sorted(files.items()) for part in (name.encode(), content))
    return checksum_parts(part if isinstance(part, bytes) else str(part).encode() for part in parts)


def spill_patch(
    spill: Spill, region: str, sensor: Sensor, reading: SensorReading, source_checksum: int, chunks: Sequence[bytes]
) -> None:
    """Append a patch to its region.

    Raises:
        OSError: It cannot be written.
    """
    content = {
        "name": reading.name,
        "checksum": source_checksum,
        "sizes": [len(chunk) for chunk in chunks],
        "note": reading.note and [getattr(reading.note, name) for name in _NOTE],
        "places": reading.places,
        "fault": reading.fault,
        "zero_pixels": reading.zero_pixels,
    }
    _append(spill, f"{region}/{sensor}", content, chunks)


def spill_files(spill: Spill, region: str, sensor: Sensor, name: str, files: Mapping[str, bytes | OSError]) -> None:
    """Append some files of a patch as they are, since the others are far away.

    Raises:
        OSError: It cannot be written.
    """
    contents = [content if isinstance(content, bytes) else str(content).encode() for content in files.values()]
    kinds = [isinstance(content, bytes) for content in files.values()]
    described = {"name": name, "files": list(zip(files, kinds, map(len, contents), strict=True))}
    _append(spill, f"{region}/{sensor}{_PARTS}", described, contents)


def read_region(spill: Spill, region: str, sensor: Sensor) -> dict[str, list[SpilledPatch]]:
    """List the patches of a sensor that wait in a region, by name: all records of each."""
    patches: dict[str, list[SpilledPatch]] = {}
    for path in _list_files(spill, region, sensor, parts=False):
        for content, offset in _read_records(path):
            note = content["note"] and Annotation(tuple(content["note"][0]), *content["note"][1:])
            places = tuple(Place(*place) for place in content["places"])
            fault = content["fault"] and (content["fault"][0], content["fault"][1])
            reading = SensorReading(content["name"], note, places, fault, content["zero_pixels"])
            patch = SpilledPatch(reading, content["checksum"], tuple(content["sizes"]), path, offset)
            patches.setdefault(reading.name, []).append(patch)
    return patches


def find_patch(spill: Spill, region: str, sensor: Sensor, name: str, source_checksum: int) -> SpilledPatch:
    """Find a patch that was made of some files, once nothing more is being written.

    Raises:
        StoreError: It is not there.
    """
    for patch in _index_region(spill, region, sensor).get(name, ()):
        if patch.source_checksum == source_checksum:
            return patch
    raise discard_region(spill, region, f"{name} was encoded, and is gone")


def discard_region(spill: Spill, region: str, reason: str) -> StoreError:
    """Forget what waits in a region, and that its archives have been read; returns the error to be raised."""
    shutil.rmtree(f"{spill.folder}/{region}", ignore_errors=True)
    Path(spill.folder).with_name(INGESTED).unlink(missing_ok=True)
    return StoreError(
        f"{spill.folder}/{region}: {reason}; does something else write here? It was removed: run the same command "
        "again, it takes from the archive what is missing"
    )


def collect_files(spill: Spill, region: str, sensor: Sensor) -> Iterator[tuple[str, dict[str, bytes | OSError]]]:
    """Yield each patch that came in parts, with all of its files; those of one patch at a time are in memory."""
    pieces: dict[str, list[tuple[str, bool, str, int, int]]] = {}
    for path in _list_files(spill, region, sensor, parts=True):
        for content, offset in _read_records(path):
            for file, is_content, size in content["files"]:
                pieces.setdefault(content["name"], []).append((file, is_content, path, offset, size))
                offset += size
    for name, located in pieces.items():
        files: dict[str, bytes | OSError] = {}
        for file, is_content, path, offset, size in located:
            part = _read_at(path, offset, size)
            files[file] = part if is_content else OSError(part.decode())
        yield name, files


def remove_parts(spill: Spill, sensor: Sensor) -> None:
    """Remove what is kept of patches in parts: the archive is read again, or they are whole."""
    for region in list_regions(spill):
        for path in _list_files(spill, region, sensor, parts=True):
            Path(path).unlink()


def list_regions(spill: Spill) -> list[str]:
    """List the regions in which something waits."""
    try:
        return sorted(os.listdir(spill.folder))
    except FileNotFoundError:
        return []


def _list_files(spill: Spill, region: str, sensor: Sensor, *, parts: bool) -> list[str]:
    folder = f"{spill.folder}/{region}"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    begin = f"{sensor}{_PARTS}-" if parts else f"{sensor}-"
    return [f"{folder}/{name}" for name in names if name.startswith(begin)]


_index_region = lru_cache(maxsize=8)(read_region)


class _Writer:
    """The files that this process appends to in one run."""

    def __init__(self, spill: Spill) -> None:
        self.spill = spill
        self._name = secrets.token_hex(4)
        self._descriptors: dict[str, int] = {}

    def append(self, file: str, parts: Sequence[bytes]) -> None:
        if file not in self._descriptors:
            path = f"{self.spill.folder}/{file}-{self._name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._descriptors[file] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        descriptor = self._descriptors[file]
        n_bytes = sum(map(len, parts))
        n_written = os.writev(descriptor, parts)
        if n_written < n_bytes:  # the disk is all but full, and says so at the next byte
            rest = memoryview(b"".join(parts))[n_written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)


_writer: _Writer | None = None
_writing: Final = RLock()
"""A worker may have several threads, and two conversions: none writes to a file that another closes."""


def _append(spill: Spill, file: str, content: Mapping[str, object], parts: Sequence[bytes]) -> None:
    global _writer  # noqa: PLW0603 - the files of a process stay open from one batch to the next
    described = json.dumps(content, separators=(",", ":")).encode()
    head = _HEAD.pack(_MARK, len(described), sum(map(len, parts)), checksum_parts([described]))
    with _writing:
        if _writer is None or _writer.spill != spill:
            close_writer()
            _writer = _Writer(spill)
        try:
            _writer.append(file, [head, described, *parts])
        except OSError:
            close_writer()  # what it wrote of the record must be the last thing in its file
            raise


def close_writer() -> None:
    """Close the files that this process appends to; the next patch goes to others."""
    global _writer  # noqa: PLW0603
    with _writing:
        if _writer is not None:
            _writer.close()
        _writer = None


def _read_records(path: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the description of each whole record of a file, and where what it describes begins."""
    with open(path, "rb", buffering=0) as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position + _HEAD.size <= size:
            head = os.pread(file.fileno(), _HEAD.size, position)
            mark, n_described, n_content, checksum = _HEAD.unpack(head)
            offset = position + _HEAD.size + n_described
            position = offset + n_content
            if mark != _MARK or position > size:
                return
            described = os.pread(file.fileno(), n_described, offset - n_described)
            if checksum_parts([described]) != checksum:
                return
            yield json.loads(described), offset


def _read_at(path: str, offset: int, n_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, n_bytes, offset)
    finally:
        os.close(descriptor)
