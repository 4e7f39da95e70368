"""Ways to keep patches for training, this project's and others by their own documentation, and how they are read.

`python -m benchmarks.reading write NAME FOLDER` writes the patches that `make_patches` has put into a folder in one of
these forms; `read` takes random batches of 128 from it and prints what that took as JSON; `check` compares the pixels
of an epoch with those that rasterio reads. Two threads, or two worker processes where the documentation has those:

  lz4, zstd, none   this project's stream from stores of those codecs, with its checks
  memory maps       NumPy memory maps of raw pixels, indexed on two threads: the ceiling, with no checks
  tensorstore       the lz4 store through tensorstore
  zarr and zarrs    the lz4 store through zarr-python, with the codecs of zarrs
  TFRecord          raw pixels in a tf.train.Example through tf.data, with a shuffle buffer of 2,048
  LMDB              a safetensors a patch, as rico-hdl writes it
  litdata           its StreamingDataset in its StreamingDataLoader
  mosaicml          mosaicml-streaming: its StreamingDataset in torch's DataLoader
  webdataset        .npy in .tar, with a shuffle buffer of 1,024 in each worker
  Grain             ArrayRecord, a record a patch, through Grain's MapDataset
  torchgeo          its BigEarthNet on the archive's folders: all bands whatever is asked for, interpolated to 10 m
  rasterio          the files of the archive that are asked for, in a loop
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.conditions import clone_real_patches, drop_pages
from benchmarks.converting import list_patches, read_raster
from benchmarks.processes import count_cpu, watch_python
from benchmarks.turns import Figures
from bigearthnet.bands import BAND_SETS, S2_GROUPS
from bigearthnet.store.layout import CODECS, Codec

BATCH: Final = 128
_SHARD: Final = 256
_BUFFER: Final = 2_048
_N_THREADS: Final = 2
MAPS: Final = "memory maps"
_LZ4: Final = "lz4"

Bands = Mapping[str, tuple[str, ...]]
"""Array of the store to those of its bands that are asked for."""
Batch = Mapping[str, Any]
"""Array of the store to pixels, (patch, band, row, col)."""
Pixels = Mapping[str, NDArray[np.uint16]]
"""Likewise, of all patches and bands."""


def make_patches(folder: Path, n_patches: int) -> None:
    """Write copies of the six real patches as an archive, and their pixels as files to map, if they are not there."""
    raw, maps = _find_raw(folder), folder / MAPS
    if maps.exists():
        return
    clone_real_patches(raw, raw.with_name("BigEarthNet-S1-v1.0"), n_patches)
    maps.mkdir()
    decoded: dict[bytes, bytes] = {}
    for group in S2_GROUPS:
        with (maps / group.name).open("wb") as file:
            for name in list_patches(raw):
                for band in group.bands:
                    path = raw / name / f"{name}_{band}.tif"
                    content = path.read_bytes()
                    if content not in decoded:
                        decoded[content] = read_raster(str(path)).tobytes()
                    file.write(decoded[content])


def choose_bands(name: str) -> Bands:
    """Find the bands of Sentinel-2 of one of `BAND_SETS`, by array."""
    found = {group.name: tuple(band for band in BAND_SETS[name] if band in group.bands) for group in S2_GROUPS}
    return {array: bands for array, bands in found.items() if bands}


def _find_raw(folder: Path) -> Path:
    return folder / "archive/BigEarthNet-v1.0"


def _map_pixels(folder: Path) -> Pixels:
    return {
        group.name: np.memmap(folder / MAPS / group.name, group.dtype, "r").reshape(-1, *group.patch_shape)
        for group in S2_GROUPS
    }


def _find_axes(bands: Bands) -> dict[str, Any]:
    """Return how to index the band axis of each array: a slice if all of its bands are asked for, or places."""
    of = {group.name: group.bands for group in S2_GROUPS}
    return {
        array: slice(None) if found == of[array] else [of[array].index(band) for band in found]
        for array, found in bands.items()
    }


def _draw_rows(n_patches: int) -> Iterator[NDArray[np.int64]]:
    """Give the rows of random batches, every patch once an epoch."""
    for epoch in count():
        order = np.random.default_rng(epoch).permutation(n_patches)
        for first in range(0, n_patches - BATCH + 1, BATCH):
            yield order[first : first + BATCH]


def _read_ahead(n_patches: int, read: Callable[[NDArray[np.int64]], Batch]) -> Iterator[Batch]:
    """Read batches ahead on threads, whole batches at a time."""
    with ThreadPoolExecutor(_N_THREADS) as threads:
        ahead: deque[Any] = deque()
        try:
            for rows in _draw_rows(n_patches):
                ahead.append(threads.submit(read, rows))
                if len(ahead) > 2 * _N_THREADS:
                    yield ahead.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _stack(samples: Sequence[Batch]) -> Batch:
    return {array: np.stack([sample[array] for sample in samples]) for array in samples[0]}


def _load_with_torch(dataset: Any, **options: Any) -> Iterator[Batch]:
    """Read epoch after epoch through PyTorch's DataLoader."""
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, num_workers=_N_THREADS, persistent_workers=True, **options)
    return _repeat(loader)


