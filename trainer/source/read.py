"""Read patches of one array into the slots of a batch, from many threads at once.

`ShardReader` is our own path for the codec chains that the converter writes; `TensorStoreReader` reads any other legal
Zarr array. Both give the same pixels.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError, ReadError
from bigearthnet.store.arrays import ArrayInfo
from bigearthnet.store.objects import LocalObjects, Objects
from bigearthnet.store.shard import DamagedError
from trainer.source.decode import BloscDecoder, RawDecoder, Shard
from trainer.source.turns import turn_patches

Check = Literal["first", "always", "never"]
"""When the crc32c of a chunk is compared: the first time since its shard was opened, every time, not at all."""

CHECKS: Final[tuple[Check, ...]] = get_args(Check)

_MAX_MAPPED = 16_384
"""Shards mapped at a time; Linux allows a process 65,530 mappings (vm.max_map_count)."""


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


class MappedShards:
    """The shards of one array that have been read so far: opened on first use, shared by all readers."""

    checked: NDArray[np.bool_]
    """For each patch, whether its chunk has been found sound since its shard was opened, shape (patch,)."""

    def __init__(self, info: ArrayInfo, objects: Objects) -> None:
        self.checked = np.zeros(info.n_patches, np.bool_)
        self._info, self._objects = info, objects
        self._opened: dict[int, Shard] = {}
        self._guard = threading.Lock()

    def get(self, number: int) -> Shard:
        """Return a shard; lock-free once it is open."""
        return self._opened.get(number) or self._open(number)

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Bring shards near that are not open."""
        self._objects.fetch_ahead([self._info.shard_key(number) for number in numbers if number not in self._opened])

    def _open(self, number: int) -> Shard:
        try:
            descriptor = self._objects.open(self._info.shard_key(number))
        except FileNotFoundError as error:
            raise DamagedError("the shard is missing") from error
        except OSError as error:
            raise DamagedError(f"the shard cannot be opened ({error})") from error
        try:
            shape = (len(self._info.bands), self._info.plane_bytes) if self._info.chain == "raw" else None
            shard = Shard(descriptor, self._info.shard_size, shape)
        finally:
            os.close(descriptor)
        with self._guard:
            self.checked[number * self._info.shard_size : (number + 1) * self._info.shard_size] = False
            self._opened[number] = shard
            while self._is_crowded():
                # The oldest goes; a thread that still reads it keeps it alive.
                self._opened.pop(next(iter(self._opened)))
        return shard

    def _is_crowded(self) -> bool:
        limit = self._objects.max_bytes
        is_large = limit is not None and sum(len(shard.data) for shard in self._opened.values()) > limit
        return len(self._opened) > _MAX_MAPPED or (is_large and len(self._opened) > 1)


class ShardReader:
    """Reads through mapped shards.

    Args:
        info: The array.
        shards: Its shards.
        bands: Positions on the band axis, in the order of the output; None for all as they are.
        check: When to compare the crc32c of a chunk.
        name: The store, for messages.
    """

    def __init__(
        self, info: ArrayInfo, shards: MappedShards, bands: Sequence[int] | None, *, check: Check, name: str
    ) -> None:
        self._info, self._shards, self._bands, self._check, self._name = info, shards, bands, check, name
        self._local = threading.local()

    def read(self, rows: NDArray[np.integer], out: NDArray[Any], symmetries: NDArray[np.uint8] | None) -> None:
        """Read patches; see `ArrayReader`."""
        try:
            self._decode(rows, out)
        except DamagedError:
            self._name_damage(rows, out)
        turn_patches(out, symmetries)

    def _decode(self, rows: NDArray[np.integer], out: NDArray[Any]) -> None:
        get, size, checked = self._shards.get, self._info.shard_size, self._shards.checked
        chunks = [(get(row // size), row % size) for row in rows.tolist()]
        check = self._check == "always" or (self._check == "first" and not checked[rows].all())
        self._decoder().decode(chunks, out.reshape(len(out), -1).view(np.uint8), check)
        if check:
            checked[rows] = True

    def _name_damage(self, rows: NDArray[np.integer], out: NDArray[Any]) -> None:
        """Read patches one by one, to find out which of them is damaged."""
        for slot, row in enumerate(rows.tolist()):
            try:
                self._decode(rows[slot : slot + 1], out[slot : slot + 1])
            except DamagedError as error:
                number, position = divmod(row, self._info.shard_size)
                where = f"shard {number} ({self._info.shard_key(number)}), patch {row} (chunk {position} of the shard)"
                raise ReadError(
                    f"{self._name}: array {self._info.name}, {where}: {error}; convert it again or copy the shard again"
                ) from error

    def fetch_ahead(self, rows: NDArray[np.integer]) -> None:
        """Announce rows that will be read soon."""
        self._shards.fetch_ahead(np.unique(rows // self._info.shard_size).tolist())

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
                "kvstore": {"driver": "file", "path": objects.path(info.key)},
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
