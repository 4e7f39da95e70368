"""Measure what a stream delivers on this machine, stage by stage, so that one can see whether data or model is slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np

from bigearthnet.errors import OptionError
from trainer.source.read import Check
from trainer.source.store import Selection
from trainer.stream.options import StreamOptions
from trainer.stream.order import order_items
from trainer.stream.stream import Stream

_MAX_STAGE_ROWS = 1_024
_BARE_AND_CHECKED: Final[tuple[Check, ...]] = ("never", "always")


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
    order_s = _measure_order(selection, options)
    bare, checked = _measure_decoding(selection, options)
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


def _measure_order(selection: Selection, options: StreamOptions) -> float:
    shards = selection.indices // selection.store.arrays[0].shard_size
    start = time.perf_counter()
    order_items(options.order, options.seed, 0, shards, options.window)
    return time.perf_counter() - start


def _measure_decoding(selection: Selection, options: StreamOptions) -> tuple[float, float]:
    """Return seconds a patch on one thread, without and with checksums: the better of three passes over a few rows."""
    rows = selection.indices[:_MAX_STAGE_ROWS]
    best = [float("inf"), float("inf")]
    for _ in range(3):
        for place, check in enumerate(_BARE_AND_CHECKED):
            one = replace(options, threads=1, check=check, order="sequential", turns="none", batch_size=len(rows))
            best[place] = min(best[place], _time(_reader(selection, one)) / len(rows))
    return best[0], best[1]


def _reader(selection: Selection, options: StreamOptions) -> Callable[[], None]:
    """Prepare one pass over the first rows."""
    store = selection.store
    bands = store.resolve_bands(options.bands)
    readers = {name: store.open_reader(name, chosen, check=options.check) for name, chosen in bands.items()}
    rows = selection.indices[: options.batch_size]
    out = {}
    for name, chosen in bands.items():
        info = store.describe(name)
        out[name] = np.zeros((len(rows), len(chosen), info.n_rows, info.n_columns), info.dtype)

    def read() -> None:
        for name, reader in readers.items():
            reader.read(rows, out[name], None)

    return read


def _time(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
