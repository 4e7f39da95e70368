"""Encode one shard of one array, and decode it, as Zarr v3's `sharding_indexed` codec lays it out.

zarr would write the same bytes (a test compares them), but through an event loop and copies that cost several times
what the compression does. Here a patch is encoded while it is still in the cache that it was read into.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from bigearthnet.bands import BandGroup
from bigearthnet.files import write_durably
from bigearthnet.store.layout import Codec

CLEVEL: Final[dict[Codec, int]] = {"lz4": 5, "zstd": 1}
"""Blosc compression levels. Higher ones gained under 2% on real patches and cost more than that in time."""

_CHECKSUM_BYTES: Final = 4
_INDEX_ENTRY_BYTES: Final = 16

_EMPTY: Final = 2**64 - 1
"""Offset and length of a chunk that was never written (the slots of a last, partial shard)."""

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
    index = np.full((shard_size, 2), _EMPTY, dtype="<u8")
    sizes = np.fromiter(map(len, chunks), dtype=np.uint64, count=len(chunks))
    index[: len(chunks), 0] = np.cumsum(sizes) - sizes
    index[: len(chunks), 1] = sizes
    encoded_index = index.tobytes()
    return write_durably(path, [*chunks, encoded_index, _crc32c(encoded_index)])


def hash_chunks(chunks: Sequence[bytes]) -> str:
    """Hash the checksums of a shard's chunks: equal if and only if pixels and encoding are."""
    return hashlib.blake2b(b"".join(chunk[-_CHECKSUM_BYTES:] for chunk in chunks), digest_size=8).hexdigest()


def read_shard(path: str, shard_size: int) -> list[bytes | None]:
    """Read a shard whole.

    Args:
        path: Where the shard lies.
        shard_size: Chunks in a full shard.

    Returns:
        The encoded chunk in each of the `shard_size` slots; None in one that was never written.

    Raises:
        DamagedError: The index is damaged, or points outside of the shard.
        OSError: The shard cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    n_index = shard_size * _INDEX_ENTRY_BYTES
    encoded_index, checksum = data[-n_index - _CHECKSUM_BYTES : -_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(encoded_index) != n_index or _crc32c(encoded_index) != checksum:
        raise DamagedError("the index of the shard does not match its checksum")
    chunks: list[bytes | None] = []
    end = 0
    for offset, size in struct.iter_unpack("<QQ", encoded_index):
        if (offset, size) == (_EMPTY, _EMPTY):
            chunks.append(None)
            continue
        if offset != end or offset + size > len(data) - n_index - _CHECKSUM_BYTES:
            raise DamagedError(f"the index of the shard points to bytes {offset:,} to {offset + size:,}")
        chunks.append(data[offset : offset + size])
        end = offset + size
    if end != len(data) - n_index - _CHECKSUM_BYTES:
        raise DamagedError(f"the shard holds {len(data) - n_index - _CHECKSUM_BYTES - end:,} bytes that nothing names")
    return chunks


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
    encoded, checksum = chunk[:-_CHECKSUM_BYTES], chunk[-_CHECKSUM_BYTES:]
    if _crc32c(encoded) != checksum:
        raise DamagedError("the pixels do not match their checksum")
    try:
        raw = encoded if codec == "none" else blosc.decompress(encoded)
    except RuntimeError as error:
        raise DamagedError(f"the pixels cannot be decoded: {error}") from error
    if len(raw) != group.patch_bytes:
        raise DamagedError(f"expected {group.patch_bytes:,} bytes of pixels, found {len(raw):,}")
    out[...] = np.frombuffer(raw, group.dtype).reshape(out.shape)


class DamagedError(Exception):
    """A shard is not what was written; says how, and never leaves the package."""


def _crc32c(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))
