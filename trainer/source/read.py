"""Read patches of one array into the slots of a batch, from many threads at once.

`ShardReader` is our own path for the codec chains that the converter writes; `TensorStoreReader` reads any other legal
Zarr array. Both give the same pixels.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, get_args
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, ReadError
from bigearthnet.machine import measure_memory
from bigearthnet.store.arrays import ArrayInfo
from bigearthnet.store.manifest import Manifest
from bigearthnet.store.objects import LocalObjects, StoredObject
from bigearthnet.store.remote import Objects
from bigearthnet.store.shard import DamagedError
from trainer.source.decode import BloscDecoder, RawDecoder, Shard
from trainer.source.turns import turn_patches

Check = Literal["first", "always", "never"]
"""When the crc32c of a chunk is compared: the first time since its shard was opened, every time, not at all."""

CHECKS: Final[tuple[Check, ...]] = get_args(Check)

MAX_RESIDENT = 4 * 2**30
"""Bytes of mapped shards that may count as memory of this process, as batch systems count it."""

_MEMORY_SHARE: Final = 0.75
"""Of memory, which shards may fill; the rest is for the process that trains."""

_MAX_MAPPED = 16_384
"""Shards mapped at a time; Linux allows a process 65,530 mappings (vm.max_map_count)."""

_FAULT_BYTES = 16 * 1024
"""What comes in beside a chunk: Linux maps the pages around one that is touched, if they are in memory anyway."""


class ArrayReader(Protocol):
    """Reads chosen bands of patches; safe to call from several threads."""

    def read(self, rows: NDArray[np.integer], out: NDArray[Any], symmetries: NDArray[np.uint8] | None) -> None:
        """Read patches into an array.

        Args:
            rows: Positions in the store, shape (patch,).
            out: Contiguous (patch, band, row, col) of the stored type.
            symmetries: For each patch how to turn it (see `trainer.source.turns`), or None.

        Raises:
            ReadError: A chunk is missing or damaged.
        """
        ...

    def fetch_ahead(self, rows: NDArray[np.integer]) -> None:
        """Announce rows that will be read soon."""
        ...

    def close(self) -> None:
        """Wait no longer for a server: reading ends with an error."""
        ...


class Residency:
    """Bounds what the mapped shards of a store take of this process's memory.

    They are in the page cache, which the system takes back when it likes. But pages that a process has read through a
    mapping count as its own, and SLURM or Kubernetes may end a job for them that has read a large store.

    Args:
        n_bytes: Of all shards of the store.
    """

    def __init__(self, n_bytes: int) -> None:
        self.outgrows_memory = n_bytes > _MEMORY_SHARE * measure_memory()
        """What was read before has to be read from disk again."""
        self._arrays: WeakSet[MappedShards] = WeakSet()
        self._n_bytes = 0
        self._guard = threading.Lock()

    def add(self, shards: MappedShards) -> None:
        """Look after the shards of one more array."""
        self._arrays.add(shards)

    def count(self, n_chunks: int, chunk_bytes: int) -> None:
        """Count chunks that were read; when all together may take too much, begin anew with none."""
        with self._guard:
            self._n_bytes += n_chunks * (chunk_bytes + _FAULT_BYTES)
            if self._n_bytes < MAX_RESIDENT:
                return
            self._n_bytes = 0
        for shards in [*self._arrays]:
            shards.leave_memory()


class MappedShards:
    """The shards of one array that have been read so far: opened on first use, shared by all readers."""

    checked: NDArray[np.bool_]
    """For each patch, whether its chunk has been found sound since its shard was opened, shape (patch,)."""

    def __init__(self, info: ArrayInfo, manifest: Manifest, objects: Objects, residency: Residency) -> None:
        residency.add(self)
        self.residency = residency
        self.checked = np.zeros(info.n_patches, np.bool_)
        self.objects = objects
        self._info, self._manifest = info, manifest
        self._opened: dict[int, Shard] = {}
        self._renewed: set[int] = set()
        self._guard = threading.Lock()

    def get(self, number: int, closed: Future[None]) -> Shard:
        """Return a shard; lock-free once it is open.

        Args:
            number: Which one.
            closed: Waiting for a server ends with an error when this is done.
        """
        return self._opened.get(number) or self._open(number, closed)

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Bring shards near that are not open."""
        with suppress(DamagedError):  # that is for whoever reads it
            self.objects.fetch_ahead([self._describe(number) for number in numbers if number not in self._opened])

    def leave_memory(self) -> None:
        """Let pages that were read no longer count as this process's."""
        with self._guard:
            opened = [*self._opened.values()]
        for shard in opened:
            shard.leave_memory()

    def renew(self, number: int) -> None:
        """Let a damaged shard be opened again, and be fetched again if it was fetched, but only once."""
        with self._guard:
            if number not in self._renewed:
                self._renewed.add(number)
                self._opened.pop(number, None)
                self.objects.forget(self._info.shard_key(number))

    def _describe(self, number: int) -> StoredObject:
        try:
            return self._manifest.describe_shard(self._info.shard_key(number), self._info.shard_size)
        except KeyError as error:
            raise DamagedError("the manifest does not list the shard") from error

    def _open(self, number: int, closed: Future[None]) -> Shard:
        was_renewed = number in self._renewed
        shard = self._map(number, closed)
        with self._guard:
            if was_renewed == (number in self._renewed):
                self.checked[number * self._info.shard_size : (number + 1) * self._info.shard_size] = False
                self._opened[number] = shard
                while self._is_crowded():
                    # The oldest goes; a thread that still reads it keeps it alive.
                    self._opened.pop(next(iter(self._opened)))
                return shard
        return self._open(number, closed)  # another thread has found out meanwhile that what was opened is damaged

    def _map(self, number: int, closed: Future[None]) -> Shard:
        wanted = self._describe(number)
        try:
            descriptor = self.objects.open(wanted, closed)
        except FileNotFoundError as error:
            raise DamagedError("the shard is missing") from error
        except OSError as error:
            raise DamagedError(f"the shard cannot be opened ({error})") from error
        try:
            if (n_bytes := os.fstat(descriptor).st_size) != wanted.n_bytes:  # before it is mapped
                raise DamagedError(f"expected a file of {wanted.n_bytes:,} bytes, found {n_bytes:,}")
            shape = (len(self._info.bands), self._info.plane_bytes) if self._info.chain == "raw" else None
            return Shard(descriptor, self._info.shard_size, shape)
        finally:
            os.close(descriptor)

    def _is_crowded(self) -> bool:
        limit = self.objects.max_bytes
        is_large = limit is not None and sum(len(shard.data) for shard in self._opened.values()) > limit
        return len(self._opened) > _MAX_MAPPED or (is_large and len(self._opened) > 1)


