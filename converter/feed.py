"""Hand the patches of an archive to workers, batch by batch, as they come by.

Their files go through memory that this process shares with the workers: a file without a name, which is gone when this
process is, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from bigearthnet.archive.members import ArchiveReader
from bigearthnet.archive.patch import PatchReader
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import is_archive_file
from bigearthnet.archive.scan import Scan, scan_folder
from bigearthnet.bands import Sensor
from converter.batch import Batch, PackedFiles, PackedPatch

_SLOT_BYTES: Final = 16 * 2**20
"""Files of one batch: some 100 patches, which keep a worker busy for a tenth of a second."""
_FOLDER_PATCHES: Final = 100
"""Patches of one batch that workers read from a folder."""

FindPlace = Callable[[str], str | None]
"""Says by its name where a patch belongs; None for one that is not wanted."""
IsDone = Callable[[str, str, Files], bool]
"""Tells by its name, its place and its files whether nothing is left to do with a patch."""


class Slots:
    """Memory that workers read batches from, one slot each."""

    def __init__(self, stack: ExitStack, token: str) -> None:
        name = f"bigearthnet-{token}"
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create(name)
            stack.callback(os.close, self._descriptor)
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        else:
            file = stack.enter_context(NamedTemporaryFile(prefix=name))  # noqa: SIM115 - closed by the stack
            self._descriptor, self.path = file.fileno(), file.name
        self._free: list[int] = []
        self._n_slots = self.slot = self._n_bytes = 0

    def take(self) -> None:
        """Begin to fill a slot that no worker reads."""
        if not self._free:
            self._free.append(self._n_slots)
            self._n_slots += 1
        self.slot, self._n_bytes = self._free.pop(), 0

    def release(self, slot: int) -> None:
        """Take note that no worker reads a slot any more."""
        self._free.append(slot)

    def has_room(self, n_bytes: int) -> bool:
        """Tell whether so many bytes fit into the slot."""
        return self._n_bytes + n_bytes <= _SLOT_BYTES

    def put(self, files: Mapping[str, bytes | OSError]) -> PackedFiles:
        """Put the files of a patch into the slot, one after another."""
        contents = {file: content for file, content in files.items() if isinstance(content, bytes)}
        offset = self.slot * _SLOT_BYTES + self._n_bytes
        self._n_bytes += os.pwritev(self._descriptor, list(contents.values()), offset)
        return PackedFiles(
            offset,
            {file: len(content) for file, content in contents.items()},
            {file: str(content) for file, content in files.items() if isinstance(content, OSError)},
        )


def open_archives(
    roots: Mapping[Sensor, Path], stack: ExitStack, known: Mapping[Sensor, Scan]
) -> tuple[dict[Sensor, ArchiveReader], dict[Sensor, Scan]]:
    """Open archive files, and scan folders that are given with them.

    Args:
        roots: File or folder of each sensor.
        stack: Closes the files.
        known: What is known already to be in some; they are not opened.

    Returns:
        The readers of the files, and what was found: all of a folder, the first patch of a file.

    Raises:
        SourceError: One cannot be opened, or is none.
    """
    readers: dict[Sensor, ArchiveReader] = {}
    scans = dict(known)
    for sensor, root in roots.items():
        if sensor in scans:
            continue
        if is_archive_file(root):
            readers[sensor] = stack.enter_context(closing(ArchiveReader(root)))
            scans[sensor] = Scan(root, {readers[sensor].peek(): ""}, 0, is_synthetic=False)
        else:
            scans[sensor] = scan_folder(root)
    return readers, scans


def pack_archive(
    sensor: Sensor, reader: PatchReader, archive: ArchiveReader, slots: Slots, find_place: FindPlace, is_done: IsDone
) -> Iterator[Batch]:
    """Yield the patches of an archive file in batches.

    Args:
        sensor: What the archive is of.
        reader: Which files of a patch are needed.
        archive: The archive, from its first patch on.
        slots: Memory for the files; the slot of a batch is to be released once it has been worked on.
        find_place: Where a patch belongs.
        is_done: Whether a patch may be passed by; not asked of patches that come in parts.

    Raises:
        SourceError: As `ArchiveReader.gather` says.
    """
    packed: list[PackedPatch] = []
    slots.take()
    for patch in archive.gather(frozenset(reader.list_suffixes(sensor)), lambda name: find_place(name) is not None):
        place = find_place(patch.name) or ""
        if patch.is_whole and is_done(patch.name, place, patch.files):
            continue
        if not slots.has_room(patch.n_bytes):
            yield Batch(sensor, slots.path, slots.slot, tuple(packed))
            slots.take()
            packed = []
        packed.append(PackedPatch(patch.name, place, slots.put(patch.files), patch.is_whole))
    yield Batch(sensor, slots.path, slots.slot, tuple(packed))


def pack_folder(sensor: Sensor, scan: Scan, find_place: FindPlace, is_done: IsDone) -> Iterator[Batch]:
    """Yield the patches of a folder in batches; workers read them there. The rest is as in `pack_archive`."""
    packed: list[PackedPatch] = []
    for name, folder in scan.folder_of.items():
        place, path = find_place(name), f"{scan.root}/{folder}"
        if place is not None and not is_done(name, place, path):
            packed.append(PackedPatch(name, place, path, is_whole=True))
    for first in range(0, len(packed), _FOLDER_PATCHES):
        yield Batch(sensor, "", None, tuple(packed[first : first + _FOLDER_PATCHES]))
