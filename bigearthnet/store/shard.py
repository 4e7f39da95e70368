"""Encode one shard of one array, and decode it, as Zarr v3's `sharding_indexed` codec lays it out.

The trainer decodes chunks by a path of its own (`trainer.source.decode`), which stands on the same index and checksums.

zarr would write the same bytes (a test compares them), but through an event loop and copies that cost several times
what the compression does. Here a patch is encoded while it is still in the cache that it was read into.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from mmap import mmap
from pathlib import Path
from typing import Any, Final, TypeVar

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from bigearthnet.bands import BandGroup
from bigearthnet.errors import StoreError
from bigearthnet.files import open_regular, write_durably
from bigearthnet.store.layout import Codec, Layout, name_shard

CLEVEL: Final[dict[Codec, int]] = {"lz4": 5, "zstd": 1}
"""Blosc compression levels. Higher ones gained under 2% on real patches and cost more than that in time."""

CHECKSUM_BYTES: Final = 4
"""Size of the crc32c at the end of each chunk, and of the index."""

_RESIDUE: Final = 0x48674BC7
"""What crc32c gives over any bytes followed by their own crc32c, so that one call checks a chunk where it lies."""

_ENTRY_BYTES: Final = 16
"""Offset and length of a chunk in the index, uint64 each."""

EMPTY: Final = 2**64 - 1
"""Offset and length of a chunk that was never written (the slots of a last, partial shard)."""

Bytes = TypeVar("Bytes", bytes, NDArray[np.uint8])

blosc.use_threads = False  # one task a core already; and only the thread-free calls may be made from several threads


def encode_chunk(pixels: NDArray[np.generic], group: BandGroup, codec: Codec) -> bytes:
    """Encode one patch as one inner chunk: bytes, then blosc unless the codec is `none`, then crc32c.

    Blosc is asked for blocks of one band plane, so that a reader can decode some bands of a patch without the others.
    With lz4 it enlarges them to 64 kB, which still encodes and decodes faster than the blocks it would choose itself.

    Args:
        pixels: Contiguous little-endian (band, row, col).
        group: The group that the patch belongs to.
        codec: How to compress.
    """
    encoded = (
        pixels.tobytes()
        if codec == "none"
        else blosc.compress(pixels, codec.encode(), CLEVEL[codec], blosc.BITSHUFFLE, group.plane_bytes)
    )
    return encoded + _crc32c(encoded)


def write_shard(path: str, chunks: list[bytes], shard_size: int) -> int:
    """Write a shard: the chunks one after another, then the index with its checksum.

    The file appears under its name only when whole and on disk, so a reader or a second run never meets part of one.

    Args:
        path: Where the shard goes; its folder is made if needed.
        chunks: Encoded chunks of the first patches of the shard.
        shard_size: Chunks in a full shard.

    Returns:
        Bytes written.
    """
    index = np.full((shard_size, 2), EMPTY, dtype="<u8")
    sizes = np.fromiter(map(len, chunks), dtype=np.uint64, count=len(chunks))
    index[: len(chunks), 0] = np.cumsum(sizes) - sizes
    index[: len(chunks), 1] = sizes
    encoded_index = index.tobytes()
    return write_durably(path, [*chunks, encoded_index, _crc32c(encoded_index)])


def hash_chunks(chunks: Sequence[bytes] | Sequence[NDArray[np.uint8]]) -> str:
    """Hash the checksums of a shard's chunks: equal if and only if pixels and encoding are."""
    return hashlib.blake2b(b"".join(bytes(chunk[-CHECKSUM_BYTES:]) for chunk in chunks), digest_size=8).hexdigest()


def hash_shard(shard: bytes | mmap, shard_size: int) -> str:
    """Hash the checksums of a shard's chunks, after comparing each with its chunk; nothing is copied.

    Raises:
        DamagedError: One is not that of its chunk, or the index is damaged.
    """
    chunks = [chunk for chunk in split_shard(np.frombuffer(shard, np.uint8), shard_size) if chunk is not None]
    if not all(map(is_sound, chunks)):
        raise DamagedError("the crc32c of a chunk does not match")
    return hash_chunks(chunks)


def split_shard(shard: Bytes, shard_size: int) -> list[Bytes | None]:
    """Split a shard into its chunks.

    Args:
        shard: All its bytes.
        shard_size: Chunks in a full shard.

    Returns:
        The encoded chunk in each of the `shard_size` slots; None in one that was never written.

    Raises:
        DamagedError: The index is damaged, or points outside of the shard.
    """
    n_bytes = len(shard) - measure_index(shard_size)
    chunks: list[Bytes | None] = []
    end = 0
    for offset, size in parse_index(bytes(shard[max(n_bytes, 0) :]), shard_size, n_bytes).tolist():
        if (offset, size) == (EMPTY, EMPTY):
            chunks.append(None)
            continue
        if offset != end:
            raise DamagedError(f"its index points to bytes {offset:,} to {offset + size:,}")
        chunks.append(shard[offset : offset + size])
        end = offset + size
    if end != n_bytes:
        raise DamagedError(f"the shard holds {n_bytes - end:,} bytes that nothing names")
    return chunks


