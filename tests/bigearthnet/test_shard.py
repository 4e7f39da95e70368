"""The bytes of a shard, against those that zarr itself writes."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from bigearthnet.bands import REFERENCE_MAP, S1_10M, S2_10M, S2_20M, S2_60M, BandGroup
from bigearthnet.files import write_durably
from bigearthnet.store.layout import Codec
from bigearthnet.store.shard import encode_chunk, write_shard
from tests.archives import Archive

EMPTY = 2**64 - 1


def make_pixels(group: BandGroup, n_patches: int) -> NDArray[Any]:
    """Smooth patches with noise; one is zero throughout, one noise throughout."""
    random = np.random.default_rng(0)
    shape = (n_patches, *group.patch_shape)
    if group.dtype == "float32":
        pixels = random.normal(-15, 5, shape).astype("float32")
        pixels[0] = np.nan
    else:
        pixels = (random.gamma(2, 20, shape).cumsum(axis=-1) + 100).astype("uint16")
        pixels[0] = 0
    pixels[-1] = random.integers(0, 65_535, shape[1:]).astype(group.dtype)
    return pixels


def write_with_zarr(
    path: Path, group: BandGroup, codec: Codec, shard_size: int, pixels: NDArray[Any], length: int
) -> None:
    """Write patches as zarr does, with the codecs that the format prescribes."""
    shape = group.patch_shape if len(group.bands) > 1 else group.patch_shape[1:]
    compressors: list[Any] = [Crc32cCodec()]
    if codec != "none":
        level = {"lz4": 5, "zstd": 1}[codec]
        itemsize = np.dtype(group.dtype).itemsize
        blosc = BloscCodec(
            cname=codec, clevel=level, shuffle="bitshuffle", typesize=itemsize, blocksize=itemsize * group.size**2
        )
        compressors.insert(0, blosc)
    array = zarr.create_array(
        path,
        shape=(length, *shape),
        shards=(shard_size, *shape),
        chunks=(1, *shape),
        dtype=group.dtype,
        serializer=BytesCodec(endian="little"),
        compressors=compressors,
        fill_value=np.nan if group.dtype == "float32" else 0,
        config={"write_empty_chunks": True},
    )
    array[:] = pixels.reshape(length, *shape)


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("group", [S2_10M, S2_20M, S2_60M, S1_10M, REFERENCE_MAP], ids=lambda group: group.name)
@pytest.mark.parametrize("n_patches", [8, 5, 1])
def test_a_shard_has_the_very_bytes_that_zarr_writes(
    codec: Codec, group: BandGroup, n_patches: int, tmp_path: Path
) -> None:
    pixels = make_pixels(group, n_patches)
    write_with_zarr(tmp_path / "zarr", group, codec, 8, pixels, n_patches)
    (expected,) = (path for path in (tmp_path / "zarr" / "c").rglob("*") if path.is_file())
    n_bytes = write_shard(str(tmp_path / "own"), [encode_chunk(patch, group, codec) for patch in pixels], 8)
    assert (tmp_path / "own").read_bytes() == expected.read_bytes()
    assert n_bytes == expected.stat().st_size


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_a_store_has_the_very_shards_that_zarr_writes_from_its_metadata(
    codec: Codec, real: Archive, tmp_path: Path
) -> None:
    """Real pixels, in a second shard that is not full."""
    pixels = np.stack([real.read_array(name, "s2_20m") for name in real.names])
    write_with_zarr(tmp_path / "zarr", S2_20M, codec, 4, pixels, 6)
    for shard, patches in enumerate((pixels[:4], pixels[4:])):
        chunks = [encode_chunk(patch, S2_20M, codec) for patch in patches]
        write_shard(str(tmp_path / "own"), chunks, 4)
        assert (tmp_path / "own").read_bytes() == (tmp_path / f"zarr/c/{shard}/0/0/0").read_bytes()


def test_the_index_stands_at_the_end_and_marks_what_was_never_written(tmp_path: Path) -> None:
    chunks = [b"first", b"second one"]
    assert write_shard(str(tmp_path / "shard"), chunks, 4) == 15 + 4 * 16 + 4
    content = (tmp_path / "shard").read_bytes()
    assert content[:15] == b"firstsecond one"
    index = content[15:-4]
    assert struct.unpack("<8Q", index) == (0, 5, 5, 10, EMPTY, EMPTY, EMPTY, EMPTY)
    assert content[-4:] == struct.pack("<I", google_crc32c.value(index))


def test_more_chunks_than_one_system_call_takes_are_written_in_order(tmp_path: Path) -> None:
    n_chunks = 2 * os.sysconf("SC_IOV_MAX") + 7
    chunks = [struct.pack("<I", number) for number in range(n_chunks)]
    write_shard(str(tmp_path / "shard"), chunks, n_chunks)
    assert (tmp_path / "shard").read_bytes().startswith(b"".join(chunks))
    assert (tmp_path / "shard").stat().st_size == 20 * n_chunks + 4


@pytest.mark.parametrize("parts", [[b"abcdef", b"ghijkl", b"mnopqr"], [bytes(100_000)]])
def test_a_write_that_is_cut_short_is_no_success(parts: list[bytes], tmp_path: Path, small_files: None) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError, match="File too large"):
        write_durably(str(tmp_path / "file"), parts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let the system write ten bytes of a file, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_appears_under_its_name_only_when_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real_call = getattr(os, name)

        def record(*args: Any, name: str = name, real_call: Any = real_call) -> None:
            calls.append((name, (tmp_path / "file").exists()))
            real_call(*args)

        monkeypatch.setattr(os, name, record)
    write_durably(str(tmp_path / "file"), [b"new"])
    assert calls[:2] == [("fsync", False), ("replace", False)]
    assert (tmp_path / "file").read_bytes() == b"new"
