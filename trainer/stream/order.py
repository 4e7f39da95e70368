"""The order of patches in an epoch: a pure function of (seed, epoch, position).

Nothing here depends on NumPy's random generators, whose streams may change between versions.

Source of the hash: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014
(https://doi.org/10.1145/2660193.2660195), the finaliser of SplitMix64.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Order = Literal["global", "window", "sequential"]
"""`global` shuffles the whole selection, `window` some whole shards at a time, `sequential` nothing."""

ORDERS: Final[tuple[Order, ...]] = get_args(Order)

N_TURNS: Final = 4
"""Quarter turns of a patch."""

_GOLDEN: Final = 0x9E3779B97F4A7C15
_SHARDS: Final = 1
_ITEMS: Final = 2
_DRAWS: Final = 3
"""Purposes of a hash, so that shards, items and random turns are shuffled independently."""


def order_items(order: Order, seed: int, epoch: int, shards: NDArray[np.integer], window: int) -> NDArray[np.int64]:
    """Order the items of an epoch.

    Args:
        order: How to shuffle.
        seed: Any integer.
        epoch: From 0.
        shards: For each item, the shard that holds it; shape (item,).
        window: With `window`, how many whole shards are shuffled together.

    Returns:
        A permutation of the item positions, shape (item,).
    """
    if order == "sequential":
        return np.arange(len(shards))
    keys = hash_positions(seed, epoch, _ITEMS, len(shards))
    if order == "global":
        return np.argsort(keys)  # SplitMix64 is a bijection: no two keys are equal, so any sort gives this order
    present, shard_of = np.unique(shards, return_inverse=True)
    rank = np.empty(len(present), np.int64)
    rank[np.argsort(hash_positions(seed, epoch, _SHARDS, len(present)))] = np.arange(len(present))
    return np.lexsort((keys, rank[shard_of] // window))


def draw_turns(seed: int, epoch: int, n_items: int) -> NDArray[np.uint8]:
    """Draw one of the eight symmetries of a square for every item; see `trainer.source.turns`.

    Returns:
        Numbers 0-7, shape (item,).
    """
    return (hash_positions(seed, epoch, _DRAWS, n_items) >> np.uint64(61)).astype(np.uint8)


def hash_positions(seed: int, epoch: int, purpose: int, n_positions: int) -> NDArray[np.uint64]:
    """Hash (seed, epoch, purpose, position) for every position; positions never collide.

    Returns:
        uint64 array (position,).
    """
    start = 0
    for value in (seed, epoch, purpose):
        start = int(_mix(np.array([(start + value + 1) * _GOLDEN & (2**64 - 1)], np.uint64))[0])
    positions = np.arange(1, n_positions + 1, dtype=np.uint64)
    positions *= np.uint64(_GOLDEN)
    positions += np.uint64(start)
    return _mix(positions)


def slice_host(n_rows: int, host: int, n_hosts: int) -> slice:
    """Give one host's part of a global batch; the parts of all hosts follow one another and cover it.

    Args:
        n_rows: Rows of the global batch; fewer than usual in the last one of an epoch.
        host: From 0.
        n_hosts: How many share the batch.
    """
    return slice(n_rows * host // n_hosts, n_rows * (host + 1) // n_hosts)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalise SplitMix64 in place: an avalanche that maps no two values to one."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
