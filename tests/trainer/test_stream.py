"""Batches: every patch once an epoch, the same again, resumed, shared by hosts, and nothing left behind."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.conftest import Pixels
from trainer import Batch, OptionError, ReadError, Selection, StateError, Store, Stream, StreamOptions, open_store
from trainer.stream.options import Turns
from trainer.stream.order import ORDERS, Order


def indices(batches: Iterable[Batch]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


def digest(batches: Iterable[Batch]) -> list[tuple[int, ...]]:
    """What makes two batches equal, without keeping them."""
    return [tuple(hash(array.tobytes()) for _, array in sorted(batch.items())) for batch in batches]


@pytest.mark.parametrize("bands", ["all", "rgb", ("B8A", "B04", "B02", "B12", "B09")])
def test_a_batch_holds_the_pixels_and_labels_of_its_patches(any_store: Store, pixels: Pixels, bands: Any) -> None:
    selection = any_store.select(recommended=False)
    with Stream(selection, bands=bands, batch_size=32, threads=2) as stream:
        for batch in stream:
            for name, chosen in stream.bands.items():
                axis = [any_store.describe(name).bands.index(band) for band in chosen]
                np.testing.assert_array_equal(batch[name], pixels[name][batch["index"]][:, axis])
                assert batch[name].dtype == np.uint16
            places = np.searchsorted(selection.indices, batch["index"])
            np.testing.assert_array_equal(batch["labels"], selection.labels[places])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch_size", [1, 32, 1000])
def test_every_patch_comes_once_an_epoch(everything: Selection, order: str, batch_size: int) -> None:
    with Stream(everything, bands="s2_60m", order=order, window=2, batch_size=batch_size) as stream:
        for _ in range(3):
            found = list(stream)
            assert len(found) == len(stream)
            assert sorted(indices(found)) == everything.indices.tolist()


def test_sequential_is_the_order_of_the_store(everything: Selection) -> None:
    with Stream(everything, bands="s2_60m", order="sequential") as stream:
        assert indices(stream) == everything.indices.tolist()


def test_a_last_batch_that_is_not_full_can_be_left_out(everything: Selection) -> None:
    with Stream(everything, bands="s2_60m", batch_size=32, drop_last=True) as stream:
        assert [len(batch["index"]) for batch in stream] == [32] * 3
    with Stream(everything, bands="s2_60m", batch_size=32) as stream:
        assert [len(batch["index"]) for batch in stream] == [32] * 3 + [24]


def test_two_runs_are_equal_whatever_the_threads(everything: Selection) -> None:
    runs = []
    for threads in (1, 2, 5):
        with Stream(everything, seed=3, batch_size=16, threads=threads, prefetch_bytes=threads * 10**6) as stream:
            runs.append(digest(batch for _ in range(2) for batch in stream))
    assert runs[0] == runs[1] == runs[2]
    assert len(set(runs[0])) == len(runs[0])


@pytest.mark.parametrize("order", ["global", "window"])
@pytest.mark.parametrize("turns", ["none", "each-quarter", "one-of-eight"])
def test_a_resumed_run_is_equal(train: Selection, order: Order, turns: Turns) -> None:
    options = StreamOptions(bands="s2_60m", batch_size=10, order=order, turns=turns, window=2)
    with Stream(train, options) as stream:
        whole = digest(batch for _ in range(3) for batch in stream)
    for n_taken in (0, 1, len(whole) // 3, len(whole) // 3 + 2, len(whole) - 1):
        with Stream(train, options) as stream:
            taken = list(islice(stream.forever(), n_taken))
            state = json.loads(json.dumps(stream.state()))
        assert digest(taken) == whole[:n_taken]
        with Stream.from_state(train, state, bands="s2_60m", threads=1) as resumed:
            rest = digest(islice(resumed.forever(), len(whole) - n_taken))
        assert rest == whole[n_taken:]


@settings(max_examples=20)
@given(n_taken=st.integers(0, 40), batch_size=st.sampled_from([7, 16, 120]))
def test_a_position_can_be_named(stores: dict[str, Path], n_taken: int, batch_size: int) -> None:
    everything = open_store(stores["none"]).select(recommended=False)
    with Stream(everything, bands="s2_60m", batch_size=batch_size) as stream:
        for _ in islice(stream.forever(), n_taken):
            pass
        epoch, step = divmod(n_taken, len(stream))
        assert stream.state() == stream.state(epoch, step)
        assert (stream.epoch, stream.step) == (epoch, step)


def test_an_interrupted_loop_goes_on_where_it_stopped(everything: Selection) -> None:
    with Stream(everything, bands="s2_60m", batch_size=50) as stream:
        first = next(iter(stream))
        assert sorted(indices([first, *stream])) == everything.indices.tolist()
        assert (stream.epoch, stream.step) == (1, 0)


@pytest.mark.parametrize("order", ["global", "window"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_run_does_not_depend_on_the_number_of_hosts(train: Selection, order: str, drop_last: bool) -> None:
    options: dict[str, Any] = {
        "batch_size": 16,
        "order": order,
        "drop_last": drop_last,
        "turns": "one-of-eight",
        "window": 2,
    }
    with Stream(train, **options) as stream:
        whole = [{name: array.copy() for name, array in batch.items()} for _ in range(2) for batch in stream]
    for n_hosts in (2, 4):
        hosts = [Stream(train, n_hosts=n_hosts, host=host, **options) for host in range(n_hosts)]
        for number, batch in enumerate(whole):
            parts = [host.batch(*divmod(number, len(host))) for host in hosts]
            for name, array in batch.items():
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
        for host in hosts:
            host.close()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    n_before=st.sampled_from([1, 2, 4, 8]),
    n_after=st.sampled_from([1, 2, 4, 8]),
    n_trained=st.integers(0, 13),
    ahead=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_hosts_that_die_and_others_that_go_on_see_the_batches_of_one_undisturbed_host(
    stores: dict[str, Path], seed: int, n_before: int, n_after: int, n_trained: int, ahead: list[int]
) -> None:
    """Though each had fetched some batches more than were trained."""
    train = open_store(stores["none"]).select("train")
    options = StreamOptions(bands="s2_60m", batch_size=8, seed=seed, drop_last=True, threads=1)

    def share(n_hosts: int, host: int) -> StreamOptions:
        return replace(options, n_hosts=n_hosts, host=host)

    def join(parts: list[list[Batch]]) -> list[tuple[int, ...]]:
        whole = [
            {name: np.concatenate([part[name] for part in step]) for name in step[0]}
            for step in zip(*parts, strict=True)
        ]
        return digest(whole)

    with Stream(train, options) as stream:
        expected = digest(islice(stream.forever(), 14))
    parts, states = [], []
    for host in range(n_before):
        with Stream(train, share(n_before, host)) as stream:
            parts.append(list(islice(stream.forever(), n_trained + ahead[host]))[:n_trained])
            states.append(stream.state(*divmod(n_trained, len(stream))))
    assert join(parts) == expected[:n_trained]
    assert states == states[:1] * n_before
    parts = []
    for host in range(n_after):
        with Stream.from_state(train, states[0], share(n_after, host)) as stream:
            parts.append(list(islice(stream.forever(), 14 - n_trained)))
    assert join(parts) == expected[n_trained:]


@pytest.mark.parametrize("bands", ["all", ("B04", "B11")])
def test_turns_give_every_patch_once_per_quarter_turn(any_store: Store, pixels: Pixels, bands: Any) -> None:
    train = any_store.select("train")
    seen = []
    with Stream(train, bands=bands, batch_size=32, turns="each-quarter", threads=2) as stream:
        for batch in stream:
            for slot, (index, turn) in enumerate(zip(batch["index"], batch["turn"], strict=True)):
                seen.append((int(index), int(turn)))
                for name, chosen in stream.bands.items():
                    places = [any_store.describe(name).bands.index(band) for band in chosen]
                    source = pixels[name][index][places]
                    np.testing.assert_array_equal(batch[name][slot], np.rot90(source, turn, axes=(1, 2)))
    assert sorted(seen) == [(index, turn) for index in train.indices.tolist() for turn in range(4)]


def test_random_symmetries_are_all_eight_and_change_with_the_epoch(train: Selection, pixels: Pixels) -> None:
    turns = []
    with Stream(train, turns="one-of-eight", batch_size=len(train)) as stream:
        for _ in range(2):
            batch = next(stream.forever())
            turns.append(batch["turn"][np.argsort(batch["index"])].tolist())
            for slot, (index, turn) in enumerate(zip(batch["index"], batch["turn"], strict=True)):
                for name in stream.bands:
                    source = pixels[name][index]
                    flipped = source[..., ::-1] if turn >= 4 else source
                    np.testing.assert_array_equal(batch[name][slot], np.rot90(flipped, turn % 4, axes=(1, 2)))
    assert set(turns[0]) == set(range(8))
    assert turns[0] != turns[1]


def test_only_training_patches_are_turned(store: Store) -> None:
    for split in ("validation", "test", None):
        with pytest.raises(OptionError, match="only the split 'train' is turned"):
            Stream(store.select(split), turns="each-quarter")


def test_weights_follow_their_patches(train: Selection) -> None:
    weights = np.arange(len(train)) / 2
    with Stream(train, bands="s2_60m", batch_size=16, weights=weights) as stream:
        for batch in stream:
            places = np.searchsorted(train.indices, batch["index"])
            np.testing.assert_array_equal(batch["weight"], weights[places].astype(np.float32))
    with pytest.raises(OptionError, match="one weight for each"):
        Stream(train, weights=weights[1:])


def test_memory_is_used_again_only_when_it_has_been_dropped(everything: Selection, pixels: Pixels) -> None:
    with Stream(everything, batch_size=15, prefetch_bytes=0) as stream:
        kept = list(stream)
        views = [batch["s2_10m"][0] for batch in stream]
        for batch in kept:
            np.testing.assert_array_equal(batch["s2_10m"], pixels["s2_10m"][batch["index"]])
        assert len({view.__array_interface__["data"][0] for view in views}) == len(views)
        del kept, batch, views
        addresses = {batch["s2_10m"].__array_interface__["data"][0] for _ in range(5) for batch in stream}
        assert len(addresses) < 10
        assert all(address % 64 == 0 for address in addresses)


def test_readahead_is_bounded_in_bytes(everything: Selection) -> None:
    with Stream(everything, batch_size=10, prefetch_bytes=5_000_000) as stream:
        next(iter(stream))
        assert stream.batch_bytes == 10 * 160_000
        assert 0 < len(stream._ahead) * stream.batch_bytes <= 5_000_000


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("trainer-")]


def _mappings(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(folder))


def _descriptors(folder: Path) -> int:
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += str(link.readlink()).startswith(str(folder))
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return found


def test_nothing_is_left_open(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    store = open_store(folder)
    stream = Stream(store.select(recommended=False), batch_size=20, threads=3)
    batch = next(iter(stream))
    assert _threads()
    assert _mappings(folder)
    assert _descriptors(folder) == 0
    del stream, store
    gc.collect()
    end = time.monotonic() + 10
    while (_threads() or _mappings(folder)) and time.monotonic() < end:
        time.sleep(0.01)
    assert _threads() == []
    assert _mappings(folder) == 0
    assert batch["s2_10m"].any()


def test_a_dropped_iterator_does_not_keep_the_stream(everything: Selection) -> None:
    iterator = iter(Stream(everything, batch_size=20))
    next(iterator)
    del iterator
    end = time.monotonic() + 10
    while _threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert _threads() == []


def test_a_fault_reaches_the_caller_and_leaves_the_position(copy_store: Callable[[str], Path]) -> None:
    folder = copy_store("lz4")
    shard = folder / "images.zarr/s2_20m/c/2/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    everything = open_store(folder).select(recommended=False)
    with Stream(everything, order="sequential", batch_size=16) as stream:
        batches = iter(stream)
        next(batches)
        next(batches)
        with pytest.raises(ReadError, match=r"s2_20m, shard 2 .*patch 32 .*crc32c does not match"):
            next(batches)
        assert stream.step == 2
        stream.seek(0, 3)
        assert indices([next(iter(stream))]) == list(range(48, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": "0" * 32}, "another store"),
        ({"selection": "0" * 32}, "another selection"),
        ({"version": 2}, "version 1"),
        ({"seed": None}, None),
    ],
)
def test_a_foreign_state_is_refused(train: Selection, change: dict[str, Any], message: str | None) -> None:
    with Stream(train) as stream:
        state = stream.state() | change
    if message is None:
        del state["seed"]
        message = "lacks seed"
    with pytest.raises(StateError, match=message):
        Stream.from_state(train, state)


def test_a_state_contradicts_no_option(train: Selection) -> None:
    with Stream(train, seed=3) as stream:
        state = stream.state()
    with pytest.raises(StateError, match="seed=3, not 4"):
        Stream.from_state(train, state, seed=4)
    with Stream.from_state(train, state, seed=3) as stream:
        assert stream.options.seed == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": "B10"}, "no band 'B10'"),
        ({"bands": "rgb,B02"}, "once"),
        ({"bands": []}, "one band at least"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"order": "shuffled"}, "order must be one of global, window, sequential"),
        ({"turns": "flip"}, "turns must be one of"),
        ({"host": 2, "n_hosts": 2}, "host counts from 0"),
        ({"batch_size": 10, "n_hosts": 4}, "shared equally"),
        ({"batch_size": 10_000, "drop_last": True}, "do not fill one batch"),
        ({"batchsize": 10}, "no option batchsize; the options are bands, batch_size"),
    ],
)
def test_wrong_options_are_named(train: Selection, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Stream(train, **options)


def test_positions_outside_an_epoch_are_refused(train: Selection) -> None:
    with Stream(train, bands="s2_60m") as stream:
        for epoch, step in ((-1, 0), (0, -1), (0, len(stream) + 1)):
            with pytest.raises(OptionError, match="expected an epoch from 0"):
                stream.seek(epoch, step)
