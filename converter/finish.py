"""Turn the receipts of all shards into a finished store: metadata, coordinates, table and, last, the manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet import __version__
from bigearthnet.archive.records import Reject
from bigearthnet.labels import LABELS_19, LABELS_43
from bigearthnet.lock import Lock
from bigearthnet.names import CITATIONS, LICENSE, N_PATCHES, SPLITS, TITLES
from bigearthnet.store.croissant import describe_dataset
from bigearthnet.store.images import remove_other_shards, write_metadata
from bigearthnet.store.layout import CROISSANT, FORMAT_NAME, FORMAT_VERSION, MANIFEST, REJECTS, TABLE, Layout
from bigearthnet.store.manifest import Entry, build_manifest, encode_manifest
from bigearthnet.store.statistics import BandStatistics, merge_statistics
from bigearthnet.store.table import Table, build_table, encode_rejects, encode_table, hash_table
from converter.interrupts import hold_interrupts
from converter.plan import Plan
from converter.receipt import Receipt
from converter.target import flush_files, place_file, release_target

_COORDINATES: Final = {"patch_id": object, "epsg": np.int32, "x_ul": np.float64, "y_ul": np.float64}
"""Columns of the table that are coordinates of the images too."""


def finish_store(
    store: Path, plan: Plan, receipts: Sequence[Receipt], rejects: Sequence[Reject], lock: Lock, *, synthetic: bool
) -> None:
    """Finish a store all of whose shards are on disk.

    Args:
        store: The store's folder.
        plan: The plan that the receipts fulfil.
        receipts: One a task, in order.
        rejects: Patches that are not in the plan, and why.
        lock: That of the store, which must still be held.
        synthetic: The archive was made by `ben-convert sample`.
    """
    facts = [fact for receipt in receipts for fact in receipt.facts]
    table = build_table(plan.patches, facts)
    shards = {path: entry for receipt in receipts for path, entry in receipt.objects.items()}
    attributes: dict[str, Any] = {
        "dataset": TITLES[plan.layout.dataset],
        "converter_version": __version__,
        "options": {"codec": plan.layout.codec, "shard_size": plan.layout.shard_size, "bands": plan.layout.bands},
        "counts": {
            "expected": N_PATCHES[plan.layout.dataset],
            "found": plan.n_patches + len(rejects),
            "converted": plan.n_patches,
            "rejected": len(rejects),
        },
        "splits": count_splits(patch.split if patch.recommended else None for patch in plan.patches),
        "labels_43": LABELS_43 if plan.layout.dataset == "v1" else (),
        "labels_19": LABELS_19,
        "statistics": summarise_bands(plan.layout, [receipt.statistics for receipt in receipts]),
        **({"synthetic": True} if synthetic else {}),
        "license": LICENSE,
        "citation": CITATIONS[plan.layout.dataset],
    }
    seal_store(store, plan.layout, table, attributes, shards, rejects, lock)


def seal_store(
    store: Path,
    layout: Layout,
    table: Table,
    attributes: Mapping[str, Any],
    shards: Mapping[str, Entry],
    rejects: Sequence[Reject],
    lock: Lock,
) -> None:
    """Write all that a store has beside its shards, and the manifest last of all.

    Args:
        store: The store's folder.
        layout: Its arrays.
        table: Its patches.
        attributes: Root attributes, but for format and fingerprint.
        shards: How each shard is recognised: shard by shard, inside each in the order of the arrays.
        rejects: Patches that were left out, and why.
        lock: That of the store, which must still be held.
    """
    fingerprint = make_fingerprint((entry.checksum for entry in shards.values()), table)
    heading = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "fingerprint": fingerprint}
    attributes = {**heading, **{name: value for name, value in attributes.items() if name not in heading}}
    coordinates = {name: np.array(table[name].to_pylist(), kind) for name, kind in _COORDINATES.items()}
    lock.check()
    remove_other_shards(store, shards)
    with hold_interrupts():  # zarr would leave its event loop behind, and complain
        write_metadata(store, layout, coordinates, attributes)
    place_file(store, TABLE, encode_table(table, fingerprint))
    write_rejects(store, rejects)
    place_file(store, CROISSANT, describe_dataset(store, layout, attributes).encode())
    manifest = build_manifest(store, fingerprint, attributes["counts"], shards)
    flush_files(store, manifest.files)
    lock.check()
    place_file(store, MANIFEST, encode_manifest(manifest), flushed=True)
    release_target(store)


def write_rejects(store: Path, rejects: Sequence[Reject]) -> None:
    """Write the list of patches that could not be converted, if there are any; one of an earlier run goes."""
    if rejects:
        place_file(store, REJECTS, encode_rejects(rejects))
    else:
        (store / REJECTS).unlink(missing_ok=True)


def make_fingerprint(checksums: Iterable[str], table: Table) -> str:
    """Hash everything a store holds.

    Args:
        checksums: Those of all shards: shard by shard, inside each in the order of the arrays.
        table: The table of patches.
    """
    return hashlib.blake2b("".join([*checksums, hash_table(table)]).encode(), digest_size=16).hexdigest()


def count_splits(splits: Iterable[str | None]) -> dict[str, list[int]]:
    """Return the half-open range of rows that each split takes.

    Args:
        splits: The split of each recommended patch, None for all others, in store order.
    """
    counts = Counter(splits)
    ends = list(accumulate((counts[split] for split in SPLITS), initial=0))
    return {split: list(rows) for split, rows in zip(SPLITS, pairwise(ends), strict=True)}


def summarise_bands(layout: Layout, statistics: Sequence[Mapping[str, tuple[BandStatistics, ...]]]) -> dict[str, Any]:
    """Summarise the statistics of each band, as the root attribute `statistics` has them.

    Args:
        layout: The store's arrays.
        statistics: Of each shard, per array, per band, over the recommended training patches.
    """
    return {
        band: asdict(band_statistics.summarise())
        for group in layout.groups
        if group.sensor != "map"  # class codes have no mean
        for band, band_statistics in zip(
            group.bands, merge_statistics(of[group.name] for of in statistics), strict=True
        )
    }
