"""Converters of BigEarthNet, this project's and others as one would write them, each in a process of its own.

`python -m benchmarks.converting NAME RAW OUT --workers 2` runs one and prints what it took as JSON, once its workers
are up; `run_contender` does that and watches all of its processes. Workers are spawned. The names:

  this project   `converter.conversion.convert`: labels, checks, statistics, lz4, flushed to disk
  rico-hdl way   workers read a patch with rasterio into a safetensors, one writer puts 512 a transaction into LMDB
  TFRecord       workers read patches with rasterio and write a tf.train.Example of each, 256 a file
  dask and zarr  dask.delayed reads a patch with rasterio, da.stack, and da.store into Zarr shards of 256, lz4
  floor          workers read every byte of the archive and write as many as this project's store has; nothing else

  reading        32 threads read every byte of the archive; nothing else

All but the first leave labels out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import count_cpu, watch_python
from benchmarks.turns import Figures
from bigearthnet.bands import S2_GROUPS, BandGroup

_BANDS: Final = tuple(band for group in S2_GROUPS for band in group.bands)
_SHARD: Final = 256
_TRANSACTION: Final = 512
_N_THREADS: Final = 32


@dataclass(frozen=True)
class Taken:
    """What a conversion took, from when its workers were up."""

    seconds: float
    cpu_s: float
    """Of all of its processes."""
    n_patches: int
    more: Mapping[str, float]
    """Other figures, by name and unit."""


Pixels = Mapping[str, NDArray[Any]]
"""Band to the stored pixels of a patch, (row, col)."""


@dataclass(frozen=True)
class Contender:
    """A way to convert."""

    convert: Callable[[argparse.Namespace], Taken]
    read: Callable[[Path, str], Pixels] | None
    """Reads a patch from what was written; None if there are none in it."""


def list_patches(raw: Path) -> list[str]:
    """List the patches of an archive of v1.0, in order."""
    return sorted(os.listdir(raw))


def read_raster(path: str) -> NDArray[Any]:
    """Read a band with rasterio."""
    import rasterio

    with rasterio.open(path) as source:
        pixels: NDArray[Any] = source.read(1)
        return pixels


def _convert_ours(given: argparse.Namespace) -> Taken:
    from bigearthnet.archive.records import Sources
    from converter.conversion import ConvertOptions, convert
    from converter.events import Event, Finishing, Started

    cpu_s: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, Finishing) or (isinstance(event, Started) and not cpu_s):
            cpu_s.append(count_cpu())

    options = ConvertOptions(workers=given.workers, codec=given.codec, reader=given.reader)
    summary = convert(Sources(given.raw, given.s1, given.maps), given.out, options, note)
    more = {
        "MB/s of pixels": summary.pixel_bytes / summary.convert_s / 1e6,
        "start s": summary.startup_s,
        "finish s": summary.finish_s,
    }
    return Taken(summary.convert_s, cpu_s[1] - cpu_s[0], summary.n_patches, more)


def _read_ours(out: Path, name: str) -> Pixels:
    import pyarrow.parquet as pq
    import zarr

    row = pq.read_table(out / "patches.parquet", columns=["patch_id"])["patch_id"].to_pylist().index(name)
    images = zarr.open_group(out / "images.zarr", mode="r")
    return _name_bands({group.name: np.asarray(images[group.name][row]) for group in S2_GROUPS})


def _name_bands(arrays: Mapping[str, NDArray[Any]]) -> Pixels:
    return {band: plane for group in S2_GROUPS for band, plane in zip(group.bands, arrays[group.name], strict=True)}


@contextmanager
def _open_pool(n_workers: int, module: str) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes that have imported what they need."""
    with ProcessPoolExecutor(n_workers, get_context("spawn"), import_module, (module,)) as pool:
        list(pool.map(time.sleep, [0.5] * n_workers))  # one each
        yield pool


def _time_pool(given: argparse.Namespace, module: str, work: Callable[[ProcessPoolExecutor], None]) -> Taken:
    given.out.mkdir(parents=True)
    with _open_pool(given.workers, module) as pool:
        start, cpu_s = time.perf_counter(), count_cpu()
        work(pool)
        return Taken(time.perf_counter() - start, count_cpu() - cpu_s, len(list_patches(given.raw)), {})


