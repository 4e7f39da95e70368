"""Where the time of a conversion goes: seconds of each piece of its workers' time, which add up.

A run that asks for it has each of its workers put a clock around a few functions. Without, nothing is changed.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple

from bigearthnet.errors import OptionError
from bigearthnet.files import check_new, write_json
from converter.cluster import Cluster
from converter.workers import Outcome, Task

PIECES: Final[Mapping[str, tuple[str, ...]]] = {
    "reading": (
        "converter.task:load_ahead",
        "converter.task:find_patch",
        "converter.batch:find_patch",
        "converter.batch:_read_files",
        "converter.spill:SpilledPatch.read_chunks",
        "bigearthnet.archive.annotation:read_head",
    ),
    "annotation": ("bigearthnet.archive.patch:read_annotation",),
    "headers": ("bigearthnet.archive.raster:parse_plain_header",),
    "inflating": ("bigearthnet.archive.raster:inflate_strips",),
    "rasterio": ("bigearthnet.archive.raster:_read_with_rasterio",),
    "pixels": ("bigearthnet.archive.patch:read_band",),
    "statistics": ("bigearthnet.store.statistics:BandSums.add",),
    "encoding": ("converter.task:encode_chunk", "converter.batch:encode_chunk"),
    "decoding": ("converter.task:decode_chunk",),
    "checksums": ("converter.task:is_sound", "converter.task:hash_chunks", "converter.batch:hash_files"),
    "writing": ("converter.task:write_shard", "converter.task:write_receipt", "converter.batch:spill_patch"),
    "flushing": ("bigearthnet.files:flush",),
}
"""Piece of work to the functions that do it, as `module:name` where they are looked up; what one of another piece that
is called inside takes is not counted twice. Reading includes waiting for the threads that read ahead."""

OTHER: Final = "other"
"""The piece of what none of these functions takes."""

WAITING: Final = "waiting"
"""The piece of a worker that has nothing to do."""


class Clock:
    """Seconds of pieces of work in one thread; each second counts for the piece that was begun last."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._pieces = [OTHER]
        self._since = time.perf_counter()

    def begin(self, piece: str) -> None:
        """Begin a piece, inside another one."""
        self._note()
        self._pieces.append(piece)

    def end(self) -> None:
        """End the piece that was begun last."""
        self._note()
        self._pieces.pop()

    def stop(self) -> dict[str, float]:
        """Return the seconds of each piece; they add up to those since the clock was made."""
        self._note()
        return dict(self.seconds)

    def _note(self) -> None:
        now = time.perf_counter()
        self.seconds[self._pieces[-1]] += now - self._since
        self._since = now


class _Local(threading.local):
    clock: Clock | None = None


_local = _Local()


@contextmanager
def run_clock() -> Iterator[Clock]:
    """Run a clock in this thread; the functions that have one put around them tell it."""
    _local.clock = clock = Clock()
    try:
        yield clock
    finally:
        _local.clock = None


def put_clocks(pieces: Mapping[str, Iterable[str]]) -> None:
    """Put a clock around the functions of some pieces, for as long as this process lives."""
    for piece, places in pieces.items():
        for place in places:
            module, _, name = place.partition(":")
            *outer, name = name.split(".")
            owner: Any = import_module(module)
            for attribute in outer:
                owner = getattr(owner, attribute)
            setattr(owner, name, _put_clock(piece, getattr(owner, name)))