def _repeat(loader: Any) -> Iterator[Batch]:
    while True:
        yield from loader


class _Pick:
    """Takes the bands that are asked for out of a sample; an object, since worker processes are sent one."""

    def __init__(self, bands: Bands) -> None:
        self._axes = _find_axes(bands)

    def __call__(self, sample: Batch) -> Batch:
        return {array: np.ascontiguousarray(sample[array][axis]) for array, axis in self._axes.items()}


def _write_ours(folder: Path, out: Path, codec: Codec) -> None:
    from converter.conversion import convert
    from converter.options import ConvertOptions

    convert(_find_raw(folder), out, ConvertOptions(codec=codec))


def _read_ours(out: Path, bands: Bands) -> Iterator[Batch]:
    from trainer import Stream, open_store

    chosen = [band for found in bands.values() for band in found]
    selection = open_store(out).select(recommended=False)
    stream = Stream(selection, bands=chosen, batch_size=BATCH, threads=_N_THREADS)

    def read() -> Iterator[Batch]:
        with stream:
            yield from stream.forever()

    return read()


def _read_maps(out: Path, bands: Bands) -> Iterator[Batch]:
    pixels, axes = _map_pixels(out.parent), _find_axes(bands)

    def read(rows: NDArray[np.int64]) -> Batch:
        return {
            array: pixels[array][rows] if isinstance(axis, slice) else pixels[array][rows[:, None], axis]
            for array, axis in axes.items()
        }

    return _read_ahead(len(pixels[S2_GROUPS[0].name]), read)


def _read_tensorstore(out: Path, bands: Bands) -> Iterator[Batch]:
    import tensorstore

    limits = {"data_copy_concurrency": {"limit": _N_THREADS}, "file_io_concurrency": {"limit": _N_THREADS}}
    context = tensorstore.Context(limits)
    sources = {}
    for array, axis in _find_axes(bands).items():
        where = {"driver": "file", "path": f"{out}/images.zarr/{array}"}
        source = tensorstore.open({"driver": "zarr3", "kvstore": where}, context=context, read=True).result()
        sources[array] = source[:, axis]

    def read() -> Iterator[Batch]:
        ahead: deque[dict[str, Any]] = deque()
        for rows in _draw_rows(next(iter(sources.values())).shape[0]):
            ahead.append({array: source[rows].read() for array, source in sources.items()})
            if len(ahead) > _N_THREADS:
                yield {array: future.result() for array, future in ahead.popleft().items()}

    return read()


def _read_zarr(out: Path, bands: Bands) -> Iterator[Batch]:
    import zarr
    import zarrs  # noqa: F401 - registers its pipeline

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": _N_THREADS})
    group = zarr.open_group(out / "images.zarr", mode="r")
    sources: dict[str, Any] = {array: group[array] for array in bands}
    axes = _find_axes(bands)

    def read() -> Iterator[Batch]:
        for rows in _draw_rows(next(iter(sources.values())).shape[0]):
            yield {array: source.oindex[rows, axes[array]] for array, source in sources.items()}

    return read()


def _write_tfrecord(folder: Path, out: Path) -> None:
    import tensorflow as tf

    pixels = _map_pixels(folder)
    out.mkdir()
    for first in range(0, n_patches := len(pixels[S2_GROUPS[0].name]), _SHARD):
        with tf.io.TFRecordWriter(f"{out}/{first:06}.tfrecord") as writer:
            for row in range(first, min(first + _SHARD, n_patches)):
                features = {
                    array: tf.train.Feature(bytes_list=tf.train.BytesList(value=[found[row].tobytes()]))
                    for array, found in pixels.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def _read_tfrecord(out: Path, bands: Bands) -> Iterator[Batch]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    files = sorted(str(path) for path in out.iterdir())
    features = {array: tf.io.FixedLenFeature([], tf.string) for array in bands}
    shapes = {group.name: group.patch_shape for group in S2_GROUPS}
    axes = _find_axes(bands)

    def parse(examples: Any) -> Any:
        parsed = {}
        for array, encoded in tf.io.parse_example(examples, features).items():
            found = tf.reshape(tf.io.decode_raw(encoded, tf.uint16), (-1, *shapes[array]))
            parsed[array] = found if isinstance(axes[array], slice) else tf.gather(found, axes[array], axis=1)
        return parsed

    options = tf.data.Options()
    options.threading.private_threadpool_size = _N_THREADS
    dataset = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files))
        .repeat()  # before the buffer, which no epoch must fill anew: real ones are long
        .interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=_N_THREADS)
        .shuffle(_BUFFER)
        .batch(BATCH)
        .map(parse, num_parallel_calls=_N_THREADS)
        .prefetch(2)
        .with_options(options)
    )
    return iter(dataset)


