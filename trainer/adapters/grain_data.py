"""Hand a stream to Grain, and so to Keras's `fit` on any backend."""

from __future__ import annotations

import sys
from typing import Any

import grain

from trainer.adapters.batches import Transform, count_batches, locate_batch, split_batch
from trainer.stream.options import check_hosts
from trainer.stream.stream import Stream


def to_grain_dataset(stream: Stream, transform: Transform = split_batch, n_epochs: int | None = None) -> Any:
    """Make a `grain.IterDataset` of batches, from where the stream stands.

    It can be mapped further, and its iterators can be saved and restored as Grain does. The stream decodes ahead on
    threads of its own, so Grain is told to read without any; its `mp_prefetch`, which would move the stream to other
    processes, is refused. Where JAX runs on several processes, each makes its own stream, with its rank as `host` and
    their number as `n_hosts`; any other is refused.

    Args:
        stream: The stream.
        transform: What to make of each batch, in NumPy.
        n_epochs: Epochs to give, the present one included; None for no end, which `fit` needs in order to go from
            epoch to epoch: `fit(dataset, steps_per_epoch=len(stream), epochs=..., shuffle=False)`.

    Raises:
        OptionError: Several processes train together, and the stream is not that of one of them.
    """
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        check_hosts(stream.options, jax.process_count())
    dataset = grain.MapDataset.source(_Batches(stream, transform, n_epochs))
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


class _Batches:
    """Batches by their number from where the stream stands."""

    def __init__(self, stream: Stream, transform: Transform, n_epochs: int | None) -> None:
        self._stream, self._transform = stream, transform
        self._first = stream.epoch * len(stream) + stream.step
        self._n_batches = sys.maxsize if n_epochs is None else count_batches(stream, n_epochs)

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, number: int) -> Any:
        return self._transform(self._stream.batch(*locate_batch(self._stream, self._first + number)))
