"""The order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.stream.order import ORDERS, Order, draw_turns, hash_positions, order_items, slice_host


def _shards(n_items: int, shard_size: int = 4) -> np.ndarray:
    return np.arange(n_items) // shard_size


def test_the_global_order_is_pinned() -> None:
    """Runs of another year, machine or NumPy must see the same batches."""
    order = order_items("global", 7, 3, _shards(12), 1)
    assert order.tolist() == [4, 1, 7, 6, 2, 9, 11, 10, 8, 3, 0, 5]


def test_the_window_order_is_pinned() -> None:
    assert order_items("window", 7, 3, _shards(12), 2).tolist() == [4, 1, 7, 6, 2, 3, 0, 5, 9, 11, 10, 8]


def test_random_turns_are_pinned() -> None:
    assert draw_turns(7, 3, 12).tolist() == [0, 2, 2, 4, 7, 4, 1, 5, 3, 3, 7, 2]


def test_the_hash_is_splitmix64() -> None:
    """First outputs of the reference implementation for state 1234567 (https://prng.di.unimi.it/splitmix64.c)."""
    from trainer.stream.order import _GOLDEN, _mix

    states = (np.arange(1, 4, dtype=np.uint64) * np.uint64(_GOLDEN)) + np.uint64(1234567)
    assert _mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 10**6),
    n_items=st.integers(0, 300),
    shard_size=st.integers(1, 50),
    window=st.integers(1, 20),
)
def test_every_item_comes_once(order: Order, seed: int, epoch: int, n_items: int, shard_size: int, window: int) -> None:
    found = order_items(order, seed, epoch, _shards(n_items, shard_size), window)
    assert sorted(found.tolist()) == list(range(n_items))
    assert found.tolist() == order_items(order, seed, epoch, _shards(n_items, shard_size), window).tolist()


@given(seed=st.integers(0, 2**64), n_shards=st.integers(1, 30), window=st.integers(1, 8))
def test_a_window_holds_whole_shards(seed: int, n_shards: int, window: int) -> None:
    shards = _shards(n_shards * 4)
    found = shards[order_items("window", seed, 0, shards, window)]
    for first in range(0, n_shards, window):
        part = found[first * 4 : (first + window) * 4]
        assert len(set(part.tolist())) == min(window, n_shards - first)


@given(n_rows=st.integers(0, 500), n_hosts=st.integers(1, 9))
def test_hosts_share_a_batch_without_gap_or_overlap(n_rows: int, n_hosts: int) -> None:
    rows = np.arange(n_rows)
    parts = [rows[slice_host(n_rows, host, n_hosts)] for host in range(n_hosts)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("order", ["global", "window"])
def test_seed_and_epoch_each_change_the_order(order: Order) -> None:
    shards = _shards(400)
    found = {tuple(order_items(order, seed, epoch, shards, 3).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(found) == 9


def test_the_global_order_has_no_trace_of_the_store_order() -> None:
    order = order_items("global", 0, 0, _shards(100_000), 1)
    positions = np.arange(len(order))
    assert abs(np.corrcoef(positions, order)[0, 1]) < 0.01
    neighbours = np.abs(np.diff(order)) == 1
    assert neighbours.sum() < 20  # 2 are expected of a true shuffle


def test_purposes_and_epochs_are_hashed_apart() -> None:
    values = np.concatenate(
        [hash_positions(seed, epoch, purpose, 50) for seed in (0, 1) for epoch in (0, 1, 2) for purpose in (1, 2, 3)]
    )
    assert len(np.unique(values)) == len(values)
