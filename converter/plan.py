"""Decide what goes where before anything runs: the order of patches, the shards, the bytes. Pure."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from bigearthnet import __version__
from bigearthnet.archive.patch import N_AHEAD
from bigearthnet.archive.records import Patch, Source
from bigearthnet.errors import SourceError
from bigearthnet.names import SPLITS
from bigearthnet.store.layout import Codec, Layout

COMPRESSION_RATIO: Final[dict[Codec, float]] = {"lz4": 1.35, "zstd": 1.4, "none": 1.0}
"""Cautious ratios for projecting disk space: six real v1.0 patches of Sentinel-2 give 1.41 and 1.46."""

_CHUNK_OVERHEAD_BYTES: Final = 20
"""Checksum and index entry of one inner chunk."""

WORKER_BYTES: Final = 180 * 2**20
"""Memory of an idle worker process: the interpreter, dask, numpy and the codecs (make bench: 164 MB at work)."""


@dataclass(frozen=True)
class ShardTask:
    """One unit of work: the same shard of every array, and one receipt."""

    shard: int
    """Position along the patch axis of the shard grid."""
    sources: tuple[Source, ...]
    """The shard's patches in store order; all but the last shard are full."""
    n_train: int
    """Leading patches that are recommended training rows, over which statistics are taken."""
    digest: str
    """Hash of everything that decides the shard's bytes except the pixels; a receipt must repeat it."""


@dataclass(frozen=True)
class Plan:
    """Which patch becomes which row, and what the store will take."""

    layout: Layout
    patches: tuple[Patch, ...]
    """Every patch in store order: row i of the table, index i of every array."""

    @property
    def n_patches(self) -> int:
        """Patches to convert."""
        return len(self.patches)

    @property
    def n_shards(self) -> int:
        """Shards of each array, and tasks."""
        return math.ceil(self.n_patches / self.layout.shard_size)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixels, before compression."""
        return self.n_patches * self.layout.patch_bytes

    @property
    def projected_bytes(self) -> int:
        """Bytes that the store is expected to take on disk."""
        overhead = self.n_patches * len(self.layout.groups) * _CHUNK_OVERHEAD_BYTES
        return int(self.pixel_bytes / COMPRESSION_RATIO[self.layout.codec]) + overhead

    @property
    def worker_bytes(self) -> int:
        """Memory that one worker is expected to need: itself, one shard of every array, encoded, and files ahead."""
        n_patches = min(self.layout.shard_size, self.n_patches) + min(N_AHEAD, self.n_patches)
        return WORKER_BYTES + n_patches * self.layout.patch_bytes

    @cached_property
    def split_counts(self) -> Counter[str]:
        """Recommended patches of each split, and all others under `other`."""
        return Counter(p.split if p.recommended and p.split else "other" for p in self.patches)

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the plan as JSON values."""
        return {
            "n_patches": self.n_patches,
            "splits": dict(self.split_counts),
            "arrays": {group.name: list(group.bands) for group in self.layout.groups},
            "codec": self.layout.codec,
            "shard_size": self.layout.shard_size,
            "n_shards": self.n_shards,
            "pixel_bytes": self.pixel_bytes,
            "projected_bytes": self.projected_bytes,
            "worker_bytes": self.worker_bytes,
        }

    @cached_property
    def digest(self) -> str:
        """Hash of what all tasks hash, in order."""
        return _hash_text(task.digest for task in self.tasks)

    @cached_property
    def tasks(self) -> tuple[ShardTask, ...]:
        """One task a shard, in store order."""
        n_train = self.split_counts["train"]
        size = self.layout.shard_size
        return tuple(
            _make_task(self.layout, shard, self.patches[first : first + size], min(size, max(0, n_train - first)))
            for shard, first in enumerate(range(0, self.n_patches, size))
        )


def plan_store(patches: Iterable[Patch], layout: Layout) -> Plan:
    """Order patches and cut them into shards.

    The recommended training patches come first, then those of validation and test, then all the rest; inside each part
    the order is that of a hash of the patch name. A split is thus one contiguous range, neighbours in the store come
    from all over Europe, and neither the order of listing nor the number of workers can change the result.

    Args:
        patches: Every patch to convert, in any order.
        layout: Arrays, codec and shard size.

    Raises:
        SourceError: There are no patches, or one occurs twice.
    """
    ordered = tuple(sorted(patches, key=_store_order))
    if not ordered:
        raise SourceError("there are no patches to convert")
    n_names = len({patch.patch_id for patch in ordered})
    if n_names != len(ordered):
        raise SourceError(f"expected every patch once, found {len(ordered):,} patches of {n_names:,} names")
    return Plan(layout, ordered)


def leave_out(plan: Plan, patch_ids: Collection[str]) -> Plan:
    """Plan again without some patches, moving as few of the others as possible.

    Splits stay contiguous and rows dense: each split closes its gaps with patches from its own end, so that most
    shards, and their receipts, stay what they were.

    Raises:
        SourceError: No patch is left.
    """
    rows: list[Patch] = []
    first = 0
    for part in (*SPLITS, "other"):
        old = range(first, first + plan.split_counts[part])
        first = old.stop
        kept = {i: plan.patches[i] for i in old if plan.patches[i].patch_id not in patch_ids}
        new = range(len(rows), len(rows) + len(kept))
        moved = iter([patch for i, patch in kept.items() if i not in new])
        rows += [kept[i] if i in kept else next(moved) for i in new]
    if not rows:
        raise SourceError("every patch of the archive is bad, there is nothing to convert")
    return Plan(plan.layout, tuple(rows))


def name_region(patch: Patch) -> str:
    """Name the stretch of the store's order that a patch belongs to: one of 32 of its part."""
    part, place, _ = _store_order(patch)
    return f"{part}-{place[0] >> 3:02}"


def _store_order(patch: Patch) -> tuple[int, bytes, str]:
    part = SPLITS.index(patch.split) if patch.recommended and patch.split else len(SPLITS)
    return part, hashlib.blake2b(patch.patch_id.encode(), digest_size=8).digest(), patch.patch_id


def _make_task(layout: Layout, shard: int, patches: Sequence[Patch], n_train: int) -> ShardTask:
    sources = tuple(patch.source for patch in patches)
    return ShardTask(
        shard=shard,
        sources=sources,
        n_train=n_train,
        digest=_hash_text([__version__, repr(layout), str(n_train), *map(repr, sources)]),
    )


def _hash_text(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(errors="surrogateescape"), digest_size=16).hexdigest()
