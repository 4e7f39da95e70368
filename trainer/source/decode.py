"""Map a shard into memory and decode its chunks: the hot path, for the codec chains that the converter writes.

A chunk is decoded from the page cache straight into its slot of the batch. Mapping beat `pread` by a third with lz4
and by a half without a codec (no copy, no system call), and needs no open file. What it costs: a file that is cut
short while it is mapped ends the process (SIGBUS) where `pread` would raise; finished stores are never rewritten.
Python's `mmap` would keep a descriptor for every mapping (before `trackfd=False` of Python 3.13), and the 7,000 shards
of a full store are more than the 1,024 descriptors that most systems allow a process.

Sources: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html and
https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from bigearthnet.store.shard import CHECKSUM_BYTES, EMPTY, DamagedError, is_sound, measure_index, parse_index

_BLOSC_HEADER: Final = struct.Struct("<BBBBIII")
"""Versions of format and codec, flags, type size, bytes, block size, encoded bytes."""
_BLOSC_STORED: Final = 0x02
"""Flag: the bytes follow the header as they are."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_FAILED: Final = ctypes.c_void_p(-1).value


class Shard:
    """One shard file, mapped, with its index in memory.

    Args:
        descriptor: The open file; it may be closed afterwards.
        n_chunks: Chunks in a full shard.
        shape: Bands, and bytes of a band, of chunks that are not compressed; None for others.
    """

    __slots__ = ("address", "content", "data", "entries", "planes")

    data: NDArray[np.uint8]
    """The whole file."""
    content: memoryview
    """The same, as `struct` reads it."""
    address: int
    """Where in memory it begins."""
    entries: Sequence[int]
    """Offset and length of chunk i at 2i and 2i + 1."""

    planes: NDArray[np.uint8] | None
    """Chunks that are not compressed and lie one after another, as (chunk, band, byte): NumPy takes a chunk from it in
    half the time that cutting one out by its entry takes."""

    def __init__(self, descriptor: int, n_chunks: int, shape: tuple[int, int] | None = None) -> None:
        n_bytes = os.fstat(descriptor).st_size
        index_bytes = measure_index(n_chunks)
        if n_bytes < index_bytes:
            raise DamagedError(f"expected at least the {index_bytes:,} bytes of its index, found {n_bytes:,}")
        self.data = map_file(descriptor, n_bytes)
        self.content, self.address = self.data.data, self.data.ctypes.data
        index = os.pread(descriptor, index_bytes, n_bytes - index_bytes)  # reads nothing around it, as a mapping would
        entries = parse_index(index, n_chunks, n_bytes - index_bytes)
        self.entries = memoryview(entries.tobytes()).cast("Q")
        self.planes = None if shape is None else _view_planes(self.data, entries[entries[:, 0] != EMPTY], shape)

    def leave_memory(self) -> None:
        """Let the system no longer count the pages that were read as this process's; they are read again as before."""
        _LIBC.madvise(self.address, len(self.data), mmap.MADV_DONTNEED)

    def want(self, position: int) -> None:
        """Let the system begin to read a chunk, whole and alone, while others are decoded."""
        start, n_bytes = self.locate(position)
        before = (self.address + start) % mmap.PAGESIZE
        _LIBC.madvise(self.address + start - before, before + n_bytes, mmap.MADV_WILLNEED)

    def locate(self, position: int) -> tuple[int, int]:
        """Return where in the file a chunk begins, and its encoded bytes, checksum included."""
        start = self.entries[2 * position]
        if start == EMPTY:
            raise DamagedError("the chunk was never written")
        return start, self.entries[2 * position + 1]

    def chunk(self, position: int) -> NDArray[np.uint8]:
        """View the encoded bytes of a chunk."""
        start, n_bytes = self.locate(position)
        return self.data[start : start + n_bytes]


Place = tuple[Shard, int]
"""A chunk: its shard, and its position in it."""


def _view_planes(
    data: NDArray[np.uint8], entries: NDArray[np.uint64], shape: tuple[int, int]
) -> NDArray[np.uint8] | None:
    n_bands, plane_bytes = shape
    n_bytes = n_bands * plane_bytes + CHECKSUM_BYTES
    if (entries[:, 0] != np.arange(len(entries)) * n_bytes).any() or (entries[:, 1] != n_bytes).any():
        return None
    strides = (n_bytes, plane_bytes, 1)
    return np.lib.stride_tricks.as_strided(data, (len(entries), *shape), strides, writeable=False)