def _put_clock(piece: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def timed(*args: Any, **options: Any) -> Any:
        clock = _local.clock
        if clock is None:
            return call(*args, **options)
        clock.begin(piece)
        try:
            return call(*args, **options)
        finally:
            clock.end()

    @wraps(call)
    def time_items(*args: Any, **options: Any) -> Iterator[Any]:
        take = _put_clock(piece, partial(next, call(*args, **options), _END))
        while (item := take()) is not _END:
            yield item

    return time_items if inspect.isgeneratorfunction(call) else timed


_END: Final = object()


class TimedOutcome(NamedTuple, Generic[Outcome]):
    """What a task returned, and what it took."""

    outcome: Outcome
    worker: str
    """Host and process."""
    thread: int
    cpu_s: float
    """Of all threads of the process."""
    seconds: dict[str, float]
    """Of each piece."""


def run_timed(work: Callable[[Task], Outcome], task: Task) -> TimedOutcome[Outcome]:
    """Run a task with a clock; for workers."""
    _put_own_clocks()
    cpu_s = time.process_time()
    with run_clock() as clock:
        outcome = work(task)
        seconds = clock.stop()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    return TimedOutcome(outcome, worker, threading.get_ident(), time.process_time() - cpu_s, seconds)


@cache
def _put_own_clocks() -> None:
    put_clocks(PIECES)


@dataclass
class Profile:
    """What a conversion takes, as far as it has come: give one to `convert`, and look at it afterwards."""

    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage of the run, which add up to all that it took."""
    n_patches: int = 0
    """Patches that were converted in these seconds."""
    pieces: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each worker, seconds of each piece; they add up to those of the stage `convert` for each of its threads."""
    cpu_s: dict[str, float] = field(default_factory=dict)
    """Seconds of the processor that each worker took for its tasks."""
    _threads: dict[str, set[int]] = field(default_factory=dict)

    def watch(self, cluster: Cluster) -> Cluster:
        """Return a cluster that runs tasks with a clock, and tells this profile."""
        return _WatchedCluster(**vars(cluster), profile=self)

    def note(self, timed: TimedOutcome[Any]) -> None:
        """Take note of a task that has ended."""
        pieces = self.pieces.setdefault(timed.worker, {})
        for piece, seconds in timed.seconds.items():
            pieces[piece] = pieces.get(piece, 0) + seconds
        self.cpu_s[timed.worker] = self.cpu_s.get(timed.worker, 0) + timed.cpu_s
        self._threads.setdefault(timed.worker, set()).add(timed.thread)

    def finish(self, stages: Mapping[str, float], n_patches: int) -> None:
        """Take note that the run has ended, and of its stages."""
        self.stages, self.n_patches = dict(stages), n_patches
        for worker, pieces in self.pieces.items():
            busy = sum(seconds for piece, seconds in pieces.items() if piece != WAITING)
            pieces[WAITING] = stages["convert"] * len(self._threads[worker]) - busy

    def sum_pieces(self) -> dict[str, float]:
        """Return the seconds of each piece, of all workers, in the order in which a patch meets them."""
        total: defaultdict[str, float] = defaultdict(float)
        for pieces in self.pieces.values():
            for piece, seconds in pieces.items():
                total[piece] += seconds
        return {piece: total[piece] for piece in (*PIECES, OTHER, WAITING) if piece in total}

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        total = self.sum_pieces()
        all_s = sum(total.values())
        return {
            "seconds": sum(self.stages.values()),
            "stages": self.stages,
            "n_patches": self.n_patches,
            "pieces": {piece: {"seconds": seconds, "share": seconds / all_s} for piece, seconds in total.items()},
            "workers": {
                worker: {"cpu_seconds": self.cpu_s[worker], "pieces": pieces} for worker, pieces in self.pieces.items()
            },
        }


@dataclass(frozen=True)
class _WatchedCluster(Cluster):
    """A cluster whose tasks are timed."""

    profile: Profile

    def run(
        self, work: Callable[[Task], Outcome], tasks: Iterable[Task], on_outcome: Callable[[Outcome], None]
    ) -> None:
        def note(timed: TimedOutcome[Outcome]) -> None:
            self.profile.note(timed)
            on_outcome(timed.outcome)

        super().run(partial(run_timed, work), tasks, note)


def check_profile(path: Path, folders: Iterable[Path]) -> None:
    """Make sure that a profile can be written, before the hours that it tells of.

    Raises:
        OutputError: It is already there.
        OptionError: It lies in a folder that is to be left as it is, or hold a store and nothing else.
    """
    check_new([path])
    for folder in folders:
        if path.resolve().is_relative_to(folder.resolve()):
            raise OptionError(f"{path}: expected a file outside of {folder} for the profile, give another")


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    write_json(path, profile.to_json())