def _write_lmdb(folder: Path, out: Path) -> None:
    import lmdb
    from safetensors.numpy import save

    pixels = _map_pixels(folder)
    with lmdb.open(str(out), map_size=2**40) as database, database.begin(write=True) as transaction:
        for row, name in enumerate(list_patches(_find_raw(folder))):
            planes = {
                band: np.ascontiguousarray(pixels[group.name][row, place])
                for group in S2_GROUPS
                for place, band in enumerate(group.bands)
            }
            transaction.put(name.encode(), save(planes))


def _read_lmdb(out: Path, bands: Bands) -> Iterator[Batch]:
    import lmdb
    from safetensors.numpy import load

    database = lmdb.open(str(out), readonly=True, lock=False, readahead=False)
    with database.begin() as transaction:
        keys = list(transaction.cursor().iternext(values=False))

    def read(rows: NDArray[np.int64]) -> Batch:
        with database.begin(buffers=True) as transaction:
            planes = [load(bytes(transaction.get(keys[row], b""))) for row in rows.tolist()]
        return {
            array: np.stack([[patch[band] for band in found] for patch in planes]) for array, found in bands.items()
        }

    return _read_ahead(len(keys), read)


def _get_sample(folder: Path, row: int) -> Batch:
    return {array: np.array(found[row]) for array, found in _map_pixels(folder).items()}


def _write_litdata(folder: Path, out: Path) -> None:
    import litdata

    rows = list(range(len(list_patches(_find_raw(folder)))))
    sample = partial(_get_sample, folder)
    litdata.optimize(sample, rows, str(out), chunk_bytes="64MB", num_workers=1, verbose=False)


def _read_litdata(out: Path, bands: Bands) -> Iterator[Batch]:
    import litdata

    # Decoding items together, its default, is an eighth as fast here: it suits samples that are many and small.
    dataset = litdata.StreamingDataset(str(out), shuffle=True, transform=_Pick(bands), batch_decode=False)
    return _repeat(
        litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=_N_THREADS, persistent_workers=True)
    )


def _write_mosaicml(folder: Path, out: Path) -> None:
    from streaming import MDSWriter

    columns = {group.name: f"ndarray:{group.dtype}:{','.join(map(str, group.patch_shape))}" for group in S2_GROUPS}
    with MDSWriter(columns=columns, out=str(out)) as writer:
        for row in range(len(list_patches(_find_raw(folder)))):
            writer.write(_get_sample(folder, row))