def _check(chunk: NDArray[np.uint8]) -> None:
    """Compare a chunk with the crc32c at its end."""
    if not is_sound(chunk):
        raise DamagedError("its crc32c does not match")


class RawDecoder:
    """Copies chunks that are not compressed, all of them in one call.

    A copy takes microseconds, so that threads which return to Python between two copies mostly wait for one another.

    Args:
        n_bands: Bands in a chunk.
        plane_bytes: Bytes of a band of one patch.
        bands: Positions to decode, in the order of the output; None for all as they are.
    """

    def __init__(self, n_bands: int, plane_bytes: int, bands: Sequence[int] | None) -> None:
        self._shape = (n_bands, plane_bytes)
        self._parts = [slice(None)] if bands is None else _slice_bands(bands)

    def decode(self, chunks: Sequence[Place], out: NDArray[np.uint8], check: bool) -> None:
        """Decode chunks into `out`, (patch, byte), and compare their crc32c if `check` says so."""
        planes = out.reshape(-1, self._shape[1])
        if not check:
            np.concatenate(self._view(chunks), out=planes)
            return
        n_bands = len(planes) // len(out)
        for slot, (shard, position) in enumerate(chunks):
            np.concatenate(self._view([(shard, position)]), out=planes[slot * n_bands : (slot + 1) * n_bands])
            _check(shard.chunk(position))  # after the copy, which brought it into the cache: half the cost

    def _view(self, chunks: Sequence[Place]) -> list[NDArray[np.uint8]]:
        """View the wanted bands of chunks, each (band, byte)."""
        views: list[NDArray[np.uint8]] = []
        for shard, position in chunks:
            planes = shard.planes
            chunk = self._cut(shard, position) if planes is None or position >= len(planes) else planes[position]
            for part in self._parts:
                views.append(chunk[part])  # noqa: PERF401 - twice as fast as extending by a generator
        return views

    def _cut(self, shard: Shard, position: int) -> NDArray[np.uint8]:
        chunk = shard.chunk(position)
        n_bytes = self._shape[0] * self._shape[1] + CHECKSUM_BYTES
        if len(chunk) != n_bytes:
            raise DamagedError(f"expected {n_bytes:,} bytes, found {len(chunk):,}")
        return chunk[:-CHECKSUM_BYTES].reshape(self._shape)


def _slice_bands(bands: Sequence[int]) -> list[slice]:
    """Turn bands into one slice if they are evenly spaced, such as those of RGB in a store of all, or one for each."""
    step = bands[1] - bands[0] if len(bands) > 1 else 1
    if step and list(bands) == [bands[0] + i * step for i in range(len(bands))]:
        stop = bands[-1] + step
        return [slice(bands[0], None if stop < 0 else stop, step)]
    return [slice(band, band + 1) for band in bands]


