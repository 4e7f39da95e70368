"""Hand a stream to Grain, and so to Keras's `fit` on any backend."""

from __future__ import annotations

import sys
from typing import Any

import grain

from trainer.adapters.batches import NumberedBatches, Transform, split_batch
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
    dataset = grain.MapDataset.source(NumberedBatches(stream, transform, n_epochs))
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
