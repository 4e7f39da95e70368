"""Convert one shard: read its patches, encode them, write the shard of every array and the receipt. Knows no dask."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.annotation import read_annotation
from converter.bigearthnet import S2_10M, annotation_file, band_file
from converter.errors import PatchError, StoreError
from converter.model import Annotation, Layout, PatchFacts, Reject, ShardTask, Source
from converter.raster import Georeference, read_band
from converter.receipt import Receipt, ShardObject, write_receipt
from converter.shard import encode_chunk, write_shard
from converter.statistics import BandStatistics, measure_bands, merge_statistics

Reader = Literal["auto", "rasterio"]
"""`auto` takes plain GeoTIFFs as they lie and gives others to rasterio; `rasterio` gives it all of them."""


@dataclass(frozen=True)
class Job:
    """What all tasks of one conversion share."""

    raw: str
    """The archive's folder."""
    store: str
    """The store's folder."""
    receipts: str
    """Folder of the receipts."""
    layout: Layout
    reader: Reader


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
        StoreError: The shard cannot be written.
    """
    groups = job.layout.groups
    buffers = {group.name: np.empty(group.patch_shape, group.dtype) for group in groups}
    chunks: dict[str, list[bytes]] = defaultdict(list)
    measured: dict[str, list[tuple[BandStatistics, ...]]] = defaultdict(list)
    facts: list[PatchFacts] = []
    rejects: list[Reject] = []
    for position, source in enumerate(task.sources):
        try:
            facts.append(_read_patch(job, source, buffers))
        except PatchError as error:
            rejects.append(Reject(error.patch_id, error.file, error.reason))
        if rejects:
            continue
        for group in groups:
            pixels = buffers[group.name]
            if position < task.n_train:
                measured[group.name].append(measure_bands(pixels))
            chunks[group.name].append(encode_chunk(pixels, group, job.layout.codec))
    if not rejects:
        _commit(job, task, chunks, facts, measured)
    return ShardOutcome(task.shard, len(task.sources), tuple(rejects))


def _read_patch(job: Job, source: Source, buffers: dict[str, NDArray[np.generic]]) -> PatchFacts:
    """Read a patch into the buffers, one (band, row, col) array a group."""
    folder = f"{job.raw}/{source.folder}"
    annotation = read_annotation(folder, source.patch_id)
    for group in job.layout.groups:
        for band, plane in zip(group.bands, buffers[group.name], strict=True):
            found = read_band(folder, source.patch_id, band, group, plane, plain=job.reader == "auto")
            _check_place(source.patch_id, band, found, annotation)
    fine = buffers.get(S2_10M.name)
    return PatchFacts(annotation, zero_pixels=0 if fine is None else fine.size - int(np.count_nonzero(fine)))


def _check_place(patch_id: str, band: str, found: Georeference, expected: Annotation) -> None:
    if (found.epsg, found.x_ul, found.y_ul) != (expected.epsg, expected.x_ul, expected.y_ul):
        raise PatchError(
            patch_id,
            band_file(patch_id, band),
            f"expected the upper-left corner ({expected.x_ul:.0f}, {expected.y_ul:.0f}) in EPSG:{expected.epsg} that "
            f"{annotation_file(patch_id)} gives, found ({found.x_ul:.10g}, {found.y_ul:.10g}) in EPSG:{found.epsg}",
        )


def _commit(
    job: Job,
    task: ShardTask,
    chunks: dict[str, list[bytes]],
    facts: list[PatchFacts],
    measured: dict[str, list[tuple[BandStatistics, ...]]],
) -> None:
    """Put the shards on disk, then the receipt that vouches for them."""
    try:
        objects = []
        for group in job.layout.groups:
            encoded = chunks[group.name]
            path = group.shard_path(task.shard)
            n_bytes = write_shard(f"{job.store}/{path}", encoded, job.layout.shard_size)
            checksums = b"".join(chunk[-4:] for chunk in encoded)
            objects.append(ShardObject(path, n_bytes, hashlib.blake2b(checksums, digest_size=8).hexdigest()))
        receipt = Receipt(
            shard=task.shard,
            digest=task.digest,
            objects=tuple(objects),
            facts=tuple(facts),
            statistics={g.name: merge_statistics(measured[g.name], len(g.bands)) for g in job.layout.groups},
        )
        write_receipt(Path(job.receipts), receipt)
    except OSError as error:
        raise StoreError(
            f"{error.filename or job.store}: cannot be written: {error.strerror}. What is finished is kept: "
            "make room or mend the permissions, then run the same command again"
        ) from error
