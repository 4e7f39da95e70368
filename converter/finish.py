"""Turn the receipts of all shards into a finished store: metadata, coordinates, statistics and, last, the table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter import __version__
from converter.bigearthnet import CITATIONS, LABELS_19, LABELS_43, LICENSE, N_PATCHES, SPLITS, TITLES
from converter.model import Reject
from converter.plan import Plan
from converter.receipt import Receipt
from converter.statistics import merge_statistics
from converter.store import FORMAT_NAME, FORMAT_VERSION, remove_other_shards, write_metadata
from converter.table import build_table, write_rejects, write_table
from converter.target import release_target


def finish_store(store: Path, plan: Plan, receipts: Sequence[Receipt], rejects: Sequence[Reject]) -> None:
    """Finish a store all of whose shards are on disk.

    Args:
        store: The store's folder.
        plan: The plan that the receipts fulfil.
        receipts: One a task, in order.
        rejects: Patches that are not in the plan, and why.
    """
    facts = [found for receipt in receipts for found in receipt.facts]
    fingerprint = _fingerprint(plan, receipts)
    coordinates = {
        "patch_id": np.array([patch.patch_id for patch in plan.patches], dtype=object),
        "epsg": np.array([found.epsg for found in facts], dtype=np.int32),
        "x_ul": np.array([found.x_ul for found in facts]),
        "y_ul": np.array([found.y_ul for found in facts]),
    }
    attributes = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "dataset": TITLES[plan.layout.dataset],
        "converter_version": __version__,
        "options": {"codec": plan.layout.codec, "shard_size": plan.layout.shard_size, "bands": plan.layout.bands},
        "counts": _count(plan, len(rejects)),
        "splits": _split_ranges(plan),
        "labels_43": LABELS_43 if plan.layout.dataset == "v1" else (),
        "labels_19": LABELS_19,
        "statistics": _summarise_bands(plan, receipts),
        "license": LICENSE,
        "citation": CITATIONS[plan.layout.dataset],
    }
    remove_other_shards(store, {made.path for receipt in receipts for made in receipt.objects})
    write_metadata(store, plan.layout, coordinates, attributes)
    write_rejects(store, rejects)
    metadata = {"fingerprint": fingerprint, "format": FORMAT_NAME, "format_version": str(FORMAT_VERSION)}
    write_table(store, build_table(plan.patches, facts), metadata)
    release_target(store)


def _fingerprint(plan: Plan, receipts: Sequence[Receipt]) -> str:
    """Hash every name, pixel and label of the store, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for task, receipt in zip(plan.tasks, receipts, strict=True):
        digest.update(task.digest.encode())
        digest.update("".join(made.checksum for made in receipt.objects).encode())
        digest.update(repr(receipt.facts).encode())
    return digest.hexdigest()


def _count(plan: Plan, n_rejected: int) -> dict[str, int]:
    return {
        "expected": N_PATCHES[plan.layout.dataset],
        "found": plan.n_patches + n_rejected,
        "converted": plan.n_patches,
        "rejected": n_rejected,
    }


def _split_ranges(plan: Plan) -> dict[str, list[int]]:
    """Return the half-open range of rows of each split's recommended patches."""
    ranges, first = {}, 0
    for split in SPLITS:
        ranges[split] = [first, first + plan.split_counts[split]]
        first = ranges[split][1]
    return ranges


def _summarise_bands(plan: Plan, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Summarise each band over the recommended training patches."""
    summary: dict[str, Any] = {}
    for group in plan.layout.groups:
        if group.sensor == "map":  # class codes have no mean
            continue
        merged = merge_statistics((receipt.statistics[group.name] for receipt in receipts), len(group.bands))
        for band, found in zip(group.bands, merged, strict=True):
            summary[band] = {
                "mean": found.mean,
                "std": found.std,
                "min": found.minimum,
                "max": found.maximum,
                "count": found.count,
            }
    return summary
