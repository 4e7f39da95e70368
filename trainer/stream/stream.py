"""Stream shuffled batches that are the same in every run, and resume in the middle of an epoch. No framework."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigearthnet.errors import OptionError
from trainer.source.read import ArrayReader
from trainer.source.store import Selection
from trainer.stream.buffers import BatchLayout, BatchMemory, measure_layout
from trainer.stream.options import TRAIN, StreamOptions
from trainer.stream.order import N_TURNS, draw_turns, order_items, slice_host
from trainer.stream.state import State, check_state, describe_position

Batch = dict[str, NDArray[Any]]
"""For each array of the store that was asked for, (patch, band, row, col) of its stored type; `labels`, multi-hot
float32 (patch, class); `index`, int32 (patch,), the row in the store; with symmetries `turn`, uint8 (patch,), see
`trainer.source.turns`; with weights `weight`, float32 (patch,)."""

_MAX_AHEAD: Final = 64
"""Batches read ahead, however small: the first one waits until all of them have been asked for."""


class Stream:
    """Batches of a selection, in an order that depends on seed and epoch alone.

    Iterating goes from the present position to the end of the epoch; iterating again gives the next epoch. Decoding
    runs ahead on threads, which end when the stream is closed or dropped. A batch's memory is used again once all
    its arrays (and all views of them) have been dropped, so batches may be kept for as long as they are needed.

    Args:
        selection: From `Store.select`.
        options: How to stream; single options may be given, or changed, by name.
        weights: A weight for each patch of the selection, shape (patch,).

    Raises:
        OptionError: An option is unknown or out of range, or does not suit the selection.
    """

    def __init__(
        self,
        selection: Selection,
        options: StreamOptions | None = None,
        *,
        weights: ArrayLike | None = None,
        **changes: Any,
    ) -> None:
        self.selection = selection
        self.options = _change(options or StreamOptions(), changes)
        self.bands = selection.store.resolve_bands(self.options.bands)
        """For each array of the store that is read, its bands in the order of the batch."""
        _check_suited(selection, self.options)
        self._weights = None if weights is None else np.asarray(weights, np.float32)
        if self._weights is not None and self._weights.shape != (len(selection),):
            raise OptionError(f"expected one weight for each of {len(selection):,} patches, not {self._weights.shape}")
        self._readers = self._open_readers()
        self._n_items = len(selection) * (N_TURNS if self.options.turns == "each-quarter" else 1)
        self._n_steps = (
            self._n_items // self.options.batch_size
            if self.options.drop_last
            else -(-self._n_items // self.options.batch_size)
        )
        if not self._n_steps:
            raise OptionError(
                f"{len(selection):,} patches do not fill one batch of {self.options.batch_size:,}; "
                "choose a smaller batch_size or keep the last batch (drop_last=False)"
            )
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._position = (0, 0)
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._ahead: deque[tuple[tuple[int, int], Batch, list[Future[None]]]] = deque()
        self._announced = self._position
        host_rows = self.options.batch_size // self.options.n_hosts
        self.batch_bytes = measure_layout(self._layout(host_rows))
        """Bytes of a full batch of this host."""
        self._n_ahead = min(max(1, self.options.prefetch_bytes // self.batch_bytes), _MAX_AHEAD)
        self._memory = BatchMemory(self.batch_bytes, self._n_ahead + 2)
        self._executor = ThreadPoolExecutor(self.options.threads, thread_name_prefix="trainer-decode")
        self._end = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)

    @classmethod
    def from_state(
        cls,
        selection: Selection,
        state: Mapping[str, Any],
        options: StreamOptions | None = None,
        *,
        weights: ArrayLike | None = None,
        **changes: Any,
    ) -> Self:
        """Make a stream that goes on where another was.

        Options that decide the batches (seed, batch size, order...) come from the state; the others may be chosen
        anew, also the number of hosts.

        Args:
            selection: The same patches that the other stream had.
            state: From `state`.
            options: How to stream.
            weights: A weight for each patch of the selection.
            changes: Single options by name.

        Raises:
            StateError: The state belongs to another store or selection, or contradicts an option.
        """
        given = changes if options is None else asdict(options) | changes
        saved = check_state(state, selection, given)
        stream = cls(selection, options, weights=weights, **(changes | saved))
        stream.seek(state["epoch"], state["step"])
        return stream

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self._n_steps

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0."""
        return self._position[0]

    @property
    def step(self) -> int:
        """Place of the next batch in its epoch, from 0."""
        return self._position[1]

    def state(self, epoch: int | None = None, step: int | None = None) -> State:
        """Describe a position as JSON values, to go on from it with `from_state`.

        Args:
            epoch: Epoch of the next batch; that of this stream if None.
            step: Step of the next batch. What fetches ahead of a model (tf.data, a PyTorch loader with workers) has
                taken more batches from the stream than were trained on: count those yourself, and give both numbers.
        """
        epoch, step = self._check_position(self.epoch if epoch is None else epoch, self.step if step is None else step)
        return describe_position(self.selection, self.options, epoch, step)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Go to a position; the next batch is that one. The step after an epoch's last is the next epoch's first."""
        with self._lock:
            self._drop_ahead()
            self._position = self._announced = self._check_position(epoch, step)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches from here to the end of the epoch."""
        epoch = self.epoch
        while self.epoch == epoch:
            yield self._next()

    def forever(self) -> Iterator[Batch]:
        """Give batches from here, epoch after epoch, without end."""
        while True:
            yield self._next()

    def batch(self, epoch: int, step: int) -> Batch:
        """Go to a position and give its batch: as fast as iterating if positions are asked for in order.

        May be called from several threads.
        """
        with self._lock:
            if self._position != self._check_position(epoch, step):
                self.seek(epoch, step)
            return self._next()

    def close(self) -> None:
        """Stop decoding and end the threads."""
        self._drop_ahead()
        self._close_readers()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise _refuse_process()

    def _check_position(self, epoch: int, step: int) -> tuple[int, int]:
        if epoch < 0 or not 0 <= step <= len(self):
            raise OptionError(f"expected an epoch from 0 and a step of 0 to {len(self):,}, not {epoch}, {step}")
        return (epoch, step) if step < len(self) else (epoch + 1, 0)

    def _next(self) -> Batch:
        if os.getpid() != self._process:  # a fork has none of the threads, and every one of them would give each patch
            raise _refuse_process()
        with self._lock:
            try:
                while len(self._ahead) <= self._n_ahead:
                    position = self._after(self._ahead[-1][0]) if self._ahead else self._position
                    self._announce(position)
                    self._ahead.append((position, *self._start(position)))
                position, batch, pieces = self._ahead[0]
                for piece in pieces:
                    piece.result()
                self._ahead.popleft()
            except BaseException:
                self._drop_ahead()
                self._close_readers()  # or the end of the process would wait for those that wait for a server
                self._readers = self._open_readers()
                raise
            self._position = self._after(position)
            return batch

    def _after(self, position: tuple[int, int]) -> tuple[int, int]:
        epoch, step = position
        return (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)

    def _drop_ahead(self) -> None:
        for _, _, pieces in self._ahead:
            for piece in pieces:
                piece.cancel()
        self._ahead.clear()

    def _open_readers(self) -> dict[str, ArrayReader]:
        store = self.selection.store
        return {name: store.open_reader(name, bands, check=self.options.check) for name, bands in self.bands.items()}

    def _close_readers(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _announce(self, position: tuple[int, int]) -> None:
        """Tell the readers of the rows up to a window further on, so that a remote store is always ahead."""
        if self.options.order == "global":
            return  # its batches touch shards everywhere: there is nothing to know beforehand
        size = max(self.selection.store.describe(name).shard_size for name in self.bands)
        until = position[0] * len(self) + position[1] + 1 + self.options.window * size // self.options.batch_size
        while self._announced[0] * len(self) + self._announced[1] < until:
            rows = self.selection.rows[self._items(self._announced)[0]]
            for reader in self._readers.values():
                reader.fetch_ahead(rows)
            self._announced = self._after(self._announced)

    def _items(self, position: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None]:
        """Return the places in the selection, and the symmetries, of this host's part of a batch."""
        epoch, step = position
        options = self.options
        batch = self._order(epoch)[step * options.batch_size : (step + 1) * options.batch_size]
        items = batch[slice_host(len(batch), options.host, options.n_hosts)]
        if options.turns == "each-quarter":
            return items // N_TURNS, (items % N_TURNS).astype(np.uint8)
        if options.turns == "one-of-eight":
            return items, draw_turns(options.seed, epoch, self._n_items)[items]
        return items, None

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch; two are kept, since reading ahead crosses from one to the next."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                self._orders.pop(min(self._orders))
            shards = self.selection.indices // max(info.shard_size for info in self.selection.store.arrays)
            shards = np.repeat(shards, self._n_items // len(self.selection))
            options = self.options
            self._orders[epoch] = order_items(options.order, options.seed, epoch, shards, options.window)
        return self._orders[epoch]

    def _layout(self, n_rows: int) -> BatchLayout:
        layout: dict[str, tuple[tuple[int, ...], Any]] = {}
        for name, bands in self.bands.items():
            info = self.selection.store.describe(name)
            layout[name] = ((n_rows, len(bands), info.n_rows, info.n_columns), info.dtype)
        return layout

    def _start(self, position: tuple[int, int]) -> tuple[Batch, list[Future[None]]]:
        """Start to decode a batch; it is whole when all of its pieces are done."""
        items, symmetries = self._items(position)
        rows = self.selection.rows[items]
        arrays = self._memory.take(self._layout(len(rows)))
        n_pieces = min(-(-self.options.threads // self._n_ahead), len(rows))
        futures = [
            self._executor.submit(
                _decode, self._readers, slice_host(len(rows), piece, n_pieces), rows, arrays, symmetries
            )
            for piece in range(n_pieces)
        ]
        batch = {**arrays, "labels": self.selection.take_labels(items), "index": self.selection.indices[items]}
        if symmetries is not None:
            batch["turn"] = symmetries
        if self._weights is not None:
            batch["weight"] = self._weights[items]
        return batch, futures


def _decode(
    readers: Mapping[str, ArrayReader],
    piece: slice,
    rows: NDArray[np.int32],
    arrays: Mapping[str, NDArray[Any]],
    symmetries: NDArray[np.uint8] | None,
) -> None:
    """Decode some rows of a batch; knows nothing of the stream, so that a dropped stream ends at once."""
    for name, reader in readers.items():
        reader.read(rows[piece], arrays[name][piece], None if symmetries is None else symmetries[piece])


def _change(options: StreamOptions, changes: Mapping[str, Any]) -> StreamOptions:
    known = [field.name for field in fields(StreamOptions)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise OptionError(f"no option {', '.join(unknown)}; the options are {', '.join(known)}, and weights")
    return replace(options, **changes)


def _refuse_process() -> OptionError:
    return OptionError(
        "a stream belongs to the process that made it, and decodes on threads there: give the loader no workers "
        "(num_workers=0), or make a stream in each process with the options host and n_hosts"
    )


def _check_suited(selection: Selection, options: StreamOptions) -> None:
    if options.turns != "none" and selection.split != TRAIN:
        raise OptionError(
            f"only the split {TRAIN!r} is turned, since evaluation must see patches as they are; "
            f"this selection is of split {selection.split!r}: choose turns='none'"
        )
