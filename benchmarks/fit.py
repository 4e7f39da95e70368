"""What does training take beside computing, and how busy is the device? Run: python -m benchmarks.fit.

`--only loops` compares loops over the same stream with a network that has next to nothing to compute: milliseconds of
CPU a step, in one run, each loop in a process of its own, TensorFlow deterministic as `ben-train fit` has it. Only
ratios within one run mean anything on a shared machine.

  stream           the batches alone
  ours             what `ben-train fit` does
  step by step     `train_on_batch`, with a look at the loss after each step
  keras fit        Keras's `fit` over tf.data; and the same with 8 steps an execution
  torch            PyTorch's DataLoader and a loop of its own, on one thread, where torch is installed

`--only calls` measures, with JAX, what a call of a compiled function costs that computes next to nothing, by the number
of arrays that it is given, alone and beside a stream that decodes on six threads: JAX lets go of Python's lock for each
array, and the threads take it meanwhile.

`--only device` trains ResNet50 on ten bands for some epochs as `ben-train fit` does, then step by step, and compares
both with the ceiling: the same steps on one batch that stays on the device; and with the same while batches are decoded
that are not copied. Where there is nvidia-smi, it is asked for
the share of time in which the device was at work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from benchmarks.conditions import clone_patch, read_example
from bigearthnet.archive.lists import read_lists
from bigearthnet.machine import count_cores
from bigearthnet.store.layout import MANIFEST
from trainer import Store, Stream, open_store
from trainer.run.folder import RunFolder
from trainer.run.recipe import Recipe
from trainer.stream.options import StreamOptions

BANDS: Final = "60m"
BATCH: Final = 32
WARMUP: Final = 96
_N_STEPS: Final = 32
LOOPS: Final = {
    # loop: backend of Keras and function
    "stream": ("tensorflow", "_run_stream"),
    "ours, TensorFlow": ("tensorflow", "_run_ours"),
    "step by step, TensorFlow": ("tensorflow", "_run_single_steps"),
    "keras fit, TensorFlow": ("tensorflow", "_run_keras"),
    "keras fit of 8 steps, TensorFlow": ("tensorflow", "_run_keras_of_8"),
    "ours, JAX": ("jax", "_run_ours"),
    "step by step, JAX": ("jax", "_run_single_steps"),
    "torch": ("torch", "_run_torch"),
}


def prepare(folder: Path, n_patches: int) -> Store:
    """Convert copies of the six real patches with codec lz4, if that is not done yet."""
    raw, path = folder / "raw", folder / "lz4"
    if not (path / MANIFEST).exists():
        names = list(islice(read_lists().pairing_of, n_patches))
        with ProcessPoolExecutor(count_cores(), mp_context=get_context("spawn")) as executor:
            list(executor.map(_clone_some, *zip(*((raw, names, i) for i in range(6)), strict=True)))
        command = [sys.executable, "-m", "converter", "convert", str(raw), str(path), "--codec", "lz4"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_store(path)


def _clone_some(raw: Path, names: list[str], number: int) -> None:
    """Write all copies of one of the six patches."""
    patch = read_example("S2")[number]
    for name in names[number::6]:
        clone_patch(patch, raw / name, {patch[0]: name})


def measure_loops(store: Path, n_steps: int, rounds: int) -> None:
    """Print the CPU time of a step of each loop."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for loop, (backend, _) in LOOPS.items():
            if find_spec(backend) is None:
                continue
            environment = {**os.environ, "KERAS_BACKEND": backend if backend != "torch" else "tensorflow"}
            command = [sys.executable, "-m", "benchmarks.fit", "--loop", loop, "--store", str(store)]
            command += ["--steps", str(n_steps)]
            done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
            found.setdefault(loop, []).append(json.loads(done.stdout.splitlines()[-1]))
    base = statistics.median(found["step by step, TensorFlow"])
    print(f"CPU a step of {BATCH} patches, bands {BANDS}, median of {rounds}:")
    for loop, values in found.items():
        value = statistics.median(values)
        print(f"  {loop:<34}{value:>8.3f} ms{value / base:>8.2f} of step by step with TensorFlow")


def _time_cpu(batches: Iterator[Any], n_steps: int) -> float:
    """Return the milliseconds of CPU, of all threads, that each of some steps takes after others to warm up."""
    for _ in islice(batches, WARMUP):
        pass
    start = resource.getrusage(resource.RUSAGE_SELF)
    for _ in islice(batches, n_steps):
        pass
    end = resource.getrusage(resource.RUSAGE_SELF)
    return (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) / n_steps * 1e3