class ShardReader:
    """Reads through mapped shards.

    Args:
        info: The array.
        shards: Its shards.
        bands: Positions on the band axis, in the order of the output; None for all as they are.
        check: When to compare the crc32c of a chunk.
    """

    def __init__(self, info: ArrayInfo, shards: MappedShards, bands: Sequence[int] | None, *, check: Check) -> None:
        self._info, self._shards, self._bands, self._check = info, shards, bands, check
        self._local = threading.local()
        self._closed: Future[None] = Future()

    def read(self, rows: NDArray[np.integer], out: NDArray[Any], symmetries: NDArray[np.uint8] | None) -> None:
        """Read patches; see `ArrayReader`."""
        info, n_bands = self._info, len(self._info.bands if self._bands is None else self._bands)
        shape = (len(rows), n_bands, info.n_rows, info.n_columns)
        if out.shape != shape or out.dtype != info.dtype or not out.flags.c_contiguous:  # C-Blosc is given addresses
            raise ValueError(f"expected contiguous {info.dtype} of shape {shape}, found {out.dtype} of {out.shape}")
        try:
            self._decode(rows, out)
        except DamagedError:
            self._mend(rows, out)
        turn_patches(out, symmetries)

    def _decode(self, rows: NDArray[np.integer], out: NDArray[Any]) -> None:
        get, size, checked = self._shards.get, self._info.shard_size, self._shards.checked
        closed = self._closed
        chunks = [(get(row // size, closed), row % size) for row in rows.tolist()]
        check = self._check == "always" or (self._check == "first" and not checked[rows].all())
        if check or self._shards.residency.outgrows_memory:
            # What is not in memory is asked for at once. Each page that is missing would be waited for, and the system
            # would read far around it, 128 kB or megabytes, most of which memory has lost again when it is wanted.
            for shard, position in chunks:
                shard.want(position)
        self._decoder().decode(chunks, out.reshape(len(out), -1).view(np.uint8), check)
        if check:
            checked[rows] = True
        self._shards.residency.count(len(rows), self._info.plane_bytes * len(self._info.bands))

    def _mend(self, rows: NDArray[np.integer], out: NDArray[Any]) -> None:
        """Read patches one by one, each from a renewed shard if it is damaged, and name the one that stays so."""
        for slot, row in enumerate(rows.tolist()):
            number, position = divmod(row, self._info.shard_size)
            try:
                with suppress(DamagedError):
                    self._decode(rows[slot : slot + 1], out[slot : slot + 1])
                    continue
                self._shards.renew(number)
                self._decode(rows[slot : slot + 1], out[slot : slot + 1])
            except DamagedError as error:
                key, objects = self._info.shard_key(number), self._shards.objects
                where = f"shard {number} ({key}), patch {row} (chunk {position} of the shard)"
                raise ReadError(
                    f"{objects.name}: array {self._info.name}, {where}: {error}; {objects.advise(key)}"
                ) from error

    def fetch_ahead(self, rows: NDArray[np.integer]) -> None:
        """Announce rows that will be read soon."""
        self._shards.fetch_ahead(np.unique(rows // self._info.shard_size).tolist())

    def close(self) -> None:
        """Wait no longer for a server."""
        with suppress(InvalidStateError):  # closed before
            self._closed.set_result(None)

    def _decoder(self) -> RawDecoder | BloscDecoder:
        """Return this thread's decoder."""
        decoder: RawDecoder | BloscDecoder | None = getattr(self._local, "decoder", None)
        if decoder is None:
            make = RawDecoder if self._info.chain == "raw" else BloscDecoder
            decoder = self._local.decoder = make(len(self._info.bands), self._info.plane_bytes, self._bands)
        return decoder


class TensorStoreReader:
    """Reads any legal array of a local store with tensorstore."""

    def __init__(self, info: ArrayInfo, objects: Objects, bands: Sequence[int] | None) -> None:
        if not isinstance(objects, LocalObjects):
            raise OptionError(
                f"{objects.name}: array {info.name} has a codec chain that only a local store may have; copy it first"
            )
        import tensorstore  # noqa: PLC0415 - slow to import, and seldom needed

        self._info, self._bands, self._name = info, bands, objects.name
        self._array = tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": f"{objects.name}/{info.key}"},
                "fill_missing_data_reads": False,
                "open": True,
            },
            read=True,
        ).result()

    def read(self, rows: NDArray[np.integer], out: NDArray[Any], symmetries: NDArray[np.uint8] | None) -> None:
        """Read patches; see `ArrayReader`."""
        try:
            pixels = self._array[rows].read().result()
        except (ValueError, OSError) as error:
            raise ReadError(f"{self._name}: array {self._info.name}, patches {rows.tolist()}: {error}") from error
        if not self._info.has_band_axis:
            pixels = pixels[:, None]
        if self._bands is not None:
            pixels = pixels[:, list(self._bands)]
        out[:] = pixels
        turn_patches(out, symmetries)

    def fetch_ahead(self, rows: NDArray[np.integer]) -> None:
        """Do nothing: the store is local."""

    def close(self) -> None:
        """Do nothing, likewise."""
