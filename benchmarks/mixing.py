"""How well do the orders of a stream mix? Run: python -m benchmarks.mixing.

Batches of 128 of one epoch of the official training split, in the order in which a store keeps it: different scenes in
a batch, and how far class frequencies in a batch are from those of the split. It is arithmetic: any machine finds the
same.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.lists import read_lists
from trainer.stream.order import order_items

BATCH: Final = 128
SHARD_SIZE: Final = 256


@dataclass(frozen=True)
class Mixture:
    """How well an order mixes."""

    scenes: float
    """Different scenes in a batch, on average."""
    error: float
    """Root mean square error of the class frequencies of a batch."""


def measure_mixing(metadata: Path | None) -> tuple[str, dict[str, Mixture]]:
    """Measure the batches of one epoch of the official training split in the order of a store.

    Args:
        metadata: The official `metadata.parquet` of v2.0, which has labels; the lists of v1.0, with countries and
            seasons for classes, if None.

    Returns:
        What the classes are, and for each order its mixture.
    """
    if metadata is not None:
        rows = duckdb.execute(f"SELECT patch_id, labels FROM '{metadata}' WHERE split = 'train'").fetchall()
        what = "19 classes, v2.0"
    else:
        lists = read_lists()
        rows = [
            (name, [f"{lists.pairing_of[name].country} {lists.pairing_of[name].season}"])
            for name, split in lists.split_of.items()
            if split == "train"
        ]
        what = "country and season, v1.0"
    in_scene_order = sorted(rows)
    rows = sorted(rows, key=lambda row: hashlib.blake2b(row[0].encode(), digest_size=8).digest())
    found = {}
    for name, used, order, window in (
        ("global", rows, "global", 1),
        ("window 16", rows, "window", 16),
        ("window 4", rows, "window", 4),
        ("window 1", rows, "window", 1),
        ("sequential", rows, "sequential", 1),
        ("window 16, had the store the order of scenes", in_scene_order, "window", 16),
    ):
        shards = np.arange(len(used)) // SHARD_SIZE
        found[name] = _mix(used, order_items(order, 0, 0, shards, window))  # type: ignore[arg-type]
    return what, found


def _mix(rows: list[tuple[str, list[str]]], order: NDArray[np.int64]) -> Mixture:
    scenes = np.unique([name.rsplit("_", 2)[0] for name, _ in rows], return_inverse=True)[1]
    classes = {label: place for place, label in enumerate(sorted({label for _, found in rows for label in found}))}
    hot = np.zeros((len(rows), len(classes)), np.float32)
    for row, (_, labels) in enumerate(rows):
        hot[row, [classes[label] for label in labels]] = 1
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    error = hot[batches].mean(1) - hot.mean(0)
    return Mixture(
        float(np.mean([len(np.unique(scenes[batch])) for batch in batches])), float(np.sqrt((error**2).mean()))
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=Path, help="metadata.parquet of v2.0, whose labels are the classes then")
    what, mixing = measure_mixing(parser.parse_args().metadata)
    print(f"{'':<46}{'scenes a batch':>16}{'RMS error of class frequencies':>34}   ({what})")
    for name, mixture in mixing.items():
        print(f"{name:<46}{mixture.scenes:>16.1f}{mixture.error:>34.4f}")


if __name__ == "__main__":
    main()