class BloscDecoder:
    """Decodes chunks that blosc compressed.

    Where each block of a chunk is one band, only the wanted bands are decoded, straight into the wanted order: blosc
    finds its blocks through a table of their starts, and a copy of the chunk with another table decodes to other bands.
    Instances keep scratch memory: one for each thread.

    Args:
        n_bands: Bands in a chunk.
        plane_bytes: Bytes of a band of one patch.
        bands: Positions to decode, in the order of the output; None for all as they are.
    """

    def __init__(self, n_bands: int, plane_bytes: int, bands: Sequence[int] | None) -> None:
        self._n_bytes = n_bands * plane_bytes
        self._plane_bytes = plane_bytes
        self._all_bands = bands is None
        self._bands = np.array(bands or (), np.intp)
        self._whole = np.empty((n_bands, plane_bytes) if bands is not None else (0, 0), np.uint8)
        words = -(-(self._n_bytes + _BLOSC_HEADER.size + CHECKSUM_BYTES) // 4)  # blosc adds at most its header
        self._copy = np.empty(words if bands is not None else 0, "<u4")
        self._whole_address, self._copy_address = self._whole.ctypes.data, self._copy.ctypes.data

    def decode(self, chunks: Sequence[Place], out: NDArray[np.uint8], check: bool) -> None:
        """Decode chunks into `out`, contiguous (patch, byte), and compare their crc32c if `check` says so."""
        address = out.ctypes.data
        for (shard, position), slot in zip(chunks, out, strict=True):
            if check:
                _check(shard.chunk(position))  # first, since blosc trusts what it is given
            self._decode_one(shard, position, slot, address)
            address += len(slot)

    def _decode_one(self, shard: Shard, position: int, out: NDArray[np.uint8], address: int) -> None:
        # Blosc trusts its header, so a damaged one must not reach it even if checksums are not compared.
        start, n_stored = shard.locate(position)
        flags, n_bytes, block_bytes, encoded_bytes = _read_header(shard.content, start, n_stored)
        most = self._n_bytes + _BLOSC_HEADER.size
        if n_bytes != self._n_bytes or encoded_bytes != n_stored - CHECKSUM_BYTES or encoded_bytes > most:
            raise DamagedError(
                f"expected {self._n_bytes:,} bytes in {n_stored - CHECKSUM_BYTES:,}, "
                f"found a header that says {n_bytes:,} in {encoded_bytes:,}"
            )
        if self._all_bands:
            _decompress(shard.address + start, encoded_bytes, address, n_bytes)
        elif block_bytes == self._plane_bytes and not flags & _BLOSC_STORED:
            self._select(shard.data[start : start + encoded_bytes], len(out))
            _decompress(self._copy_address, encoded_bytes, address, len(out))
        else:
            _decompress(shard.address + start, encoded_bytes, self._whole_address, n_bytes)
            np.take(self._whole, self._bands, 0, out.reshape(-1, self._plane_bytes), "clip")

    def _select(self, chunk: NDArray[np.uint8], n_bytes: int) -> None:
        """Copy a chunk so that it decodes to the wanted bands only, of so many bytes."""
        first = _BLOSC_HEADER.size // 4
        self._copy.view(np.uint8)[: len(chunk)] = chunk
        starts = self._copy[first:][self._bands]
        self._copy[first : first + len(starts)] = starts
        self._copy[1] = n_bytes


def _read_header(data: memoryview, start: int, n_stored: int) -> tuple[int, int, int, int]:
    """Return flags, decoded bytes, bytes of a block, encoded bytes."""
    if n_stored < _BLOSC_HEADER.size + CHECKSUM_BYTES:
        raise DamagedError(f"{n_stored:,} bytes are too few")
    fields: tuple[Any, ...] = _BLOSC_HEADER.unpack_from(data, start)
    return fields[2], fields[4], fields[5], fields[6]


def _link_blosc(kind: type[ctypes.CDLL]) -> Any:
    """Find the function of C-Blosc inside of numcodecs; None if a build of it hides that."""
    try:
        function = kind(blosc.__file__).blosc_decompress_ctx
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


_DECOMPRESS: Final = _link_blosc(ctypes.CDLL)
_DECOMPRESS_LOCKED: Final = _link_blosc(ctypes.PyDLL)
"""C-Blosc itself. The function of numcodecs takes 3.6 us more a call, and it lets go of Python's lock each time, as the
first of these does but the second does not: what is decoded in a microsecond is not worth a wait for the lock."""

_LOCKED_BYTES: Final = 4096
"""Up to which a chunk is decoded without letting go of the lock; two bands of 60 m are 1,600."""


def _decompress(source: int, n_source: int, target: int, n_target: int) -> None:
    """Decompress bytes at an address to another, where the header says that there are so many."""
    function = _DECOMPRESS_LOCKED if n_target <= _LOCKED_BYTES else _DECOMPRESS
    if function:
        n_decoded = function(source, target, n_target, 1)
    else:
        arrays = [(ctypes.c_ubyte * n).from_address(at) for at, n in ((source, n_source), (target, n_target))]
        try:
            blosc.decompress(*arrays)
            n_decoded = n_target
        except (RuntimeError, ValueError):
            n_decoded = -1
    if n_decoded != n_target:
        raise DamagedError(f"blosc cannot decode it ({n_decoded})")


class _Mapping:
    """Owns a mapping; NumPy keeps it as the base of every array on it."""

    def __init__(self, descriptor: int, n_bytes: int) -> None:
        address = _LIBC.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        weakref.finalize(self, _LIBC.munmap, address, n_bytes).atexit = False
        read_only = True
        self.__array_interface__ = {
            "version": 3,
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (address, read_only),
        }


def map_file(descriptor: int, n_bytes: int) -> NDArray[np.uint8]:
    """Map the first bytes of an open file, read-only; the descriptor may be closed at once.

    Args:
        descriptor: An open file.
        n_bytes: At least 1 and at most the size of the file.

    Returns:
        The bytes; they stay mapped until the array and all its views are gone.

    Raises:
        OSError: The system refuses.
    """
    return np.asarray(_Mapping(descriptor, n_bytes))
