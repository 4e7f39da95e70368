"""Measure what a stream delivers on this machine, stage by stage, so that one can see whether data or model is slow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from timeit import repeat, timeit

import numpy as np

from bigearthnet.errors import OptionError
from trainer.source.read import Check
from trainer.source.store import Selection
from trainer.stream.options import StreamOptions
from trainer.stream.order import order_items
from trainer.stream.stream import Stream

_MAX_STAGE_ROWS = 1_024


@dataclass(frozen=True)
class StreamSpeed:
    """What was measured."""

    n_patches: int
    """Patches streamed while the clock ran."""
    seconds: float
    patch_bytes: int
    """Decoded bytes of the chosen bands of a patch."""
    first_batch_s: float
    """From the making of the stream to its first batch."""
    order_s: float
    """To order one epoch."""
    decode_us: float
    """Microseconds for a patch on one thread: map, decode, turn."""
    check_us: float
    """The same for comparing its checksums, which by default happens in the first epoch only."""
    hand_over_us: float
    """Microseconds of the caller's time for a patch: everything that does not run on the threads."""

    @property
    def patches_per_s(self) -> float:
        """Patches a second."""
        return self.n_patches / self.seconds

    @property
    def bytes_per_s(self) -> float:
        """Decoded bytes a second."""
        return self.patches_per_s * self.patch_bytes


def measure_stream(selection: Selection, options: StreamOptions, seconds: float = 5.0) -> StreamSpeed:
    """Stream for a while and take the time.

    Args:
        selection: What to stream.
        options: How to stream.
        seconds: How long the clock runs, after an epoch (or as long) to warm up.
    """
    if seconds <= 0:
        raise OptionError(f"seconds must be positive, not {seconds}")
    start = time.perf_counter()
    with Stream(selection, options) as stream:
        next(stream.forever())
        first_batch_s = time.perf_counter() - start
    bare = _measure_decoding(selection, stream.bands, "never")
    checked = _measure_decoding(selection, stream.bands, "always")
    shards = selection.indices // selection.store.arrays[0].shard_size
    order_s = timeit(lambda: order_items(options.order, options.seed, 0, shards, options.window), number=1)
    with Stream(selection, options) as stream:
        start = time.perf_counter()
        for _ in islice(stream.forever(), len(stream)):
            if time.perf_counter() - start > seconds:
                break
        n_patches, start, busy = 0, time.perf_counter(), time.thread_time()
        for batch in stream.forever():
            n_patches += len(batch["index"])
            elapsed = time.perf_counter() - start
            if elapsed > seconds:
                break
        busy = time.thread_time() - busy
        return StreamSpeed(
            n_patches=n_patches,
            seconds=elapsed,
            patch_bytes=sum(
                selection.store.describe(name).plane_bytes * len(bands) for name, bands in stream.bands.items()
            ),
            first_batch_s=first_batch_s,
            order_s=order_s,
            decode_us=bare * 1e6,
            check_us=max(0.0, checked - bare) * 1e6,
            hand_over_us=busy / n_patches * 1e6,
        )


def _measure_decoding(selection: Selection, bands: Mapping[str, Sequence[str]], check: Check) -> float:
    """Return the seconds for a patch on one thread: the best of three passes over a few rows."""
    rows = selection.rows[:_MAX_STAGE_ROWS]
    work = []
    for name, chosen in bands.items():
        info = selection.store.describe(name)
        out = np.zeros((len(rows), len(chosen), info.n_rows, info.n_columns), info.dtype)
        work.append((selection.store.open_reader(name, chosen, check=check), out))

    def read() -> None:
        for reader, out in work:
            reader.read(rows, out, None)

    return min(repeat(read, number=1, repeat=3)) / len(rows)
