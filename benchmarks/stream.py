"""How fast are batches, against other ways to keep the same patches and against the ceiling? Run: make bench.

All read the same patches, in random batches of 128, on two threads, from memory, in one run; rounds interleaved,
medians reported. Only ratios within one run mean anything on a shared machine.

  lz4, none, zstd   this project's stream from stores of those codecs, as in any epoch but the first, in which each
                    chunk's crc32c is compared (`check="first"`, the default; the warm-up of a measurement is an epoch)
  ..., always       the same with the crc32c compared every time, as in the first epoch
  memmap            NumPy memory maps of raw pixels, indexed on two threads: the ceiling, and no file format
  memmap, reused    the same into memory that is used again, which is what raw copying can do at best
  tensorstore       the lz4 store through tensorstore
  TFRecord          raw pixels in tf.train.Example through tf.data with a shuffle buffer of 2,048
  LMDB              one safetensors a patch in LMDB, as rico-hdl writes
  zarr-python       the lz4 store through zarr-python
  raw folders       the archive through rasterio

Then: into `model.fit` with a trivial model; the opening of a store of 590,326 patches; how well `window` mixes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.conditions import clone_real_patches
from bigearthnet.archive.lists import read_lists
from bigearthnet.machine import count_cores
from bigearthnet.names import N_PATCHES
from bigearthnet.store.layout import MANIFEST
from bigearthnet.store.manifest import Entry, build_manifest, encode_manifest
from trainer import Store, Stream, open_store
from trainer.source.read import Check
from trainer.stream.order import order_items

BATCH: Final = 128
THREADS: Final = 2
CODECS: Final = ("lz4", "none", "zstd")
N_FULL: Final = N_PATCHES["v1"]
SHARD_SIZE: Final = 256

Bands = dict[str, tuple[str, ...]]
"""Array to bands, as `Store.resolve_bands` gives them."""
Batches = Iterator[int]
"""Reads one batch a step and tells its size."""


@dataclass
class Data:
    """The same patches in every form."""

    raw: Path
    folder: Path
    stores: dict[str, Store]
    names: list[str]
    """Patch names in store order."""

    def pixels(self, array: str) -> NDArray[np.uint16]:
        """Map the raw pixels of an array."""
        info = self.stores["none"].describe(array)
        shape = (len(self.names), len(info.bands), info.n_rows, info.n_columns)
        return np.memmap(self.folder / f"{array}.raw", info.dtype, "r", shape=shape)

    def axis(self, array: str, bands: tuple[str, ...]) -> list[int]:
        """Return the places of bands in an array."""
        return [self.stores["none"].describe(array).bands.index(band) for band in bands]


def prepare(folder: Path, n_patches: int) -> Data:
    """Write what is not there yet."""
    raw = folder / "raw"
    if not raw.exists():
        clone_real_patches(raw, folder / "raw-s1", n_patches)
    stores = {}
    for codec in CODECS:
        path = folder / codec
        if not (path / MANIFEST).exists():
            command = [sys.executable, "-m", "converter", "convert", str(raw), str(path), "--codec", codec]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stores[codec] = open_store(path)
    rows = duckdb.execute(f"SELECT patch_id FROM '{stores['none'].table}' ORDER BY index").fetchall()
    data = Data(raw, folder, stores, [name for (name,) in rows])
    if not (folder / "written").exists():
        _write_rivals(data)
        (folder / "written").touch()
    return data


def _write_rivals(data: Data) -> None:
    import lmdb
    import safetensors.numpy
    import tensorflow as tf

    store = data.stores["none"]
    for info in store.arrays:
        shape = (len(data.names), len(info.bands), info.n_rows, info.n_columns)
        pixels = np.memmap(data.folder / f"{info.name}.raw", info.dtype, "w+", shape=shape)
        reader = store.open_reader(info.name, info.bands)
        for first in range(0, len(data.names), SHARD_SIZE):
            rows = np.arange(first, min(first + SHARD_SIZE, len(data.names)))
            reader.read(rows, pixels[rows[0] : rows[-1] + 1], None)
        pixels.flush()
    with lmdb.open(str(data.folder / "lmdb"), map_size=2**40) as database, database.begin(write=True) as transaction:
        for row, name in enumerate(data.names):
            patch = {
                band: np.ascontiguousarray(data.pixels(info.name)[row, place])
                for info in store.arrays
                for place, band in enumerate(info.bands)
            }
            transaction.put(name.encode(), safetensors.numpy.save(patch))
    (data.folder / "tfrecord").mkdir()
    for first in range(0, len(data.names), SHARD_SIZE):
        with tf.io.TFRecordWriter(str(data.folder / "tfrecord" / f"{first:06}")) as writer:
            for row in range(first, min(first + SHARD_SIZE, len(data.names))):
                features = {
                    info.name: tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[data.pixels(info.name)[row].tobytes()])
                    )
                    for info in store.arrays
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def _random_rows(data: Data) -> Iterator[NDArray[np.int64]]:
    """Give the rows of random batches, every patch once an epoch."""
    for epoch in count():
        order = order_items("global", 1, epoch, np.zeros(len(data.names), np.int64), 1)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            yield order[first : first + BATCH]


def _on_threads(data: Data, read: Callable[[NDArray[np.int64]], object]) -> Batches:
    """Read batches ahead on threads, whole batches at a time."""
    with ThreadPoolExecutor(THREADS) as executor:
        ahead: deque[Any] = deque()
        try:
            for rows in _random_rows(data):
                ahead.append(executor.submit(read, rows))
                if len(ahead) > 2 * THREADS:
                    ahead.popleft().result()
                    yield BATCH
        finally:
            executor.shutdown(cancel_futures=True)


def stream_ours(data: Data, bands: Bands, codec: str, check: Check = "first") -> Batches:
    chosen = [band for found in bands.values() for band in found]
    selection = data.stores[codec].select(recommended=False)
    with Stream(selection, bands=chosen, batch_size=BATCH, threads=THREADS, check=check) as stream:
        for batch in stream.forever():
            yield len(batch["index"])


def stream_memmap(data: Data, bands: Bands) -> Batches:
    sources = [(data.pixels(name), data.axis(name, found)) for name, found in bands.items()]
    whole = all(len(axis) == pixels.shape[1] for pixels, axis in sources)

    def read(rows: NDArray[np.int64]) -> object:
        return [pixels[rows] if whole else pixels[rows[:, None], axis] for pixels, axis in sources]

    return _on_threads(data, read)


def stream_memmap_reused(data: Data, bands: Bands) -> Batches:
    sources = [(data.pixels(name), data.axis(name, found)) for name, found in bands.items()]
    slots: deque[list[NDArray[np.uint16]]] = deque(
        [np.zeros((BATCH, len(axis), *pixels.shape[2:]), np.uint16) for pixels, axis in sources]
        for _ in range(4 * THREADS)
    )

    def read(rows: NDArray[np.int64]) -> None:
        slot = slots.popleft()
        for (pixels, axis), out in zip(sources, slot, strict=True):
            if len(axis) == pixels.shape[1]:
                np.take(pixels, rows, 0, out, "clip")
            else:
                planes = (rows[:, None] * pixels.shape[1] + axis).reshape(-1)
                np.take(pixels.reshape(-1, *pixels.shape[2:]), planes, 0, out.reshape(-1, *pixels.shape[2:]), "clip")
        slots.append(slot)

    return _on_threads(data, read)


def stream_tensorstore(data: Data, bands: Bands) -> Batches:
    import tensorstore

    limits = {"data_copy_concurrency": {"limit": THREADS}, "file_io_concurrency": {"limit": THREADS}}
    context = tensorstore.Context(limits)
    sources = []
    for name, found in bands.items():
        where = {"driver": "file", "path": f"{data.stores['lz4'].name}/images.zarr/{name}"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": where}, context=context, read=True).result()
        axis = data.axis(name, found)
        sources.append(array if axis == list(range(array.shape[1])) else array[:, axis])
    ahead: deque[list[Any]] = deque()
    for rows in _random_rows(data):
        ahead.append([array[rows].read() for array in sources])
        if len(ahead) > THREADS:
            for pending in ahead.popleft():
                pending.result()
            yield BATCH


def stream_tfrecord(data: Data, bands: Bands) -> Batches:
    import tensorflow as tf

    files = sorted(str(path) for path in (data.folder / "tfrecord").iterdir())
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in bands}
    shapes = {name: data.pixels(name).shape[1:] for name in bands}
    axes = {name: data.axis(name, found) for name, found in bands.items()}

    def parse(examples: Any) -> Any:
        found = tf.io.parse_example(examples, features)
        out = {}
        for name, encoded in found.items():
            pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint16), (-1, *shapes[name]))
            out[name] = pixels if len(axes[name]) == shapes[name][0] else tf.gather(pixels, axes[name], axis=1)
        return out

    options = tf.data.Options()
    options.threading.private_threadpool_size = THREADS
    dataset = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files))
        .interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=THREADS)
        .shuffle(2_048)
        .repeat()
        .batch(BATCH)
        .map(parse, num_parallel_calls=THREADS)
        .prefetch(2)
        .with_options(options)
    )
    for _ in dataset:
        yield BATCH


def stream_lmdb(data: Data, bands: Bands) -> Batches:
    import lmdb
    import safetensors.numpy

    keys = [name.encode() for name in data.names]
    with lmdb.open(str(data.folder / "lmdb"), readonly=True, lock=False, readahead=False) as database:

        def read(rows: NDArray[np.int64]) -> object:
            out = {
                name: np.empty((len(rows), len(found), *data.pixels(name).shape[2:]), np.uint16)
                for name, found in bands.items()
            }
            with database.begin(buffers=True) as transaction:
                for slot, row in enumerate(rows.tolist()):
                    patch = safetensors.numpy.load(bytes(transaction.get(keys[row], b"")))
                    for name, found in bands.items():
                        for place, band in enumerate(found):
                            out[name][slot, place] = patch[band]
            return out

        yield from _on_threads(data, read)


def stream_zarr(data: Data, bands: Bands) -> Batches:
    import zarr

    group = zarr.open_group(f"{data.stores['lz4'].name}/images.zarr", mode="r")
    with zarr.config.set({"threading.max_workers": THREADS}):
        for rows in _random_rows(data):
            for name, found in bands.items():
                array = group[name]
                assert isinstance(array, zarr.Array)
                array.oindex[rows, np.array(data.axis(name, found))]
            yield BATCH


def stream_folders(data: Data, bands: Bands) -> Batches:
    import rasterio

    def read(rows: NDArray[np.int64]) -> object:
        out = []
        for found in bands.values():
            patches = []
            for row in rows.tolist():
                name = data.names[row]
                planes = []
                for band in found:
                    with rasterio.open(data.raw / name / f"{name}_{band}.tif") as file:
                        planes.append(file.read(1))
                patches.append(np.stack(planes))
            out.append(np.stack(patches))
        return out

    return _on_threads(data, read)


@dataclass
class Rival:
    """Something to measure."""

    name: str
    start: Callable[[Data, Bands], Batches]
    rates: dict[str, list[float]] = field(default_factory=dict)

    def rate(self, bands: str) -> float:
        """Return the median patches/s."""
        return statistics.median(self.rates[bands])


def measure_rivals(data: Data, seconds: float, rounds: int) -> dict[str, Rival]:
    """Measure all of them, round by round."""
    rivals = [
        *(Rival(codec, partial(stream_ours, codec=codec)) for codec in CODECS),
        Rival("lz4, always", partial(stream_ours, codec="lz4", check="always")),
        Rival("none, always", partial(stream_ours, codec="none", check="always")),
        Rival("memmap", stream_memmap),
        Rival("memmap, reused", stream_memmap_reused),
        Rival("tensorstore", stream_tensorstore),
        Rival("TFRecord", stream_tfrecord),
        Rival("LMDB", stream_lmdb),
        Rival("zarr-python", stream_zarr),
        Rival("raw folders", stream_folders),
    ]
    bar = tqdm(total=2 * rounds * len(rivals), desc="Rivals", disable=None)
    for choice in ("all", "rgb"):
        bands = data.stores["none"].resolve_bands(choice)
        for _ in range(rounds):
            for rival in rivals:
                batches = rival.start(data, bands)
                with ExitStack() as stack:
                    stack.callback(batches.close)  # type: ignore[attr-defined]
                    slow = rival.name in ("zarr-python", "raw folders")
                    warm_up = 0 if slow else len(data.names)
                    rival.rates.setdefault(choice, []).append(_clock(batches, seconds, warm_up + BATCH))
                bar.update()
    bar.close()
    return {rival.name: rival for rival in rivals}


def _clock(batches: Batches, seconds: float, warm_up: int) -> float:
    """Return patches/s; slow ones are given one batch at least."""
    limit = time.perf_counter() + 10 * seconds
    while warm_up > 0 and time.perf_counter() < limit:
        warm_up -= next(batches)
    n_patches, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not n_patches:
        n_patches += next(batches)
    return n_patches / elapsed


def measure_fit(data: Data, rounds: int) -> dict[str, dict[str, float]]:
    """Return, for each codec, patches/s bare and into `fit` with a model that does next to nothing.

    Keras returns to Python after each step, or after so many as `steps_per_execution` says; a step of the trivial model
    is nothing but that.
    """
    import keras

    from trainer.adapters.keras_data import to_tf_dataset

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # at each batch, Keras would wait for its loss
            del epoch, logs
            times.append(time.perf_counter())

    times: list[float] = []
    found = {}
    for codec in ("lz4", "none"):
        selection = data.stores[codec].select(recommended=False)
        rates: dict[str, list[float]] = {"bare": []}
        with Stream(selection, batch_size=BATCH, threads=THREADS, drop_last=True) as stream:
            models = {
                f"fit{', 8 steps an execution' if steps > 1 else ''}": _make_trivial(data, stream, steps)
                for steps in (1, 8)
            }
            for _ in range(rounds):
                rates["bare"].append(_clock(_count_patches(stream), 2.0, 2 * len(selection)))
                for name, model in models.items():
                    times.clear()
                    batches = to_tf_dataset(stream)
                    model.fit(batches, steps_per_epoch=len(stream), epochs=8, verbose=0, callbacks=[Clock()])
                    n_patches = (len(times) - 2) * len(stream) * BATCH  # the first two epochs warm up
                    rates.setdefault(name, []).append(n_patches / (times[-1] - times[1]))
        found[codec] = {name: statistics.median(each) for name, each in rates.items()}
    return found


def _make_trivial(data: Data, stream: Stream, steps_per_execution: int) -> Any:
    import keras

    shapes = {name: data.pixels(name).shape[1:] for name in stream.bands}
    inputs = {name: keras.Input(shape, dtype="uint16", name=name) for name, shape in shapes.items()}
    corners = [_Corner()(pixels) for pixels in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(19)(keras.layers.Concatenate()(corners)))
    model.compile("sgd", "mse", jit_compile=False, steps_per_execution=steps_per_execution)
    return model


def _count_patches(stream: Stream) -> Batches:
    for batch in stream.forever():
        yield len(batch["index"])


def _Corner() -> Any:  # noqa: N802 - makes a layer
    import keras

    def take(pixels: Any) -> Any:
        return keras.ops.cast(pixels[:, :, 0, 0], "float32")

    return keras.layers.Lambda(take, output_shape=lambda shape: shape[:2])


def measure_opening(data: Data) -> dict[str, float]:
    """Return seconds to open a store of all 590,326 patches, to select and to get the first batch."""
    store = data.stores["lz4"]
    n_shards = -(-N_FULL // SHARD_SIZE)
    with tempfile.TemporaryDirectory(dir=data.folder) as made:
        folder = Path(made)
        shutil.copytree(store.name, folder / "store", ignore=shutil.ignore_patterns("c", "patches.parquet"))
        path = folder / "store/images.zarr/zarr.json"
        root = json.loads(path.read_text())
        for info in store.arrays:
            root["consolidated_metadata"]["metadata"][info.name]["shape"][0] = N_FULL
            for shard in range(n_shards):
                # Every shard is a link to one of the few that are there and full.
                target = folder / "store" / info.shard_key(shard)
                target.parent.mkdir(parents=True)
                os.link(f"{store.name}/{info.shard_key(shard % (len(data.names) // SHARD_SIZE))}", target)
        path.write_text(json.dumps(root))
        duckdb.execute(
            f"COPY (SELECT source.* REPLACE (i::INTEGER AS index) FROM range({N_FULL}) AS numbers(i) "
            f"JOIN '{store.table}' AS source ON source.index = i % {len(data.names)} ORDER BY i) "
            f"TO '{folder}/store/patches.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
        keys = [info.shard_key(shard) for shard in range(n_shards) for info in store.arrays]
        entries = {key: Entry((folder / "store" / key).stat().st_size, "0" * 16) for key in keys}
        manifest = build_manifest(folder / "store", store.fingerprint, store.attributes["counts"], entries)
        (folder / "store" / MANIFEST).write_bytes(encode_manifest(manifest))
        code = (
            "import json, sys, time\n"
            "start = time.perf_counter()\n"
            "import trainer\n"
            "imported = time.perf_counter()\n"
            f"store = trainer.open_store({str(folder / 'store')!r})\n"
            "opened = time.perf_counter()\n"
            "selection = store.select(recommended=False)\n"
            "selected = time.perf_counter()\n"
            f"assert len(selection) == {N_FULL}\n"
            f"with trainer.Stream(selection, threads={THREADS}) as stream:\n"
            "    next(iter(stream))\n"
            "    end = time.perf_counter()\n"
            "print(json.dumps({'import': imported - start, 'open': opened - imported, 'select': selected - opened,\n"
            "                  'first batch': end - selected}))"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return {name: float(seconds) for name, seconds in json.loads(found.stdout).items()}


@dataclass(frozen=True)
class Mixture:
    """How well an order mixes."""

    scenes: float
    """Different scenes in a batch, on average."""
    error: float
    """Root mean square error of the class frequencies of a batch."""


def measure_mixing(metadata: Path | None) -> tuple[str, dict[str, Mixture]]:
    """Measure the batches of one epoch of the official training split in the order of a store.

    Args:
        metadata: The official `metadata.parquet` of v2.0, which has labels; the lists of v1.0, with countries and
            seasons for classes, if None.

    Returns:
        What the classes are, and for each order its mixture.
    """
    if metadata is not None:
        rows = duckdb.execute(f"SELECT patch_id, labels FROM '{metadata}' WHERE split = 'train'").fetchall()
        what = "19 classes, v2.0"
    else:
        lists = read_lists()
        rows = [
            (name, [f"{lists.pairing_of[name].country} {lists.pairing_of[name].season}"])
            for name, split in lists.split_of.items()
            if split == "train"
        ]
        what = "country and season, v1.0"
    in_scene_order = sorted(rows)
    rows = sorted(rows, key=lambda row: hashlib.blake2b(row[0].encode(), digest_size=8).digest())
    found = {}
    for name, used, order, window in (
        ("global", rows, "global", 1),
        ("window 16", rows, "window", 16),
        ("window 4", rows, "window", 4),
        ("window 1", rows, "window", 1),
        ("sequential", rows, "sequential", 1),
        ("window 16, had the store the order of scenes", in_scene_order, "window", 16),
    ):
        shards = np.arange(len(used)) // SHARD_SIZE
        found[name] = _mix(used, order_items(order, 0, 0, shards, window))  # type: ignore[arg-type]
    return what, found


def _mix(rows: list[tuple[str, list[str]]], order: NDArray[np.int64]) -> Mixture:
    scenes = np.unique([name.rsplit("_", 2)[0] for name, _ in rows], return_inverse=True)[1]
    classes = {label: place for place, label in enumerate(sorted({label for _, found in rows for label in found}))}
    hot = np.zeros((len(rows), len(classes)), np.float32)
    for row, (_, labels) in enumerate(rows):
        hot[row, [classes[label] for label in labels]] = 1
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    error = hot[batches].mean(1) - hot.mean(0)
    return Mixture(
        float(np.mean([len(np.unique(scenes[batch])) for batch in batches])), float(np.sqrt((error**2).mean()))
    )


def report_rivals(rivals: dict[str, Rival]) -> None:
    """Print every rate, and which goals are met."""
    print(f"{'':<18}{'all bands':>22}{'RGB':>24}")
    print(f"{'':<18}{'patches/s':>12}{'/memmap':>10}{'patches/s':>14}{'/memmap':>10}")
    for title, rival in rivals.items():
        print(
            f"{title:<18}{rival.rate('all'):>12,.0f}{rival.rate('all') / rivals['memmap'].rate('all'):>10.2f}"
            f"{rival.rate('rgb'):>14,.0f}{rival.rate('rgb') / rivals['memmap'].rate('rgb'):>10.2f}"
        )
    print()
    for bands in ("all", "rgb"):
        for codec in ("lz4", "none"):
            for other in ("tensorstore", "TFRecord", "zarr-python", "raw folders"):
                least = 1.5 if (codec, other) == ("lz4", "tensorstore") else 1.0
                report_goal(f"{bands}: {codec} / {other}", rivals[codec].rate(bands) / rivals[other].rate(bands), least)
        report_goal(f"{bands}: none / memmap", rivals["none"].rate(bands) / rivals["memmap"].rate(bands), 0.6)
        report_goal(f"{bands}: none / LMDB", rivals["none"].rate(bands) / rivals["LMDB"].rate(bands), 1.0)


def report_goal(what: str, found: float, least: float) -> None:
    """Print a ratio and whether it reaches its goal."""
    print(f"{'met   ' if found >= least else 'MISSED'}  {what:<36}{found:>9.2f}  (goal {least})")


def run(data: Data, parts: Sequence[str], seconds: float, rounds: int) -> None:
    """Measure and print what needs the patches."""
    print(f"{len(data.names):,} patches, batches of {BATCH}, {THREADS} threads, {count_cores()} cores\n")
    if "rivals" in parts:
        report_rivals(measure_rivals(data, seconds, rounds))
    if "fit" in parts:
        print("\nInto model.fit, trivial model, all bands (patches/s)")
        for codec, rates in measure_fit(data, rounds).items():
            for name, rate in rates.items():
                print(f"  {codec}, {name}: {rate:,.0f}")
                if name != "bare":
                    report_goal(f"{name} / bare", rate / rates["bare"], 0.7)
    if "opening" in parts:
        opening = measure_opening(data)
        total = sum(opening.values())
        print(f"\nA store of {N_FULL:,} patches: ", ", ".join(f"{name} {s:.2f} s" for name, s in opening.items()))
        print(f"{'met   ' if total < 5 else 'MISSED'}  to the first batch {total:.2f} s  (goal below 5)")


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make everything in DIR, 5 GB, leave it and use it again"
    )
    parser.add_argument("--patches", type=int, default=4_096, help="copies of the six real patches")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--metadata", type=Path, help="metadata.parquet of v2.0, for labels in the measure of mixing")
    parser.add_argument("--only", choices=["rivals", "fit", "opening", "mixing"], action="append")
    options = parser.parse_args()
    parts = options.only or ["rivals", "fit", "opening", "mixing"]
    with tempfile.TemporaryDirectory(prefix="bench-stream-") as temporary:
        if set(parts) - {"mixing"}:
            run(prepare(options.keep or Path(temporary), options.patches), parts, options.seconds, options.rounds)
    if "mixing" in parts:
        what, mixing = measure_mixing(options.metadata)
        print(f"\nMixing in batches of {BATCH}, official training split ({what})")
        for name, mixture in mixing.items():
            print(
                f"  {name:<46}{mixture.scenes:>7.1f} scenes a batch{mixture.error:>9.4f} RMS error of class frequencies"
            )


if __name__ == "__main__":
    main()
