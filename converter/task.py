"""Convert one shard: read its patches, encode them, write the shard of every array and the receipt. Knows no dask."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigearthnet.archive.patch import PatchReader, read_patch
from bigearthnet.archive.records import PatchFacts, Reject
from bigearthnet.errors import OutputError, PatchError
from bigearthnet.store.layout import Codec, name_shard
from bigearthnet.store.manifest import Entry
from bigearthnet.store.shard import encode_chunk, hash_chunks, write_shard
from bigearthnet.store.statistics import BandStatistics, BandSums
from converter.plan import ShardTask
from converter.receipt import Receipt, withdraw_receipt, write_receipt


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
class ShardOutcome:
    """How a task ended."""

    shard: int
    n_patches: int
    rejects: tuple[Reject, ...]
    """Bad patches; if there are any, nothing was written."""


def convert_shard(job: Job, task: ShardTask) -> ShardOutcome:
    """Convert one shard of every array.

    All patches are read even after a bad one, so that one run names them all.

    Raises:
        OutputError: The shard cannot be written.
    """
    groups = job.reader.groups
    pixels = {group.name: np.empty(group.patch_shape, group.dtype) for group in groups}
    chunks: dict[str, list[bytes]] = defaultdict(list)
    sums = {group.name: BandSums(group) for group in groups}
    facts: list[PatchFacts] = []
    rejects: list[Reject] = []
    for position, source in enumerate(task.sources):
        try:
            patch_facts = read_patch(job.reader, source, pixels)
        except PatchError as error:
            rejects.append(Reject(error.patch_id, error.file, error.reason))
        if rejects:
            continue
        facts.append(patch_facts)
        # The patch is still in the cache: whatever needs its pixels happens now.
        for group in groups:
            if position < task.n_train and group.has_statistics(has_s1=patch_facts.has_s1):
                sums[group.name].add(pixels[group.name])
            chunks[group.name].append(encode_chunk(pixels[group.name], group, job.codec))
    if not rejects:
        _commit(job, task, chunks, facts, {name: added.to_statistics() for name, added in sums.items()})
    return ShardOutcome(task.shard, len(task.sources), tuple(rejects))


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
        raise OutputError(
            f"{error.filename or job.store}: cannot be written: {error.strerror}. What is finished is kept: "
            "make room or mend the permissions, then run the same command again"
        ) from error
