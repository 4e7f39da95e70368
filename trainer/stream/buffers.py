"""Batch memory that is used again once nobody looks at it.

A fresh batch costs one page fault for every 4 KiB, which on raw pixels is as much as reading them. Blocks start on a
page, so arrays in them are aligned to 64 bytes and TensorFlow takes them without a copy. Such a tensor aliases the
block, so a block comes back only when the last array (or tensor) on it has been dropped.
"""

from __future__ import annotations

import mmap
import sys
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT: Final = 64
"""Bytes; what Eigen, and so TensorFlow, asks of memory that it shares."""

BatchLayout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]
"""Name of each array, its shape and its type."""


class BatchMemory:
    """Hands out the arrays of a batch, all on one block, and takes the block back when they are gone.

    Args:
        n_bytes: Size of a block.
        n_spare: Blocks kept for later; more than that are returned to the system.
    """

    def __init__(self, n_bytes: int, n_spare: int) -> None:
        self._n_bytes = max(n_bytes, 1)
        self._spare: deque[mmap.mmap] = deque(maxlen=n_spare)

    def take(self, layout: BatchLayout) -> dict[str, NDArray[Any]]:
        """Make uninitialised arrays that together fit a block (see `measure_layout`)."""
        try:
            block = self._spare.popleft()
        except IndexError:
            block = mmap.mmap(-1, self._n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if sys.platform == "linux":  # a page in place of 512: RGB with codec none came a tenth faster
                with suppress(OSError):  # a system without them
                    block.madvise(mmap.MADV_HUGEPAGE)
        # Every view below keeps `owner` alive, since NumPy stops collapsing bases at an array on foreign memory.
        owner = np.frombuffer(block, np.uint8)
        weakref.finalize(owner, self._spare.append, block).atexit = False
        arrays, start = {}, 0
        for name, (shape, dtype) in layout.items():
            n_bytes = prod(shape) * np.dtype(dtype).itemsize
            arrays[name] = owner[start : start + n_bytes].view(dtype).reshape(shape)
            start += _round_up(n_bytes)
        return arrays


def measure_layout(layout: BatchLayout) -> int:
    """Compute the bytes that arrays take on a block."""
    return sum(_round_up(prod(shape) * np.dtype(dtype).itemsize) for shape, dtype in layout.values())


def align(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array whose memory may be shared with TensorFlow: the same one, or a copy."""
    if values.ctypes.data % ALIGNMENT == 0:
        return values
    memory = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def _round_up(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
