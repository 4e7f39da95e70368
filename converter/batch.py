"""Encode patches as they come out of an archive, and hold what the sensors of each say against one another.

This is what workers do before any shard is written. Knows no dask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bigearthnet.archive.patch import PatchReader, join_readings, locate_sensors, read_sensor
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import Reject, Source
from bigearthnet.bands import Sensor
from bigearthnet.errors import ClusterError, OutputError, PatchError
from bigearthnet.store.layout import Codec
from bigearthnet.store.shard import encode_chunk
from converter.spill import Spill, collect_files, find_patch, hash_files, spill_files, spill_patch


@dataclass(frozen=True)
class BatchJob:
    """What all batches of one conversion share."""

    reader: PatchReader
    codec: Codec
    spill: Spill


class PackedFiles(NamedTuple):
    """The files of a patch in the memory of the main process, one after another."""

    offset: int
    sizes: dict[str, int]
    """Bytes of each file."""
    faults: dict[str, str]
    """Why the archive does not have others as files."""


class PackedPatch(NamedTuple):
    """One sensor of a patch on its way to a worker."""

    name: str
    place: str
    """Where it belongs: its region of the spill, or its row of a store."""
    files: PackedFiles | str
    """Its files, or the folder where they are."""
    is_whole: bool
    """There are no others."""


@dataclass(frozen=True)
class Batch:
    """One unit of work."""

    sensor: Sensor
    memory: str
    """Path by which the memory of the main process is opened."""
    slot: int | None
    """The part of it that is free again once the work is done."""
    patches: tuple[PackedPatch, ...]


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended."""

    sensor: Sensor
    slot: int | None
    checksums: dict[str, int]
    """Checksum of the files of each patch that is encoded, or bad."""
    n_bad: int
    """Patches with a bad file."""


@dataclass(frozen=True)
class RegionParts:
    """One unit of work: patches of a region whose files came in parts."""

    sensor: Sensor
    region: str
    known: Mapping[str, int]
    """Checksum of those that an earlier run has encoded."""


@dataclass(frozen=True)
class Check:
    """One unit of work: patches all sensors of which have been read, region by region."""

    sources: tuple[Source, ...]
    regions: tuple[str, ...]
    """Where each waits."""
    checksums: tuple[dict[Sensor, int], ...]
    """Of the files of each."""


def encode_batch(job: BatchJob, batch: Batch) -> BatchOutcome:
    """Read and encode the patches of a batch, and leave them in the spill.

    Raises:
        OutputError: They cannot be written.
        ClusterError: This worker cannot reach the memory of the main process.
    """
    encoder = _Encoder(job, batch.sensor)
    with open_files(batch, job.spill.token) as files_of:
        for patch in batch.patches:
            files = files_of(patch)
            if patch.is_whole:
                encoder.encode(patch.place, patch.name, files)
            elif not isinstance(files, str):
                encoder.keep(patch.place, patch.name, files)
    return encoder.end(batch.slot)


def encode_parts(job: BatchJob, parts: RegionParts) -> BatchOutcome:
    """Encode the patches of a region that came in parts, now that the last of each has come.

    Raises:
        OutputError: They cannot be written.
    """
    encoder = _Encoder(job, parts.sensor)
    for name, files in collect_files(job.spill, parts.region, parts.sensor):
        encoder.encode(parts.region, name, files, parts.known.get(name))
    return encoder.end(None)


def check_patches(job: BatchJob, check: Check) -> tuple[Reject, ...]:
    """Find the bad ones of some patches: a file of any sensor is bad, or sensors disagree.

    Raises:
        StoreError: What was encoded is gone.
    """
    rejects = []
    for source, region, checksums in zip(check.sources, check.regions, check.checksums, strict=True):
        try:
            readings = {
                sensor: find_patch(job.spill, region, sensor, source.name_of(sensor), checksums[sensor]).reading
                for sensor in locate_sensors(job.reader, source)
            }
            join_readings(job.reader, source, readings)
        except PatchError as error:
            rejects.append(Reject(error.patch_id, error.file, error.reason))
    return tuple(rejects)


class _Encoder:
    """Encodes patches of one sensor, with the same memory for each."""

    def __init__(self, job: BatchJob, sensor: Sensor) -> None:
        self._job, self._sensor = job, sensor
        self._groups = [group for group in job.reader.groups if group.sensor == sensor]
        self._pixels = {group.name: np.empty(group.patch_shape, group.dtype) for group in self._groups}
        self._checksums: dict[str, int] = {}
        self._n_bad = 0

    def encode(self, region: str, name: str, files: Files, known: int | None = None) -> None:
        checksum = hash_files(files)
        self._checksums[name] = checksum
        if checksum == known:
            return
        reading = read_sensor(self._job.reader, self._sensor, name, files, self._pixels)
        self._n_bad += reading.fault is not None
        groups = [] if reading.fault else self._groups
        chunks = [encode_chunk(self._pixels[group.name], group, self._job.codec) for group in groups]
        try:
            spill_patch(self._job.spill, region, self._sensor, reading, checksum, chunks)
        except OSError as error:
            raise explain_unwritable(error, self._job.spill.folder) from error

    def keep(self, region: str, name: str, files: Mapping[str, bytes | OSError]) -> None:
        try:
            spill_files(self._job.spill, region, self._sensor, name, files)
        except OSError as error:
            raise explain_unwritable(error, self._job.spill.folder) from error

    def end(self, slot: int | None) -> BatchOutcome:
        return BatchOutcome(self._sensor, slot, self._checksums, self._n_bad)


def explain_unwritable(error: OSError, where: str) -> OutputError:
    """Say that something in the store cannot be written, and what to do."""
    return OutputError(
        f"{error.filename or where}: cannot be written: {error.strerror}. What is finished is kept: "
        "make room or mend the permissions, then run the same command again"
    )


@contextmanager
def open_files(batch: Batch, token: str) -> Iterator[Callable[[PackedPatch], Files]]:
    """Open the memory of the main process; yields what takes the files of a patch from there.

    Args:
        batch: The patches.
        token: By which the memory is known: elsewhere, the same path may be anything.

    Raises:
        ClusterError: This worker cannot reach the memory.
    """
    if all(isinstance(patch.files, str) for patch in batch.patches):
        yield lambda patch: str(patch.files)
        return
    try:
        reason = "" if token in os.path.realpath(batch.memory) else "it is not there"
        memory = os.open(batch.memory, os.O_RDONLY)
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise ClusterError(
            f"a worker cannot reach the memory of the process that reads the archive ({batch.memory}: {reason}); both "
            "must be on one machine: leave out the option scheduler, or unpack the archive and give its folder"
        )
    try:
        yield lambda patch: patch.files if isinstance(patch.files, str) else _read_files(memory, patch.files)
    finally:
        os.close(memory)


def _read_files(memory: int, packed: PackedFiles) -> dict[str, bytes | OSError]:
    files: dict[str, bytes | OSError] = {file: OSError(reason) for file, reason in packed.faults.items()}
    content = os.pread(memory, sum(packed.sizes.values()), packed.offset)
    start = 0
    for file, size in packed.sizes.items():
        files[file] = content[start : start + size]
        start += size
    return files
