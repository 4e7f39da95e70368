"""The receipt of a finished shard: proof that it is on disk, and what its patches taught.

A run that is interrupted goes on from the receipts it finds; the table is made of nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from bigearthnet.archive.records import PatchFacts
from bigearthnet.files import flush, write_durably
from bigearthnet.store.manifest import Entry
from bigearthnet.store.statistics import BandStatistics
from converter.plan import ShardTask

_FACTS: Final = tuple(field.name for field in fields(PatchFacts))


@dataclass(frozen=True)
class Receipt:
    """What one finished task left behind."""

    shard: int
    digest: str
    """Digest of the task, which must still be the planned one."""
    objects: dict[str, Entry]
    """The shard of each array as it lies on disk, by its path relative to the store."""
    facts: tuple[PatchFacts, ...]
    """One record a patch, in the order of the shard."""
    statistics: dict[str, tuple[BandStatistics, ...]]
    """Per array, per band, over the shard's training patches."""


def receipt_path(folder: Path, shard: int) -> Path:
    """Name the receipt of a shard."""
    return folder / f"{shard:06d}.json"


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write a receipt durably; its shard objects must be on disk before."""
    content = {
        "shard": receipt.shard,
        "digest": receipt.digest,
        "objects": receipt.objects,
        "facts": [[getattr(facts, name) for name in _FACTS] for facts in receipt.facts],
        "statistics": {name: [asdict(band) for band in bands] for name, bands in receipt.statistics.items()},
    }
    encoded = _encode(content | {"checksum": _hash(content)})
    write_durably(str(receipt_path(folder, receipt.shard)), [encoded])


def read_receipt(folder: Path, store: Path, task: ShardTask) -> Receipt | None:
    """Read the receipt of a task.

    Returns:
        None unless there is one, whole and of this very task, and every object it names is there in its full size.
    """
    try:
        content = json.loads(receipt_path(folder, task.shard).read_bytes())
        if content.pop("checksum") != _hash(content):
            return None
        receipt = _decode(content)
        if any((store / path).stat().st_size != entry.n_bytes for path, entry in receipt.objects.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    vouched = (receipt.shard, receipt.digest, len(receipt.facts))
    return receipt if vouched == (task.shard, task.digest, len(task.sources)) else None


def withdraw_receipt(folder: Path, store: Path, task: ShardTask) -> None:
    """Remove the receipt of an earlier task before the objects of its shard are replaced: it would vouch for others."""
    path = receipt_path(folder, task.shard)
    if path.exists() and read_receipt(folder, store, task) is None:
        path.unlink()
        flush(folder)


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _hash(content: dict[str, Any]) -> str:
    return hashlib.blake2b(_encode(content), digest_size=8).hexdigest()


def _decode(content: dict[str, Any]) -> Receipt:
    return Receipt(
        shard=content["shard"],
        digest=content["digest"],
        objects={path: Entry(*entry) for path, entry in content["objects"].items()},
        facts=tuple(PatchFacts(labels and tuple(labels), *rest) for labels, *rest in content["facts"]),
        statistics={
            name: tuple(BandStatistics(**band) for band in bands) for name, bands in content["statistics"].items()
        },
    )
