"""Read patches that are in no store in batches, on threads ahead of the model. No framework."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.folders import RawPatch, read_raw
from bigearthnet.archive.records import OnBad, PatchFacts
from bigearthnet.bands import BandGroup
from bigearthnet.errors import PatchError, SourceError

_BATCHES_AHEAD: Final = 2


@dataclass(frozen=True)
class RawBatch:
    """Patches that were read, and those that could not be."""

    patches: tuple[RawPatch, ...]
    pixels: dict[str, NDArray[Any]]
    """For each input of the model, (patch, band, row, col)."""
    bad: tuple[str, ...]
    """The reason for each patch that is left out."""


_Started = tuple[Sequence[RawPatch], dict[str, NDArray[Any]], list[Future[PatchFacts]]]
"""A batch that is being read: its patches, their slots, and what is done when they are filled."""


def read_batches(
    patches: Iterable[RawPatch], groups: Sequence[BandGroup], *, batch_size: int, threads: int, on_bad: OnBad
) -> Iterator[RawBatch]:
    """Read patches on threads, some batches ahead of whoever takes them.

    Args:
        patches: In the order wanted; taken as they are needed.
        groups: What to read of each, in the order of the bands of each.
        batch_size: Patches of a batch, bad ones included.
        threads: How many read.
        on_bad: Raise an error at the first patch that cannot be read, or leave it out.

    Raises:
        SourceError: A file is missing, damaged or not what it must be, or disagrees with another one of its patch.
    """
    left = iter(patches)
    batches = iter(lambda: list(islice(left, batch_size)), [])
    with ThreadPoolExecutor(threads, thread_name_prefix="trainer-read") as executor:
        ahead = deque(_start(executor, some, groups) for some in islice(batches, _BATCHES_AHEAD))
        try:
            while ahead:
                started = ahead.popleft()
                ahead.extend(_start(executor, some, groups) for some in islice(batches, 1))
                yield _collect(started, on_bad)
        finally:
            executor.shutdown(cancel_futures=True)


def _start(executor: ThreadPoolExecutor, patches: Sequence[RawPatch], groups: Sequence[BandGroup]) -> _Started:
    """Start to read a batch, each patch into its slot."""
    pixels = {group.name: np.empty((len(patches), *group.patch_shape), group.dtype) for group in groups}
    futures = [
        # A model does not ask where a patch lies, so files that do not say it are as good as others.
        executor.submit(
            read_raw, patch, groups, {name: array[slot] for name, array in pixels.items()}, allow_no_place=True
        )
        for slot, patch in enumerate(patches)
    ]
    return patches, pixels, futures


def _collect(started: _Started, on_bad: OnBad) -> RawBatch:
    """Wait for the patches of a batch, and leave out those that are bad."""
    patches, pixels, futures = started
    good, bad = [], []
    for slot, (patch, future) in enumerate(zip(patches, futures, strict=True)):
        try:
            future.result()
        except PatchError as error:
            reason = f"{patch.locate(error.file)}: {error.reason}"
            if on_bad == "stop":
                raise SourceError(reason) from error
            bad.append(reason)
        else:
            good.append(slot)
    pixels = {name: array[good] for name, array in pixels.items()} if bad else pixels
    return RawBatch(tuple(patches[slot] for slot in good), pixels, tuple(bad))