def _read_mosaicml(out: Path, bands: Bands) -> Iterator[Batch]:
    from streaming import StreamingDataset

    pick = _Pick(bands)

    class Picking(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Batch:
            return pick(super().__getitem__(at))

    return _load_with_torch(Picking(local=str(out), shuffle=True, batch_size=BATCH), batch_size=BATCH)


def _write_webdataset(folder: Path, out: Path) -> None:
    import webdataset

    out.mkdir()
    with webdataset.ShardWriter(f"{out}/%06d.tar", maxcount=_SHARD, verbose=0) as writer:
        for row, name in enumerate(list_patches(_find_raw(folder))):
            sample = {f"{array}.npy": found for array, found in _get_sample(folder, row).items()}
            writer.write({"__key__": name, **sample})


def _read_webdataset(out: Path, bands: Bands) -> Iterator[Batch]:
    import webdataset

    files = sorted(str(path) for path in out.iterdir())
    pick = _Pick(bands)
    dataset = (
        webdataset.WebDataset(files, shardshuffle=len(files), repeat=True)  # before the buffer, as above
        .shuffle(_BUFFER // _N_THREADS)
        .decode()
        .map(lambda sample: pick({array: sample[f"{array}.npy"] for array in bands}))
        .batched(BATCH, collation_fn=_stack)
    )
    return _load_with_torch(dataset, batch_size=None)


def _write_grain(folder: Path, out: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    pixels = _map_pixels(folder)
    out.mkdir()
    for first in range(0, n_patches := len(pixels[S2_GROUPS[0].name]), _SHARD):
        writer = ArrayRecordWriter(f"{out}/{first:06}.array_record", "group_size:1")
        for row in range(first, min(first + _SHARD, n_patches)):
            writer.write(b"".join(found[row].tobytes() for found in pixels.values()))
        writer.close()


def _read_grain(out: Path, bands: Bands) -> Iterator[Batch]:
    import grain

    pick = _Pick(bands)
    sizes = np.cumsum([np.prod(group.patch_shape) for group in S2_GROUPS])

    def parse(record: bytes) -> Batch:
        parts = np.split(np.frombuffer(record, np.uint16), sizes[:-1])
        return pick({group.name: part.reshape(group.patch_shape) for group, part in zip(S2_GROUPS, parts, strict=True)})

    dataset = (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(sorted(str(path) for path in out.iterdir())))
        .seed(1)
        .shuffle()
        .repeat()
        .map(parse)
        .batch(BATCH)
        .to_iter_dataset(grain.ReadOptions(num_threads=_N_THREADS))
    )
    return iter(dataset)


def _write_torchgeo(folder: Path, out: Path) -> None:
    """Write the lists of the three splits, all of which its check of the folder asks for; all patches are in one."""
    raw = _find_raw(folder)
    lines = "".join(f"{name},\n" for name in list_patches(raw))
    for split in ("train", "val", "test"):
        (raw.parent / f"bigearthnet-{split}.csv").write_text(lines if split == "train" else "")
    out.symlink_to(raw.parent)


def _read_torchgeo(out: Path, bands: Bands) -> Iterator[Batch]:
    from torchgeo.datasets import BigEarthNet

    del bands
    return _load_with_torch(BigEarthNet(str(out), "train", "s2"), batch_size=BATCH, shuffle=True)


def _read_rasterio(out: Path, bands: Bands) -> Iterator[Batch]:
    import rasterio  # noqa: F401 - not in the time of the first batch

    raw = _find_raw(out.parent)
    names = list_patches(raw)

    def read(rows: NDArray[np.int64]) -> Batch:
        return _stack([_read_patch(f"{raw}/{names[row]}", bands) for row in rows])

    return _read_ahead(len(names), read)


def _read_patch(path: str, bands: Bands) -> Batch:
    name = os.path.basename(path)
    return {
        array: np.stack([read_raster(f"{path}/{name}_{band}.tif") for band in found]) for array, found in bands.items()
    }


@dataclass(frozen=True)
class Contender:
    """A form, and a way to read it."""

    read: Callable[[Path, Bands], Iterator[Batch]]
    """Given the form's folder, opens it and returns batches without end, which begin to be read at the first one."""
    write: Callable[[Path, Path], None] | None = None
    """Writes patches of the first folder into the second; None if there is nothing to write."""
    form: str | None = None
    """Whose form it reads, if not its own."""
    compresses: bool = False
    slow: bool = False
    """Does hundreds of patches a second at most, and is measured for one batch."""
    buffered: bool = False
    """Shuffles in a buffer across epochs, so that a patch may come twice before another comes at all."""


CONTENDERS: Final[dict[str, Contender]] = {
    **{codec: Contender(_read_ours, partial(_write_ours, codec=codec), compresses=codec != "none") for codec in CODECS},
    MAPS: Contender(_read_maps),
    "tensorstore": Contender(_read_tensorstore, form=_LZ4, compresses=True),
    "zarr and zarrs": Contender(_read_zarr, form=_LZ4, compresses=True),
    "TFRecord": Contender(_read_tfrecord, _write_tfrecord, buffered=True),
    "LMDB": Contender(_read_lmdb, _write_lmdb),
    "litdata": Contender(_read_litdata, _write_litdata),
    "mosaicml": Contender(_read_mosaicml, _write_mosaicml),
    "webdataset": Contender(_read_webdataset, _write_webdataset, buffered=True),
    "Grain": Contender(_read_grain, _write_grain, compresses=True),
    "torchgeo": Contender(_read_torchgeo, _write_torchgeo, slow=True),
    "rasterio": Contender(_read_rasterio, slow=True),
}


def _find_form(name: str, folder: Path) -> Path:
    """Find what a contender reads."""
    return folder / (CONTENDERS[name].form or name)


def write_form(name: str, folder: Path) -> None:
    """Write what a contender reads, in a process of its own, unless it is there; compare its pixels with rasterio's."""
    done = folder / f"{name}.checked"
    if done.exists():
        return
    if CONTENDERS[name].write and not _find_form(name, folder).exists():
        watch_python("-m", "benchmarks.reading", "write", name, folder)
    watch_python("-m", "benchmarks.reading", "check", name, folder)
    done.touch()


def run_contender(name: str, folder: Path, bands: str, seconds: float, *, cold: bool) -> Figures:
    """Read random batches in a process of its own; returns figures.

    Args:
        name: Of the contender.
        folder: With `make_patches` and `write_form` done.
        bands: One of `BAND_SETS`.
        seconds: How long to measure, after a little more than an epoch that warms up.
        cold: Measure the first epoch instead, of files whose pages have been dropped.
    """
    form = _find_raw(folder) if CONTENDERS[name].slow else _find_form(name, folder)
    if cold:
        drop_pages(form)
    words = ("--bands", bands, "--seconds", seconds, *(["--cold"] if cold else []))
    watched = watch_python("-m", "benchmarks.reading", "read", name, folder, *map(str, words))
    sizes = [path.stat().st_size for path in form.rglob("*") if path.is_file()]
    n_patches = len(list_patches(_find_raw(folder)))
    return {
        **json.loads(watched.shown.splitlines()[-1]),
        "peak MB": watched.peak_bytes / 1e6,
        "bytes/patch": sum(sizes) / n_patches,
        "files": len(sizes),
    }


def _read(name: str, folder: Path, bands: Bands, seconds: float, *, cold: bool) -> Figures:
    """Time a contender in this process."""
    n_patches = len(list_patches(_find_raw(folder)))
    slow = CONTENDERS[name].slow
    batches = CONTENDERS[name].read(_find_form(name, folder), bands)
    if not cold:
        _take(batches, BATCH if slow else n_patches + 2 * BATCH, 0)  # into an epoch: real ones seldom begin
    n_least, seconds = (BATCH if slow else n_patches, 0) if cold else (BATCH, seconds)
    start, cpu_s = time.perf_counter(), count_cpu()
    n_read = _take(batches, n_least, seconds)
    elapsed = time.perf_counter() - start
    return {"patches/s": n_read / elapsed, "CPU s/1000": (count_cpu() - cpu_s) / n_read * 1e3}


def _take(batches: Iterator[Batch], n_patches: int, seconds: float) -> int:
    """Take batches until both have passed; returns the number of patches."""
    n_taken, start = 0, time.perf_counter()
    while n_taken < n_patches or time.perf_counter() - start < seconds:
        n_taken += len(next(iter(next(batches).values())))
    return n_taken


def _check(name: str, folder: Path) -> None:
    """Compare an epoch, or of who is slow a batch, with the maps, patch by patch in any order."""
    bands, contender = choose_bands("rgb"), CONTENDERS[name]
    pixels, axes = _map_pixels(folder), _find_axes(bands)
    n_patches = BATCH if contender.slow else len(pixels[S2_GROUPS[0].name])
    found: Counter[int] = Counter()
    batches = contender.read(_find_form(name, folder), bands)
    while found.total() < n_patches:
        batch = next(batches)
        if name == "torchgeo":  # the places of B04, B03 and B02, whose pixels it only casts
            batch = {"s2_10m": np.asarray(batch["image"])[:, [3, 2, 1]].astype(np.uint16)}
        found += Counter(_sum_patches({array: np.asarray(batch[array]) for array in bands}))
    expected = Counter(_sum_patches({array: pixels[array][:, axis] for array, axis in axes.items()}))
    is_part = contender.slow or contender.buffered
    assert set(found) == set(expected) if is_part else found == expected, name


def _sum_patches(batch: Batch) -> Iterator[int]:
    for planes in zip(*batch.values(), strict=True):
        yield zlib.crc32(b"".join(plane.tobytes() for plane in planes))


def main() -> None:
    """Write, check or read one form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "check", "read"))
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bands", choices=BAND_SETS, default="s2", help="default: all of Sentinel-2")
    parser.add_argument("--seconds", type=float, default=2, help="how long to measure (default: 2)")
    parser.add_argument("--cold", action="store_true", help="measure the first epoch")
    given = parser.parse_args()
    if given.what == "read":
        figures = _read(given.name, given.folder, choose_bands(given.bands), given.seconds, cold=given.cold)
        print(json.dumps(figures), flush=True)
    elif given.what == "check":
        _check(given.name, given.folder)
    elif write := CONTENDERS[given.name].write:
        write(given.folder, _find_form(given.name, given.folder))


if __name__ == "__main__":
    main()