def _convert_rico(given: argparse.Namespace) -> Taken:
    import lmdb

    paths = [f"{given.raw}/{name}" for name in list_patches(given.raw)]

    def work(pool: ProcessPoolExecutor) -> None:
        with lmdb.open(str(given.out), map_size=2**40) as database:
            for first in range(0, len(paths), _TRANSACTION):
                some = paths[first : first + _TRANSACTION]
                with database.begin(write=True) as transaction:
                    for path, future in [(path, pool.submit(_serialize_patch, path)) for path in some]:
                        transaction.put(os.path.basename(path).encode(), future.result(), overwrite=False)

    return _time_pool(given, "rasterio", work)


def _serialize_patch(path: str) -> bytes:
    from safetensors.numpy import save

    name = os.path.basename(path)
    return save({band: read_raster(f"{path}/{name}_{band}.tif") for band in _BANDS})


def _read_rico(out: Path, name: str) -> Pixels:
    import lmdb
    from safetensors.numpy import load

    with lmdb.open(str(out), readonly=True, lock=False) as database, database.begin() as transaction:
        return load(bytes(transaction.get(name.encode()) or b""))


def _convert_tfrecord(given: argparse.Namespace) -> Taken:
    names = list_patches(given.raw)
    tasks = [
        (str(given.raw), names[first : first + _SHARD], f"{given.out}/{first:06}.tfrecord")
        for first in range(0, len(names), _SHARD)
    ]
    return _time_pool(given, "tensorflow", lambda pool: _drain(pool.map(_write_examples, tasks)))


def _drain(results: Iterator[None]) -> None:
    for _ in results:
        pass


def _write_examples(task: tuple[str, Sequence[str], str]) -> None:
    import tensorflow as tf

    raw, names, path = task
    with tf.io.TFRecordWriter(path) as writer:
        for name in names:
            contents = {"name": name.encode()}
            contents |= {band: read_raster(f"{raw}/{name}/{name}_{band}.tif").tobytes() for band in _BANDS}
            features = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in contents.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def _read_tfrecord(out: Path, name: str) -> Pixels:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    for record in tf.data.TFRecordDataset(sorted(str(path) for path in out.iterdir())):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        if features["name"].bytes_list.value[0] == name.encode():
            return {
                band: np.frombuffer(features[band].bytes_list.value[0], group.dtype).reshape(group.size, group.size)
                for group in S2_GROUPS
                for band in group.bands
            }
    raise KeyError(name)


