"""Bring part of a store to a disk near by: the arrays and patches that a training needs, as a store of its own.

Patches keep their order, so that a selection from the part is the same selection from the whole; the table says which
rows of the whole they were. Chunks are copied as they are. Only where an array is cut to some of its bands are they
encoded anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import BandGroup, choose_groups
from bigearthnet.errors import BusyError, OptionError, OutputError, StoreError
from bigearthnet.lock import Lock
from bigearthnet.machine import count_cores
from bigearthnet.names import SPLITS
from bigearthnet.store.cache import Cache
from bigearthnet.store.images import read_layout
from bigearthnet.store.layout import MANIFEST, PROGRESS, SPILL, TABLE, Layout, name_shard
from bigearthnet.store.manifest import Entry, open_images, read_manifest
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.query import select_labels
from bigearthnet.store.remote import Objects, RemoteObjects
from bigearthnet.store.rows import check_rows
from bigearthnet.store.shard import (
    CHECKSUM_BYTES,
    EMPTY,
    DamagedError,
    decode_chunk,
    encode_chunk,
    hash_chunks,
    hash_shard,
    is_sound,
    measure_index,
    parse_index,
    write_shard,
)
from bigearthnet.store.table import read_table, take_rows
from converter.events import OnEvent, ignore
from converter.finish import count_splits, seal_store
from converter.target import check_target, claim_target

_CACHE_BYTES: Final = 4 * 2**30
"""Shards of a remote store that are kept until they have been copied."""
_STALL_S, _PATIENCE_S = 20, 600
"""As for a training on a remote store."""
_WAIT_S: Final = 0.5
"""Time between two looks at whether another process has finished."""

Advance = Callable[[int, int], None]
"""Told how many patches are there, of how many."""


@dataclass(frozen=True)
class StageOptions:
    """What to bring, and in place of what."""

    bands: tuple[str, ...] = ("all",)
    """Bands or sets of bands."""
    splits: tuple[str, ...] = ()
    """Only these official splits; all patches if there are none."""
    where: tuple[str, ...] = ()
    """Conditions in SQL over the columns of the table, all of which must hold."""
    recommended: bool = True
    """Leave out patches with snow, cloud or shadow, or without a 19-class label, as a training does."""
    overwrite: bool = False
    """Replace another store, or another part, that is there."""

    def __post_init__(self) -> None:
        if unknown := set(self.splits) - set(SPLITS):
            raise OptionError(f"expected splits out of {', '.join(SPLITS)}, found {', '.join(sorted(unknown))}")


@dataclass(frozen=True)
class Staged:
    """A part that is there."""

    store: Path
    n_patches: int
    n_bytes: int
    """Of all shards."""
    was_there: bool = True
    """Nothing had to be copied."""


def stage(
    store: Path | str,
    part: Path | str,
    options: StageOptions | None = None,
    advance: Advance = lambda _done, _total: None,
    on_event: OnEvent = ignore,
    storage_options: Mapping[str, Any] | None = None,
) -> Staged:
    """Bring part of a store to a folder. If it is there already, nothing is done; if another process is at it, wait.

    Whoever was killed goes on with the same call.

    Args:
        store: The folder of a finished store, or its URL (`s3://`, `http://`, `https://`).
        part: The folder to write to.
        options: What to bring.
        advance: Called as patches arrive.
        on_event: Called when another process may be alive that has begun.
        storage_options: As for `trainer.open_store`.

    Raises:
        StoreError: There is no finished store, or it is damaged, or something else is in the folder.
        SelectionError, OptionError: Nothing is selected, or a name is unknown.
        OutputError: The folder cannot be written.
        RemoteError: The server does not answer as it should.
    """
    options, folder = options or StageOptions(), Path(part).absolute()
    text = str(store).removeprefix("file://")
    objects: Objects = LocalObjects(Path(text))
    if "://" in text:
        cache = Cache(folder / PROGRESS / SPILL, _CACHE_BYTES)
        objects = RemoteObjects(text, cache, storage_options or {}, _STALL_S, _PATIENCE_S)
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    del chosen["overwrite"]
    origin = {"fingerprint": read_manifest(objects).fingerprint, "origin": objects.name, **chosen}
    copy: _Copy | None = None
    while True:
        if found := _find(folder, origin):
            return found
        try:
            check_target(folder, overwrite=options.overwrite)
            copy = copy or _Copy(objects, folder, options, origin)
            with claim_target(
                folder, origin, on_event, overwrite=options.overwrite, projected_bytes=copy.n_bytes
            ) as lock:
                return copy.run(lock, advance)
        except BusyError:
            time.sleep(_WAIT_S)
        except OutputError:
            if not _find(folder, origin):  # which another process has just finished
                raise


def _find(folder: Path, origin: Mapping[str, Any]) -> Staged | None:
    """Find the part if it is there; where it was copied from does not matter."""
    if not (folder / MANIFEST).is_file() or (folder / PROGRESS).exists():
        return None
    manifest, attributes, _ = open_images(LocalObjects(folder))
    there = attributes.get("part_of") or {}
    if any(there.get(key) != value for key, value in origin.items() if key != "origin"):
        return None
    n_bytes = sum(entry.n_bytes for entry in manifest.shards.values())
    return Staged(folder, manifest.counts["converted"], n_bytes)


class _Copy:
    """Copies one part of one store."""

    def __init__(self, objects: Objects, folder: Path, options: StageOptions, origin: Mapping[str, Any]) -> None:
        self._objects, self._folder, self._origin = objects, folder, origin
        self._manifest, self._attributes, arrays = open_images(objects)
        if others := [info.name for info in arrays if info.chain == "other"]:
            raise StoreError(
                f"{objects.name}: array {others[0]} has a codec chain that the converter does not write; copy the "
                "store as it is"
            )
        table = Path(objects.path(self._manifest.describe_file(TABLE)))
        check_rows(table, self._attributes, arrays[0].n_patches)
        listed = [f"split IN ({', '.join(repr(split) for split in options.splits)})"] if options.splits else []
        self._rows = select_labels(
            str(table),
            "labels_19",
            self._attributes["labels_19"],
            split=None,
            where=[*listed, *options.where],
            recommended=options.recommended,
        ).rows
        self._table = take_rows(read_table(table.parent), self._rows)
        whole = read_layout(Path(objects.name), self._attributes)
        groups = choose_groups(",".join(options.bands), whole.bands)
        self._layout = Layout(whole.dataset, groups, whole.codec, whole.shard_size)
        self._whole = {group.name: group for group in whole.groups}
        self._closed: Future[None] = Future()

    def run(self, lock: Lock, advance: Advance) -> Staged:
        """Copy what is not there yet, and finish the store."""
        n_patches, size = len(self._rows), self._layout.shard_size
        shards: dict[str, Entry] = {}
        with self._start_threads() as pool:
            for number, entries in enumerate(pool.map(self._copy, range(-(-n_patches // size)))):
                lock.check()
                shards |= entries
                advance(min((number + 1) * size, n_patches), n_patches)
        seal_store(self._folder, self._layout, self._table, self._describe(), shards, [], lock)
        n_bytes = sum(entry.n_bytes for entry in shards.values())
        return Staged(self._folder, n_patches, n_bytes, was_there=False)

    @contextmanager
    def _start_threads(self) -> Iterator[ThreadPoolExecutor]:
        """Start threads, who mostly wait for disk or server; when something goes wrong they end at once."""
        pool = ThreadPoolExecutor(min(2 * count_cores(), 16))
        try:
            yield pool
        finally:
            with suppress(InvalidStateError):
                self._closed.set_result(None)
            pool.shutdown(cancel_futures=True)

    @property
    def n_bytes(self) -> int:
        """Bytes that the part takes: of each array, the share of patches and bands."""
        n_bytes = dict.fromkeys(self._whole, 0)
        for path, entry in self._manifest.shards.items():
            n_bytes[path.split("/")[1]] += entry.n_bytes
        shares = (
            n_bytes[group.name] * len(group.bands) / len(self._whole[group.name].bands) for group in self._layout.groups
        )
        return int(sum(shares) * len(self._rows) / max(1, self._manifest.counts["converted"]))

    def _copy(self, number: int) -> dict[str, Entry]:
        """Make one shard of each array, unless an earlier run did."""
        size = self._layout.shard_size
        rows = self._rows[number * size : (number + 1) * size]
        entries = {}
        for group in self._layout.groups:
            name = name_shard(group, number)
            path = self._folder / name
            try:
                entries[name] = Entry(path.stat().st_size, hash_shard(path.read_bytes(), size))
                continue
            except (FileNotFoundError, DamagedError):
                pass
            chunks = [self._cut(chunk, group) for chunk in self._read(self._whole[group.name], rows)]
            entries[name] = Entry(write_shard(str(path), chunks, size), hash_chunks(chunks))
        return entries

    def _read(self, group: BandGroup, rows: NDArray[np.integer]) -> Iterator[bytes]:
        """Read the chunks of patches, each shard compared with the manifest and each chunk with its checksum."""
        size = self._layout.shard_size
        for shard, places in groupby(rows.tolist(), key=lambda row: row // size):
            name = name_shard(group, shard)
            try:
                yield from self._read_shard(name, [row % size for row in places])
            except KeyError as error:
                raise StoreError(f"{self._objects.name}/{name}: {MANIFEST} does not list it; copy it again") from error
            except (DamagedError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise StoreError(f"{self._objects.name}/{name}: {reason}; {self._objects.advise(name)}") from error

    def _read_shard(self, name: str, places: Sequence[int]) -> list[bytes]:
        size = self._layout.shard_size
        wanted = self._manifest.describe_shard(name, size)
        with open(self._objects.open(wanted, self._closed), "rb") as file:
            if (n_bytes := os.fstat(file.fileno()).st_size) != wanted.n_bytes:
                raise DamagedError(f"expected {wanted.n_bytes:,} bytes, found {n_bytes:,}")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as shard:
                start = max(n_bytes - measure_index(size), 0)
                entries = parse_index(shard[start:], size, start)
                ends = [int(first + length) for first, length in entries.tolist() if first != EMPTY]
                if hash_chunks([shard[end - CHECKSUM_BYTES : end] for end in ends]) != wanted.checksum:
                    raise DamagedError("its chunks are not those that were written")
                chunks = [shard[first : first + length] for first, length in entries[places].tolist()]
        if not all(map(is_sound, chunks)):
            raise DamagedError("the crc32c of a chunk does not match")
        return chunks

    def _cut(self, chunk: bytes, group: BandGroup) -> bytes:
        """Keep some bands of a chunk; all of them is the chunk as it is."""
        whole = self._whole[group.name]
        if group.bands == whole.bands:
            return chunk
        pixels = np.empty(whole.patch_shape, whole.dtype)
        decode_chunk(chunk, whole, self._layout.codec, pixels)
        places = [whole.bands.index(band) for band in group.bands]
        return encode_chunk(np.ascontiguousarray(pixels[places]), group, self._layout.codec)

    def _describe(self) -> dict[str, Any]:
        """Return the root attributes: those of the whole, but for what the part has less of."""
        known, n_patches = self._attributes, len(self._rows)
        before = known.get("part_of") or {}
        splits = zip(self._table["split"].to_pylist(), self._table["recommended"].to_pylist(), strict=True)
        return {
            **known,
            "options": {**known["options"], "bands": self._layout.bands},
            "counts": {**known["counts"], "found": n_patches, "converted": n_patches, "rejected": 0},
            "splits": count_splits(split if recommended else None for split, recommended in splits),
            "statistics": {
                band: known["statistics"][band] for band in self._layout.bands if band in known["statistics"]
            },
            "part_of": {**self._origin, "whole": before.get("whole", known["fingerprint"])},
        }
