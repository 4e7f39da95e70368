"""Reading: our own path, tensorstore's, and what happens to damaged shards."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, GzipCodec

from bigearthnet.store.manifest import Entry
from bigearthnet.store.shard import DamagedError
from tests.manifests import seal_again
from tests.trainer.conftest import N_PATCHES, SHARD_SIZE, Pixels
from trainer import ReadError, Store, open_store
from trainer.source import read
from trainer.source.decode import BloscDecoder, Shard, map_file
from trainer.source.read import CHECKS, ArrayReader, Check, ShardReader, TensorStoreReader


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _write_empty(path: Path) -> None:
    _change_entry(path, b"\xff" * 16)


def _wrap_around(path: Path) -> None:
    _change_entry(path, struct.pack("<QQ", 2**64 - 2, 10))


def _change_entry(path: Path, entry: bytes) -> None:
    """Change the first entry of the index, and its checksum."""
    content = path.read_bytes()
    index = entry + content[-SHARD_SIZE * 16 - 4 + 16 : -4]
    path.write_bytes(content[: -SHARD_SIZE * 16 - 4] + index + struct.pack("<I", google_crc32c.value(index)))


ROWS = np.array([119, 3, 3, 77, 16, 15])
CHOICES = [None, (2, 1, 0), (3,), (0, 2), (3, 0, 1)]


@pytest.mark.parametrize("bands", CHOICES)
@pytest.mark.parametrize("symmetries", [None, np.array([0, 1, 2, 3, 6, 5], np.uint8)])
def test_both_paths_give_the_same_pixels(
    any_store: Store, pixels: Pixels, bands: tuple[int, ...] | None, symmetries: Any
) -> None:
    info = any_store.describe("s2_10m")
    names = info.bands if bands is None else [info.bands[place] for place in bands]
    ours = any_store.open_reader("s2_10m", names)
    assert isinstance(ours, ShardReader)
    theirs: ArrayReader = TensorStoreReader(info, any_store.objects, bands)
    found = [np.zeros((len(ROWS), len(names), 120, 120), np.uint16) for _ in range(2)]
    ours.read(ROWS, found[0], symmetries)
    theirs.read(ROWS, found[1], symmetries)
    np.testing.assert_array_equal(found[0], found[1])
    if symmetries is None:
        np.testing.assert_array_equal(found[0], pixels["s2_10m"][ROWS][:, list(bands or range(4))])


def test_another_legal_chain_is_read_through_tensorstore(copy_store: Callable[[str], Path], pixels: Pixels) -> None:
    folder = copy_store("lz4")
    group = zarr.open_group(folder / "images.zarr", mode="a", use_consolidated=False)
    group.create_array(
        "s2_60m",
        data=np.asarray(pixels["s2_60m"]),
        chunks=(7, 1, 20, 20),
        serializer=BytesCodec(endian="big"),
        compressors=[GzipCodec()],
        attributes={"bands": ["B01", "B09"]},
        overwrite=True,
    )
    _reconsolidate(folder, "s2_60m")
    store = open_store(folder)
    assert [info.chain for info in store.arrays] == ["blosc", "blosc", "other"]
    reader = store.open_reader("s2_60m", ["B09", "B01"])
    assert isinstance(reader, TensorStoreReader)
    out = np.zeros((len(ROWS), 2, 20, 20), np.uint16)
    reader.read(ROWS, out, None)
    np.testing.assert_array_equal(out, pixels["s2_60m"][ROWS][:, ::-1])
    (folder / "images.zarr/s2_60m/c/0/0/0/0").unlink()
    with pytest.raises(ReadError, match="s2_60m"):
        reader.read(ROWS, out, None)


def test_a_map_without_a_band_axis_is_read_as_one_band(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("none")
    codes = np.arange(N_PATCHES * 25, dtype=np.uint16).reshape(N_PATCHES, 5, 5)
    group = zarr.open_group(folder / "images.zarr", mode="a", use_consolidated=False)
    group.create_array(
        "reference_map",
        data=codes,
        shards=(SHARD_SIZE, 5, 5),
        chunks=(1, 5, 5),
        compressors=[zarr.codecs.Crc32cCodec()],
        attributes={"bands": ["reference_map"]},
    )
    _reconsolidate(folder, "reference_map")
    paths = {
        path.relative_to(folder).as_posix(): path for path in folder.glob("images.zarr/*/c/**/0") if path.is_file()
    }
    seal_again(folder, shards={name: Entry(path.stat().st_size, "0" * 16) for name, path in paths.items()})
    store = open_store(folder)
    assert "reference_map" not in store.band_sets["all"]
    reader = store.open_reader("reference_map", ["reference_map"])
    assert isinstance(reader, ShardReader)
    out = np.zeros((len(ROWS), 1, 5, 5), np.uint16)
    reader.read(ROWS, out, None)
    np.testing.assert_array_equal(out[:, 0], codes[ROWS])


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_a_flipped_bit_names_array_shard_and_patch(copy_store: Callable[[str], Path], codec: str) -> None:
    folder = copy_store(codec)
    entries = _entries(folder / "images.zarr/s2_10m/c/1/0/0/0")
    offset, n_bytes = entries[5]
    _flip(folder / "images.zarr/s2_10m/c/1/0/0/0", int(offset + n_bytes // 2))
    out = np.zeros((1, 4, 120, 120), np.uint16)
    store = open_store(folder)
    reader = store.open_reader("s2_10m", store.describe("s2_10m").bands)
    with pytest.raises(ReadError) as found:
        reader.read(np.array([21]), out, None)
    for part in (str(folder), "array s2_10m", "shard 1 (images.zarr/s2_10m/c/1/0/0/0)", "patch 21", "crc32c"):
        assert part in str(found.value)
    reader.read(np.array([20]), out, None)


def test_checking_can_be_switched_off(copy_store: Callable[[str], Path], pixels: Pixels) -> None:
    folder = copy_store("none")
    _flip(folder / "images.zarr/s2_10m/c/0/0/0/0", 0)
    store = open_store(folder)
    out = np.zeros((1, 4, 120, 120), np.uint16)
    store.open_reader("s2_10m", store.describe("s2_10m").bands, check="never").read(np.array([0]), out, None)
    assert (out[0] != pixels["s2_10m"][0]).sum() == 1


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_a_chunk_is_checked_the_first_time_or_always(copy_store: Callable[[str], Path], codec: str) -> None:
    folder = copy_store(codec)
    store = open_store(folder)
    bands = store.describe("s2_60m").bands
    readers = {check: store.open_reader("s2_60m", bands, check=check) for check in CHECKS}
    out = np.zeros((1, 2, 20, 20), np.uint16)
    readers["first"].read(np.array([3]), out, None)
    path = folder / "images.zarr/s2_60m/c/0/0/0/0"
    offset, n_bytes = _entries(path)[3]
    with path.open("r+b") as file:  # the mapping sees it
        file.seek(int(offset + n_bytes - 1))
        last = file.read(1)[0]
        file.seek(int(offset + n_bytes - 1))
        file.write(bytes([last ^ 1]))
    readers["first"].read(np.array([3]), out, None)
    readers["never"].read(np.array([3]), out, None)
    with pytest.raises(ReadError, match="crc32c"):
        readers["always"].read(np.array([3]), out, None)
    fresh = open_store(folder)
    for _ in range(2):
        with pytest.raises(ReadError, match="crc32c"):
            fresh.open_reader("s2_60m", bands).read(np.array([3]), out, None)


def _damage_header(content: bytearray, start: int) -> None:
    content[start + 4 : start + 8] = struct.pack("<I", 2**30)


def _damage_length(content: bytearray, start: int) -> None:
    content[start + 12 : start + 16] = struct.pack("<I", 2**30)


def _damage_stream(content: bytearray, start: int) -> None:
    content[start + 16 : start + 24] = b"\xff" * 8


@pytest.mark.parametrize("damage", [_damage_header, _damage_length, _damage_stream])
def test_unchecked_damage_never_reaches_past_the_batch(
    copy_store: Callable[[str], Path], damage: Callable[[bytearray, int], None]
) -> None:
    folder = copy_store("lz4")
    path = folder / "images.zarr/s2_20m/c/0/0/0/0"
    content = bytearray(path.read_bytes())
    damage(content, int(_entries(path)[0][0]))
    path.write_bytes(content)
    store = open_store(folder)
    out = np.zeros((3, 6, 60, 60), np.uint16)
    reader = store.open_reader("s2_20m", store.describe("s2_20m").bands, check="never")
    with pytest.raises(ReadError, match=r"s2_20m, shard 0"):
        reader.read(np.array([0]), out[1:2], None)
    assert not out[[0, 2]].any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "the shard is missing"),
        (lambda path: path.write_bytes(b""), "found 0"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "expected a file of 19,635 bytes, found 19,634"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "expected a file of 19,635 bytes, found 19,636"),
        (_replace_by_pipe, "it is no regular file"),
        (lambda path: _flip(path, -1), "checksum of its index"),
        (_wrap_around, "points beyond"),
        (_write_empty, "never written"),
    ],
)
def test_a_broken_shard_is_named(
    copy_store: Callable[[str], Path], damage: Callable[[Path], object], message: str
) -> None:
    folder = copy_store("lz4")
    damage(folder / "images.zarr/s2_60m/c/0/0/0/0")
    store = open_store(folder)
    out = np.zeros((1, 2, 20, 20), np.uint16)
    with pytest.raises(ReadError, match=message) as found:
        store.open_reader("s2_60m", ("B01", "B09")).read(np.array([0]), out, None)
    assert "array s2_60m, shard 0" in str(found.value)


def store_alone(chunk: NDArray[np.uint8]) -> Shard:
    """Make a shard of one chunk."""
    index = np.array([0, len(chunk)], "<u8").tobytes()
    with tempfile.TemporaryFile() as file:
        file.write(chunk.tobytes() + index + struct.pack("<I", google_crc32c.value(index)))
        file.flush()
        return Shard(file.fileno(), 1)


def test_bands_in_blocks_of_their_own_are_decoded_alone() -> None:
    planes = np.random.default_rng(0).integers(0, 3000, (4, 60, 60), np.uint16)
    chunk = np.frombuffer(blosc.compress(planes, b"zstd", 1, blosc.BITSHUFFLE, planes[0].nbytes) + bytes(4), np.uint8)
    assert int(chunk[8:12].view("<u4")[0]) == planes[0].nbytes
    out = np.empty(3 * planes[0].nbytes, np.uint8)
    BloscDecoder(4, planes[0].nbytes, (2, 3, 0)).decode([(store_alone(chunk), 0)], out[None], check=False)
    np.testing.assert_array_equal(out.view(np.uint16).reshape(3, 60, 60), planes[[2, 3, 0]])


def test_chunks_that_blosc_only_stored_are_read() -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (4, 60, 60), np.uint16)
    chunk = np.frombuffer(blosc.compress(noise, b"lz4", 5, blosc.BITSHUFFLE, noise[0].nbytes) + bytes(4), np.uint8)
    assert chunk[2] & 2
    for bands in (None, (3, 1)):
        out = np.empty((4 if bands is None else 2) * noise[0].nbytes, np.uint8)
        BloscDecoder(4, noise[0].nbytes, bands).decode([(store_alone(chunk), 0)], out[None], check=False)
        np.testing.assert_array_equal(out.view(np.uint16).reshape(-1, 60, 60), noise[list(bands or range(4))])


@pytest.mark.parametrize("n_rows", [20, 60])
@pytest.mark.parametrize("linked", [True, False])
def test_small_and_large_chunks_are_decoded_with_any_build_of_numcodecs(
    monkeypatch: pytest.MonkeyPatch, n_rows: int, linked: bool
) -> None:
    """Also with one that hides the functions of C-Blosc; and what C-Blosc refuses is damage."""
    if not linked:
        monkeypatch.setattr("trainer.source.decode._DECOMPRESS", None)
        monkeypatch.setattr("trainer.source.decode._DECOMPRESS_LOCKED", None)
    planes = np.random.default_rng(0).integers(0, 300, (2, n_rows, n_rows), np.uint16)
    chunk = np.frombuffer(blosc.compress(planes, b"lz4", 5, blosc.BITSHUFFLE, planes[0].nbytes) + bytes(4), np.uint8)
    decoder, out = BloscDecoder(2, planes[0].nbytes, None), np.empty((1, planes.nbytes), np.uint8)
    decoder.decode([(store_alone(chunk), 0)], out, check=False)
    np.testing.assert_array_equal(out.view(np.uint16).reshape(planes.shape), planes)
    damaged = chunk.copy()
    damaged[16:24] = 255
    with pytest.raises(DamagedError, match="blosc cannot decode"):
        decoder.decode([(store_alone(damaged), 0)], out, check=False)


def test_memory_that_does_not_fit_is_refused_before_anything_is_written(store: Store) -> None:
    reader = store.open_reader("s2_60m", ("B09",))
    memory = np.zeros((4, 2, 20, 20), np.uint16)
    for out in (memory[:1, :1], memory[:2], memory[:2, :1], memory[:2, :1].astype(np.uint8)):
        with pytest.raises(ValueError, match=r"expected contiguous uint16 of shape \(2, 1, 20, 20\), found uint"):
            reader.read(np.array([0, 1]), out, None)
    assert not memory.any()


def test_a_chunk_too_short_for_a_header_is_damage() -> None:
    with pytest.raises(DamagedError, match="too few"):
        BloscDecoder(1, 100, None).decode(
            [(store_alone(np.zeros(10, np.uint8)), 0)], np.zeros((1, 100), np.uint8), False
        )


def _entries(path: Path) -> np.ndarray:
    content = path.read_bytes()
    return np.frombuffer(content[-SHARD_SIZE * 16 - 4 : -4], "<u8").reshape(-1, 2)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def _reconsolidate(folder: Path, name: str) -> None:
    """Put the metadata of one array into the consolidated ones, and keep the root attributes."""
    path = folder / "images.zarr/zarr.json"
    root = json.loads(path.read_text())
    root["consolidated_metadata"]["metadata"][name] = json.loads((folder / f"images.zarr/{name}/zarr.json").read_text())
    path.write_text(json.dumps(root))
    seal_again(folder)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what a mapping takes")
def test_what_is_mapped_counts_as_memory_of_the_process_only_up_to_a_bound(
    stores: dict[str, Path], pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As batch systems count it, which end a job for what it only reads."""
    store = open_store(stores["none"])
    bound = store.patch_bytes * 10
    monkeypatch.setattr(read, "MAX_RESIDENT", bound)
    readers = {info.name: store.open_reader(info.name, info.bands) for info in store.arrays}
    largest = 0
    for row in [*range(N_PATCHES), *range(N_PATCHES)]:
        for name, reader in readers.items():
            out = np.empty_like(pixels[name][:1])
            reader.read(np.array([row]), out, None)
            np.testing.assert_array_equal(out[0], pixels[name][row])
        if row % 9 == 8:
            largest = max(largest, _measure_resident(store.name))
    everything = store.manifest.counts["converted"] * store.patch_bytes
    assert 0 < largest < 2 * bound < everything / 3


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system drops no pages")
@pytest.mark.parametrize(("check", "memory"), [("first", 2**60), ("never", 1)])
def test_of_what_is_not_in_memory_just_the_chunks_are_read(
    copy_store: Callable[[str], Path], pixels: Pixels, monkeypatch: pytest.MonkeyPatch, check: Check, memory: int
) -> None:
    """Not what the system would read around them: a store that memory cannot hold has lost it when it is wanted."""
    monkeypatch.setattr("trainer.source.read.measure_memory", lambda: memory)
    folder = copy_store("lz4")
    path = folder / "images.zarr/s2_10m/c/2/0/0/0"
    n_bytes = int(_entries(path)[[8, 3], 1].sum())
    os.sync()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _count_pages(path):
        pytest.skip("this file system keeps its files in memory")
    out = np.empty_like(pixels["s2_10m"][:2])
    rows = 2 * SHARD_SIZE + np.array([8, 3])
    store = open_store(folder)
    store.open_reader("s2_10m", store.describe("s2_10m").bands, check=check).read(rows, out, None)
    np.testing.assert_array_equal(out, pixels["s2_10m"][rows])
    assert n_bytes <= _count_pages(path) * mmap.PAGESIZE <= n_bytes + 8 * mmap.PAGESIZE  # and the index


def _count_pages(path: Path) -> int:
    """Count the pages of a file that are in memory."""
    with path.open("rb") as file:
        data = map_file(file.fileno(), path.stat().st_size)
    pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
    assert not ctypes.CDLL(None).mincore(ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(len(data)), pages)
    return sum(page & 1 for page in pages)


def _measure_resident(folder: str) -> int:
    """Bytes that the mappings of files in a folder count as this process's."""
    n_bytes, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = folder in line
        elif is_ours and line.startswith("Rss:"):
            n_bytes += int(line.split()[1]) * 1024
    return n_bytes
