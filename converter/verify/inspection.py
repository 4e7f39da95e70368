"""Inspect one shard of a finished store, and hold its patches against the archive. Knows no dask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.patch import PatchReader, load_ahead, read_patch
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import PatchFacts, Source
from bigearthnet.bands import S2_10M, BandGroup, Sensor
from bigearthnet.errors import PatchError
from bigearthnet.files import read_regular
from bigearthnet.store.layout import Layout, name_shard
from bigearthnet.store.shard import DamagedError, decode_chunk, hash_chunks, split_shard
from bigearthnet.store.statistics import BandStatistics, BandSums

COMPARED: tuple[str, ...] = ("labels", "epsg", "x_ul", "y_ul", "s2_time", "s1_time", "tile", "zero_pixels", "has_s1")
"""Columns of the table that reading a patch gives anew."""


@dataclass(frozen=True)
class Fault:
    """Something in a store that is not as it should be."""

    where: str
    """Array, file or column."""
    shard: int | None
    patch_id: str | None
    what: str

    def __str__(self) -> str:
        shard = None if self.shard is None else f"shard {self.shard}"
        return f"{', '.join(filter(None, (self.where, shard, self.patch_id)))}: {self.what}"


@dataclass(frozen=True)
class ShardInspection:
    """One unit of work: one shard of every array."""

    shard: int
    patch_ids: tuple[str, ...]
    """The shard's patches, as the table has them."""
    n_train: int
    """Leading patches that count in the statistics."""
    rows: tuple[dict[str, Any], ...]
    """What the table says of each patch: the columns `COMPARED`."""
    sources: tuple[Source | None, ...]
    """Where each patch lies in the archive; None for one that is not compared with it."""


@dataclass(frozen=True)
class ShardReport:
    """What an inspection found."""

    shard: int
    n_patches: int
    n_compared: int
    """Patches compared with the archive."""
    faults: tuple[Fault, ...]
    checksums: dict[str, str]
    """Hash of the chunks of each array, in the order of the arrays; a damaged array has none."""
    statistics: dict[str, tuple[BandStatistics, ...]]


@dataclass(frozen=True)
class Inspector:
    """What all inspections of one store share."""

    store: str
    layout: Layout
    reader: PatchReader | None
    """How to read the archive to compare with; None to look at the store alone."""


def inspect_shard(inspector: Inspector, task: ShardInspection) -> ShardReport:
    """Inspect one shard of every array: index, checksums, lengths, counts and, if asked, every pixel."""
    groups = inspector.layout.groups
    faults: list[Fault] = []
    checksums: dict[str, str] = {}
    chunks: dict[str, list[bytes]] = {}
    for group in groups:
        try:
            chunks[group.name] = _read_chunks(inspector, group, task)
            checksums[group.name] = hash_chunks(chunks[group.name])
        except (DamagedError, OSError) as error:
            faults.append(Fault(group.name, task.shard, None, str(error)))
    sums = {group.name: BandSums(group) for group in groups}
    stored = {group.name: np.empty(group.patch_shape, group.dtype) for group in groups}
    loaded = load_ahead(inspector.reader, filter(None, task.sources)) if inspector.reader else iter(())
    for position, (patch_id, row) in enumerate(zip(task.patch_ids, task.rows, strict=True)):
        decoded = set()
        for group in groups:
            if group.name not in chunks:
                continue
            pixels = stored[group.name]
            try:
                decode_chunk(chunks[group.name][position], group, inspector.layout.codec, pixels)
            except DamagedError as error:
                faults.append(Fault(group.name, task.shard, patch_id, str(error)))
                continue
            decoded.add(group.name)
            if position < task.n_train and group.has_statistics(has_s1=row["has_s1"]):
                sums[group.name].add(pixels)
        present = {name: stored[name] for name in decoded}
        faults += (
            Fault(where, task.shard, patch_id, what)
            for where, what in _compare_patch(inspector, task.sources[position], loaded, row, present)
        )
    return ShardReport(
        shard=task.shard,
        n_patches=len(task.patch_ids),
        n_compared=sum(source is not None for source in task.sources) if inspector.reader else 0,
        faults=tuple(faults),
        checksums=checksums,
        statistics={name: added.to_statistics() for name, added in sums.items()},
    )


def _read_chunks(inspector: Inspector, group: BandGroup, task: ShardInspection) -> list[bytes]:
    shard = read_regular(Path(inspector.store, name_shard(group, task.shard)))
    slots = split_shard(shard, inspector.layout.shard_size)
    chunks = [chunk for chunk in slots if chunk is not None]
    n_patches = len(task.patch_ids)
    if len(chunks) != n_patches or None in slots[:n_patches]:
        raise DamagedError(f"expected chunks of the first {n_patches:,} patches, found {len(chunks):,} chunks")
    return chunks


def _compare_patch(
    inspector: Inspector,
    source: Source | None,
    loaded: Iterator[Mapping[Sensor, Files]],
    row: dict[str, Any],
    stored: dict[str, NDArray[Any]],
) -> Iterator[tuple[str, str]]:
    """Yield where and how a patch differs from the table and, if it has a source, from the archive."""
    fine = stored.get(S2_10M.name)
    n_zeros = None if fine is None else fine.size - int(np.count_nonzero(fine))
    if n_zeros is not None and n_zeros != row.get("zero_pixels", n_zeros):
        yield "patches.parquet", f"zero_pixels is {row['zero_pixels']}, the pixels have {n_zeros}"
    if source is None or inspector.reader is None:
        return
    raw = {group.name: np.empty(group.patch_shape, group.dtype) for group in inspector.layout.groups}
    try:
        facts = read_patch(inspector.reader, source, raw, next(loaded))
    except PatchError as error:
        yield "archive", f"{error.file}: {error.reason}"
        return
    for name, pixels in stored.items():
        yield from compare_pixels(name, pixels, raw[name])
    yield from compare_facts(row, facts, COMPARED)


def compare_pixels(name: str, stored: NDArray[Any], raw: NDArray[Any]) -> Iterator[tuple[str, str]]:
    """Yield the array, and how its pixels of a patch differ from the archive, if they do in any bit."""
    if stored.tobytes() != raw.tobytes():
        n_different = int(np.count_nonzero(stored.view(np.uint8) != raw.view(np.uint8)))
        yield name, f"differs from the archive in {n_different:,} bytes"


def compare_facts(row: dict[str, Any], facts: PatchFacts, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the table, and how some columns of a patch differ from what its files say."""
    for column in columns:
        expected = getattr(facts, column)
        if column == "labels" and expected is None:  # v2.0: the metadata has them, and `verify` compares them
            continue
        if column in row and row[column] != expected:
            yield "patches.parquet", f"{column} is {row[column]!r}, the archive has {expected!r}"
