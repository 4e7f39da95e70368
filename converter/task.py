"""Convert one shard: take its patches, write the shard of every array and the receipt. Knows no dask.

Patches are read from folders and encoded here, or were encoded before, as they came out of an archive.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.patch import PatchReader, join_readings, load_ahead, locate_sensors, read_patch
from bigearthnet.archive.records import PatchFacts, Reject
from bigearthnet.bands import BandGroup, Sensor
from bigearthnet.errors import PatchError
from bigearthnet.store.layout import Codec, name_shard
from bigearthnet.store.manifest import Entry
from bigearthnet.store.shard import decode_chunk, encode_chunk, hash_chunks, is_sound, write_shard
from bigearthnet.store.statistics import BandStatistics, BandSums
from converter.batch import explain_unwritable
from converter.plan import ShardTask
from converter.receipt import Receipt, withdraw_receipt, write_receipt
from converter.spill import Spill, close_writer, discard_region, find_patch


@dataclass(frozen=True)
class Job:
    """What all tasks of one conversion share."""

    reader: PatchReader
    store: str
    """The store's folder."""
    receipts: str
    """Folder of the receipts."""
    codec: Codec
    shard_size: int
    """Patches in a full shard."""


@dataclass(frozen=True)
class SpilledTask:
    """A shard whose patches were encoded before."""

    task: ShardTask
    spill: Spill
    regions: tuple[str, ...]
    """Where each patch waits."""
    checksums: tuple[dict[Sensor, int], ...]
    """Of the files of each patch."""


@dataclass(frozen=True)
class ShardOutcome:
    """How a task ended."""

    shard: int
    n_patches: int
    rejects: tuple[Reject, ...]
    """Bad patches; if there are any, nothing was written."""


def convert_shard(job: Job, task: ShardTask | SpilledTask) -> ShardOutcome:
    """Convert one shard of every array.

    All patches are read even after a bad one, so that one run names them all.

    Raises:
        OutputError: The shard cannot be written.
        StoreError: Patches were encoded before, and are gone or damaged.
    """
    patches: _Patches
    if isinstance(task, SpilledTask):
        patches, task = _SpilledPatches(job, task), task.task
    else:
        patches = _FolderPatches(job, task)
    groups = job.reader.groups
    chunks: dict[str, list[bytes]] = defaultdict(list)
    sums = {group.name: BandSums(group) for group in groups}
    facts: list[PatchFacts] = []
    rejects: list[Reject] = []
    for position in range(len(task.sources)):
        try:
            patch_facts = patches.read(position)
        except PatchError as error:
            rejects.append(Reject(error.patch_id, error.file, error.reason))
        if rejects:
            continue
        facts.append(patch_facts)
        # The patch is still in the cache: whatever needs its pixels happens now.
        for group in groups:
            if position < task.n_train and group.has_statistics(has_s1=patch_facts.has_s1):
                sums[group.name].add(patches.pixels[group.name])
            chunks[group.name].append(patches.encode(group))
    if not rejects:
        _commit(job, task, chunks, facts, {name: added.to_statistics() for name, added in sums.items()})
    return ShardOutcome(task.shard, len(task.sources), tuple(rejects))


class _Patches(Protocol):
    """The patches of a shard, one at a time."""

    pixels: dict[str, NDArray[np.generic]]
    """Those of the patch that was read last, by array; of training patches at least."""

    def read(self, position: int) -> PatchFacts:
        """Read a patch, one after another from the first; PatchError if it is bad."""

    def encode(self, group: BandGroup) -> bytes:
        """Return the chunk of an array of the patch that was read last."""


class _FolderPatches:
    """Patches that lie in folders."""

    def __init__(self, job: Job, task: ShardTask) -> None:
        self._job, self._task = job, task
        self._loaded = load_ahead(job.reader, task.sources)
        self.pixels: dict[str, NDArray[np.generic]] = {
            group.name: np.empty(group.patch_shape, group.dtype) for group in job.reader.groups
        }

    def read(self, position: int) -> PatchFacts:
        return read_patch(self._job.reader, self._task.sources[position], self.pixels, next(self._loaded))

    def encode(self, group: BandGroup) -> bytes:
        return encode_chunk(self.pixels[group.name], group, self._job.codec)


class _SpilledPatches:
    """Patches that were encoded before. Only training patches are decoded again: statistics go in the store's order."""

    def __init__(self, job: Job, spilled: SpilledTask) -> None:
        close_writer()  # nothing is spilled any more; a file that is open takes room even when it is removed
        self._job, self._spilled = job, spilled
        self.pixels: dict[str, NDArray[np.generic]] = {
            group.name: np.empty(group.patch_shape, group.dtype) for group in job.reader.groups
        }
        self._chunks: dict[str, bytes] = {}

    def read(self, position: int) -> PatchFacts:
        reader, spilled = self._job.reader, self._spilled
        source, region = spilled.task.sources[position], spilled.regions[position]
        checksums = spilled.checksums[position]
        readings = {}
        self._chunks = {}
        for sensor in locate_sensors(reader, source):
            patch = find_patch(spilled.spill, region, sensor, source.name_of(sensor), checksums[sensor])
            readings[sensor] = patch.reading
            groups = [group for group in reader.groups if group.sensor == sensor]
            for group, chunk in zip(groups, patch.read_chunks(), strict=False):  # a bad patch has none
                if not is_sound(chunk):
                    raise discard_region(spilled.spill, region, f"{source.patch_id} was encoded, and is damaged")
                self._chunks[group.name] = chunk
        facts = join_readings(reader, source, readings)
        for group in reader.groups:
            if group.name not in self._chunks:  # Sentinel-1 that may be missing
                self.pixels[group.name].fill(np.nan)
            elif position < spilled.task.n_train and group.sensor != "map":
                decode_chunk(self._chunks[group.name], group, self._job.codec, self.pixels[group.name])
        return facts

    def encode(self, group: BandGroup) -> bytes:
        chunk = self._chunks.get(group.name)
        return encode_chunk(self.pixels[group.name], group, self._job.codec) if chunk is None else chunk


def _commit(
    job: Job,
    task: ShardTask,
    chunks: dict[str, list[bytes]],
    facts: list[PatchFacts],
    statistics: dict[str, tuple[BandStatistics, ...]],
) -> None:
    """Put the shards on disk, then the receipt that vouches for them."""
    try:
        withdraw_receipt(Path(job.receipts), Path(job.store), task)
        objects = {}
        for group in job.reader.groups:
            encoded = chunks[group.name]
            path = name_shard(group, task.shard)
            n_bytes = write_shard(f"{job.store}/{path}", encoded, job.shard_size)
            objects[path] = Entry(n_bytes, hash_chunks(encoded))
        receipt = Receipt(
            shard=task.shard,
            digest=task.digest,
            objects=objects,
            facts=tuple(facts),
            statistics=statistics,
        )
        write_receipt(Path(job.receipts), receipt)
    except OSError as error:
        raise explain_unwritable(error, job.store) from error