def _run_stream(stream: Stream, n_steps: int) -> float:
    return _time_cpu(stream.forever(), n_steps)


def _run_ours(stream: Stream, n_steps: int) -> float:
    from trainer.model.networks import ModelCard
    from trainer.training.fit import MAX_STEPS
    from trainer.training.steps import make_steps

    steps = make_steps(_make_model(), ModelCard(stream.bands, ()), stream)

    def train() -> Iterator[float]:
        while True:
            yield from steps.train(MAX_STEPS).losses

    with steps, stream:
        return _time_cpu(train(), n_steps)


def _run_single_steps(stream: Stream, n_steps: int) -> float:
    model = _make_model()

    def train() -> Iterator[float]:
        for batch in stream.forever():
            logs = model.train_on_batch({"s2_60m": batch["s2_60m"]}, batch["labels"], return_dict=True)
            assert np.isfinite(logs["loss"])
            yield logs["loss"]

    return _time_cpu(train(), n_steps)


def _run_keras(stream: Stream, n_steps: int, **options: Any) -> float:
    import keras

    from trainer.adapters.keras_data import to_tf_dataset

    model = _make_model(**options)
    dataset = to_tf_dataset(stream, lambda batch: ({"s2_60m": batch["s2_60m"]}, batch["labels"]))
    times: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
        def on_epoch_end(self, *_: object) -> None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            times.append(used.ru_utime + used.ru_stime)

    model.fit(dataset, steps_per_epoch=n_steps, epochs=2, verbose=0, callbacks=[Clock()])
    return (times[1] - times[0]) / n_steps * 1e3


def _run_keras_of_8(stream: Stream, n_steps: int) -> float:
    return _run_keras(stream, n_steps, steps_per_execution=8)


