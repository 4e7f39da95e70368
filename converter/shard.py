"""Encode one shard of one array as Zarr v3's `sharding_indexed` codec lays it out.

zarr would write the same bytes (a test compares them), but through an event loop and copies that cost several times
what the compression does. Here a patch is encoded while it is still in the cache that it was read into.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import os
import struct
from typing import Final

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from converter.model import BandGroup, Codec

CLEVEL: Final[dict[Codec, int]] = {"lz4": 5, "zstd": 1}
"""Blosc compression levels. Higher ones gained under 2% on real patches and cost more than that in time."""

_EMPTY: Final = 2**64 - 1
"""Offset and length of a chunk that was never written (the slots of a last, partial shard)."""

blosc.use_threads = False  # one task a core already; and only the thread-free calls may be made from several threads


def encode_chunk(pixels: NDArray[np.generic], group: BandGroup, codec: Codec) -> bytes:
    """Encode one patch as one inner chunk: bytes, then blosc unless the codec is `none`, then crc32c.

    Blosc's blocks are one band plane each, so that a reader can decode some bands of a patch without the others.

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


def write_durably(path: str, parts: list[bytes]) -> int:
    """Write a file under a temporary name, flush it to disk and rename it into place.

    Returns:
        Bytes written.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb", buffering=0) as file:
            n_bytes = _write_all(file.fileno(), parts)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return n_bytes


def _write_all(descriptor: int, parts: list[bytes]) -> int:
    """Gather-write without joining: a shard of 28 MB need not be copied to be written."""
    total = 0
    for first in range(0, len(parts), os.sysconf("SC_IOV_MAX")):
        batch = parts[first : first + os.sysconf("SC_IOV_MAX")]
        size = sum(map(len, batch))
        written = os.writev(descriptor, batch)
        if written < size:  # a full disk or a signal: the plain call goes on, or names the fault
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        total += size
    return total


def _crc32c(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))
