"""What the adapters of all frameworks share. No framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.stream.stream import Batch, Stream

Transform = Callable[[Batch], Any]
"""Turns a batch into what `fit` takes: (inputs, labels) or (inputs, labels, weights)."""


def split_batch(batch: Batch) -> tuple[Any, ...]:
    """Split a batch into inputs, labels and, if it has them, weights.

    The inputs are a dict of arrays, or the array itself if there is only one.
    """
    inputs = {name: pixels for name, pixels in batch.items() if pixels.ndim == 4}
    rest = [batch["labels"], *([batch["weight"]] if "weight" in batch else [])]
    return (inputs if len(inputs) > 1 else next(iter(inputs.values())), *rest)


def locate_batch(stream: Stream, number: int) -> tuple[int, int]:
    """Return epoch and step of a batch by its number from the first of all."""
    return divmod(number, len(stream))


def count_batches(stream: Stream, n_epochs: int) -> int:
    """Count the batches from where a stream stands to the end of so many epochs, the present one included."""
    return n_epochs * len(stream) - stream.step