def _convert_dask(given: argparse.Namespace) -> Taken:
    import zarr
    from distributed import Client, LocalCluster

    dask: Any = import_module("dask")
    da: Any = import_module("dask.array")  # its functions have no types
    names = list_patches(given.raw)
    with (
        LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.run(import_module, "rasterio")
        start, cpu_s = time.perf_counter(), count_cpu()
        stored = []
        for group in S2_GROUPS:
            read = dask.delayed(_read_group)
            patches = [
                da.from_delayed(read(f"{given.raw}/{name}", group), group.patch_shape, group.dtype) for name in names
            ]
            target = zarr.create_array(
                given.out / group.name,
                shape=(len(names), *group.patch_shape),
                chunks=(1, *group.patch_shape),
                shards=(_SHARD, *group.patch_shape),
                dtype=group.dtype,
                compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
            )
            stored.append(da.store(da.stack(patches).rechunk({0: _SHARD}), target, lock=False, compute=False))
        dask.compute(*stored)
        (given.out / "names.txt").write_text("\n".join(names))
        return Taken(time.perf_counter() - start, count_cpu() - cpu_s, len(names), {})


def _read_group(path: str, group: BandGroup) -> NDArray[Any]:
    return np.stack([read_raster(f"{path}/{os.path.basename(path)}_{band}.tif") for band in group.bands])


def _read_dask(out: Path, name: str) -> Pixels:
    import zarr

    row = (out / "names.txt").read_text().split().index(name)
    arrays = {group.name: zarr.open_array(out / group.name, mode="r") for group in S2_GROUPS}
    return _name_bands({key: np.asarray(array[row]) for key, array in arrays.items()})


def _run_floor(given: argparse.Namespace) -> Taken:
    names = list_patches(given.raw)
    tasks = [
        (str(given.raw), names[i :: given.workers], str(given.out), given.bytes * _SHARD) for i in range(given.workers)
    ]
    return _time_pool(given, "os", lambda pool: _drain(pool.map(_read_and_write, tasks)))


def _read_and_write(task: tuple[str, Sequence[str], str, int]) -> None:
    """One process of the floor: plain system calls, nothing parsed, nothing flushed to disk."""
    raw, names, out, shard_bytes = task
    shard = memoryview(bytes(shard_bytes))
    for i, name in enumerate(names, 1):
        _read_files(f"{raw}/{name}")
        if i % _SHARD == 0 or i == len(names):
            with open(f"{out}/{name}", "wb", buffering=0) as written:
                written.write(shard[: shard_bytes * ((i - 1) % _SHARD + 1) // _SHARD])


def _run_reading(given: argparse.Namespace) -> Taken:
    folders = [f"{given.raw}/{name}" for name in list_patches(given.raw)]
    start, cpu_s = time.perf_counter(), count_cpu()
    with ThreadPoolExecutor(_N_THREADS) as threads:
        _drain(threads.map(_read_files, folders))
    return Taken(time.perf_counter() - start, count_cpu() - cpu_s, len(folders), {})


def _read_files(folder: str) -> None:
    """Read all files of a patch, and do nothing with them."""
    for file in os.listdir(folder):
        descriptor = os.open(f"{folder}/{file}", os.O_RDONLY)
        os.read(descriptor, 65_536)
        os.close(descriptor)


OURS: Final = "this project"
FLOOR: Final = "floor"
READING: Final = "reading"
RICO: Final = "rico-hdl way"

CONTENDERS: Final = {
    OURS: Contender(_convert_ours, _read_ours),
    RICO: Contender(_convert_rico, _read_rico),
    "TFRecord": Contender(_convert_tfrecord, _read_tfrecord),
    "dask and zarr": Contender(_convert_dask, _read_dask),
    FLOOR: Contender(_run_floor, None),
    READING: Contender(_run_reading, None),
}


def run_contender(name: str, raw: Path, out: Path, *words: str | Path | int, **environment: str) -> Figures:
    """Convert an archive anew in a process of its own; returns its figures.

    Args:
        name: Of the contender.
        raw: The archive.
        out: A folder, which is emptied.
        words: Further options of this module's command line.
        environment: Further variables of its environment.
    """
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # or who flushes waits for what others have written
    words = ("-m", "benchmarks.converting", name, raw, out, *words)
    watched = watch_python(*words, environment=environment)
    taken = Taken(**json.loads(watched.shown))
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    return {
        "patches/s": taken.n_patches / taken.seconds,
        "CPU s/1000": taken.cpu_s / taken.n_patches * 1e3,
        "peak MB": watched.peak_bytes / 1e6,
        "MB a worker": watched.worker_bytes / 1e6,
        "bytes/patch": sum(sizes) / taken.n_patches,
        "files": len(sizes),
        **taken.more,
    }


def check_output(name: str, raw: Path, out: Path, n_patches: int = 4) -> None:
    """Compare some patches of what a contender wrote with what rasterio reads from the archive."""
    read, names = CONTENDERS[name].read, list_patches(raw)
    for patch in names[:: max(1, len(names) // n_patches)] if read else ():
        assert read is not None
        pixels = read(out, patch)
        for band in _BANDS:
            np.testing.assert_array_equal(pixels[band], read_raster(f"{raw}/{patch}/{patch}_{band}.tif"), name)


def main() -> None:
    """Run one contender and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("raw", type=Path, help="archive of v1.0: a folder; for this project a file too, or v2.0")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--s1", type=Path, help="Sentinel-1 too (this project)")
    parser.add_argument("--maps", type=Path, help="reference maps too (this project)")
    parser.add_argument("--codec", default="lz4", help="default: lz4 (this project)")
    parser.add_argument("--reader", default="auto", help="default: auto (this project)")
    parser.add_argument("--bytes", type=int, default=113_500, help="to write of a patch (floor; default: 113500)")
    given = parser.parse_args()
    taken = CONTENDERS[given.name].convert(given)
    print(json.dumps(taken.__dict__))


if __name__ == "__main__":
    main()