def read_pixels(store: Path, layout: Layout, group: BandGroup, index: int) -> NDArray[Any]:
    """Read a patch from one array of a finished store.

    Args:
        store: The store's folder.
        layout: Its arrays.
        group: The array.
        index: Position of the patch.

    Returns:
        Stored pixels, shape (band, row, col).

    Raises:
        StoreError: The chunk is damaged.
    """
    shard, position = divmod(index, layout.shard_size)
    path = store / name_shard(group, shard)
    pixels = np.empty(group.patch_shape, group.dtype)
    try:
        decode_chunk(read_chunk(path, layout.shard_size, position), group, layout.codec, pixels)
    except (DamagedError, OSError) as error:
        raise StoreError(f"{path}: cannot read patch {index} ({error}); see `verify`") from error
    return pixels


def read_chunk(path: Path, shard_size: int, position: int) -> bytes:
    """Read the chunk of one patch.

    Args:
        path: Where the shard lies.
        shard_size: Chunks in a full shard.
        position: That of the patch in the shard.

    Raises:
        DamagedError: The index is damaged, or has no such chunk.
        OSError: The shard cannot be read.
    """
    with open(open_regular(path), "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size - measure_index(shard_size)
        file.seek(max(n_bytes, 0))
        offset, size = parse_index(file.read(), shard_size, n_bytes)[position].tolist()
        if offset == EMPTY:
            raise DamagedError("the chunk was never written")
        file.seek(offset)
        return file.read(size)


def measure_index(shard_size: int) -> int:
    """Count the bytes of the index at the end of a shard, with its checksum."""
    return shard_size * _ENTRY_BYTES + CHECKSUM_BYTES


def parse_index(index: bytes, shard_size: int, n_bytes: int) -> NDArray[np.uint64]:
    """Parse the index of a shard.

    Args:
        index: The last `measure_index` bytes of a shard.
        shard_size: Chunks in a full shard.
        n_bytes: Bytes before the index.

    Returns:
        Offset and length of each chunk, shape (chunk, 2); `EMPTY` for one that was never written.

    Raises:
        DamagedError: The index does not match its checksum, or points beyond the chunks.
    """
    if len(index) != measure_index(shard_size) or not is_sound(index):
        raise DamagedError("the checksum of its index does not match")
    entries = np.frombuffer(index, "<u8", shard_size * 2).reshape(shard_size, 2)
    written = entries[entries[:, 0] != EMPTY]
    if len(written) and max(written.max(), written.sum(axis=1).max()) > n_bytes:  # a sum may wrap around
        raise DamagedError(f"its index points beyond its {n_bytes:,} bytes of chunks")
    return entries


def is_sound(data: bytes | NDArray[np.uint8]) -> bool:
    """Tell whether bytes end with the crc32c of those before them."""
    return bool(google_crc32c.value(data) == _RESIDUE)


def decode_chunk(chunk: bytes, group: BandGroup, codec: Codec, out: NDArray[np.generic]) -> None:
    """Decode what `encode_chunk` made.

    Args:
        chunk: One inner chunk.
        group: The group that the patch belongs to.
        codec: How it was compressed.
        out: Contiguous (band, row, col) array of the group's shape and dtype; filled.

    Raises:
        DamagedError: The chunk does not match its checksum, or does not decode to one patch.
    """
    if not is_sound(chunk):
        raise DamagedError("the pixels do not match their checksum")
    encoded = chunk[:-CHECKSUM_BYTES]
    n_bytes = len(encoded) if codec == "none" else _measure_blosc(encoded)
    if n_bytes != group.patch_bytes:
        raise DamagedError(f"expected {group.patch_bytes:,} bytes of pixels, found {n_bytes:,}")
    try:
        raw = encoded if codec == "none" else blosc.decompress(encoded)
    except RuntimeError as error:
        raise DamagedError(f"the pixels cannot be decoded: {error}") from error
    out[...] = np.frombuffer(raw, group.dtype).reshape(out.shape)


def _measure_blosc(encoded: bytes) -> int:
    """Read from the header of a chunk how many bytes it decodes to, which blosc trusts; 0 if the header is damaged."""
    n_decoded, _, n_encoded = struct.unpack_from("<III", encoded.ljust(16, b"\0"), 4)
    return n_decoded if n_encoded == len(encoded) else 0


class DamagedError(Exception):
    """A shard or chunk is not what was written; says how, and leaves where to whoever asked."""


def checksum_parts(parts: Iterable[bytes]) -> int:
    """Return the crc32c of some bytes that follow one another."""
    checksum = 0
    for part in parts:
        checksum = google_crc32c.extend(checksum, part)
    return checksum


def _crc32c(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))