def _run_torch(stream: Stream, n_steps: int) -> float:
    import torch

    class Patches(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return stream.forever()

    torch.set_num_threads(1)  # two of them spin while they wait for one another, which takes ten times as much
    model = torch.nn.Linear(2, 19)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    loss_of = torch.nn.BCEWithLogitsLoss()

    def train() -> Iterator[float]:
        for batch in torch.utils.data.DataLoader(Patches(), batch_size=None):
            optimizer.zero_grad()
            loss = loss_of(model(batch["s2_60m"].float().mul(1e-4).mean((2, 3))), batch["labels"])
            loss.backward()
            optimizer.step()
            yield loss.item()

    return _time_cpu(train(), n_steps)


def _make_model(**options: Any) -> Any:
    """Make a network of 57 weights."""
    import keras

    pixels = keras.Input((2, 20, 20), dtype="uint16", name="s2_60m")
    scaled = keras.layers.Rescaling(1e-4)(pixels)
    means = keras.layers.GlobalAveragePooling2D(data_format="channels_first")(scaled)
    model = keras.Model({"s2_60m": pixels}, keras.layers.Dense(19)(means))
    model.compile(keras.optimizers.AdamW(1e-3), keras.losses.BinaryCrossentropy(from_logits=True), **options)
    model.optimizer.build(model.trainable_variables)
    return model


def measure_calls(store: Store, n_calls: int = 200) -> None:
    """Print the milliseconds of a call, median and 90th percentile."""
    import jax

    function: Any = jax.jit(lambda arrays: [array + 1 for array in arrays], donate_argnums=0)

    def measure(beside: str) -> None:
        for n_arrays in (750, 3):
            arrays, times = function([jax.numpy.zeros(4) for _ in range(n_arrays)]), []
            for _ in range(n_calls):
                start = time.perf_counter()
                arrays = function(arrays)
                times.append((time.perf_counter() - start) * 1e3)
                jax.block_until_ready(arrays)
            print(f"{n_arrays:>4} arrays, {beside:<17}{np.median(times):>8.3f}{np.percentile(times, 90):>8.3f} ms")

    measure("alone")
    over = threading.Event()

    def decode() -> None:
        with Stream(store.select(recommended=False), bands="all", batch_size=128, threads=6) as stream:
            for _ in stream.forever():
                if over.is_set():
                    return

    thread = threading.Thread(target=decode)
    thread.start()
    time.sleep(3)
    measure("beside a stream")
    over.set()
    thread.join()


def measure_device(store: Store, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train as `ben-train fit` does, then step by step, and compare both with steps on a batch that stays there."""
    import keras

    from trainer.training.events import EpochEnded
    from trainer.training.fit import FitOptions, _Training
    from trainer.training.steps import make_steps

    events: list[tuple[float, Any]] = []
    options = FitOptions(tensorboard=False)
    with _sample_device() as samples:
        training = _Training(
            store, RunFolder(folder), recipe, options, lambda event: events.append((time.perf_counter(), event))
        )
        training.run()
    ends = [at for at, event in events if isinstance(event, EpochEnded)]
    found: dict[str, Any] = {
        "backend": keras.config.backend(),
        "epochs": [event.record for _, event in events if isinstance(event, EpochEnded)],
        "utilization of the last epoch": _mean_between(samples, ends[-2], ends[-1]),
    }
    stream = Stream(training.train, training.stream.options)
    steps: Any = make_steps(training.model, training.card, stream, training.mesh)
    with steps, stream:
        resident = steps._take()  # noqa: SLF001 - nobody else replaces parts of it
        rates = {}
        ways: dict[str, dict[str, Any]] = {
            "ceiling": {"_take": lambda: resident},
            "ours": {"_take": steps._take},  # noqa: SLF001
            "decoding alone": {"_put": lambda _: resident},
        }
        for name, replaced in ways.items():
            with patch.multiple(steps, **replaced):
                steps.train(4)  # those that were fetched before too
                rates[name] = _time_rate(lambda: steps.train(_N_STEPS), recipe)
    rates["step by step"] = _measure_single_steps(training, recipe)
    found |= {f"{name}, patches/s": rate for name, rate in rates.items()}
    return found | {f"{name}, of the ceiling": rate / rates["ceiling"] for name, rate in rates.items()}


def _measure_single_steps(training: Any, recipe: Recipe) -> float:
    from trainer.score.predict import take_pixels

    with Stream(training.train, training.stream.options) as stream:

        def train(n_steps: int) -> None:
            for batch in islice(stream.forever(), n_steps):
                pixels = take_pixels(batch, training.card)
                logs = training.model.train_on_batch(pixels, batch["labels"], return_dict=True)
                assert np.isfinite(logs["loss"])

        train(2)
        return _time_rate(lambda: train(_N_STEPS), recipe)


def _time_rate(train: Callable[[], object], recipe: Recipe) -> float:
    """Return the patches a second of some steps, four times over."""
    start = time.perf_counter()
    for _ in range(4):
        train()
    return 4 * _N_STEPS * (recipe.batch_size or 0) / (time.perf_counter() - start)


@contextmanager
def _sample_device() -> Iterator[list[tuple[float, float]]]:
    """Ask nvidia-smi twice a second for the share of time in which the device was at work."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        yield samples
        return

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            samples.append((time.perf_counter(), float(line)))
            if over.is_set():
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield samples
    finally:
        over.set()
        process.terminate()
        process.wait()


def _mean_between(samples: list[tuple[float, float]], start: float, end: float) -> float | None:
    values = [value for at, value in samples if start <= at <= end]
    return statistics.mean(values) / 100 if values else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("loops", "calls", "device"), default="loops")
    parser.add_argument("--patches", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=960, help="of each loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="ResNet50")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the patches are kept; a temporary one if not given")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        options = StreamOptions(bands=BANDS, batch_size=BATCH, drop_last=True, threads=2)
        stream = Stream(open_store(args.store).select("train"), options)
        if LOOPS[args.loop][0] == "tensorflow":
            import tensorflow as tf

            tf.keras.utils.set_random_seed(0)
            tf.config.experimental.enable_op_determinism()
        run: Callable[[Stream, int], float] = globals()[LOOPS[args.loop][1]]
        print(json.dumps(run(stream, args.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        start = time.perf_counter()
        store = prepare(folder, args.patches)
        print(f"{store.n_patches:,} patches, {time.perf_counter() - start:.1f} s", flush=True)
        if args.only == "loops":
            measure_loops(folder / "lz4", args.steps, args.rounds)
            return
        if args.only == "calls":
            measure_calls(store)
            return
        recipe = Recipe(
            network=args.network,
            batch_size=args.batch_size,
            precision=args.precision,
            epochs=args.epochs,
            patience=0,
            warmup_steps=1,
        )
        print(json.dumps(measure_device(store, recipe, Path(temporary) / "run"), indent=2))


if __name__ == "__main__":
    main()
