"""What the adapters of all frameworks share. No framework."""

from __future__ import annotations

import sys
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


class NumberedBatches:
    """Batches by their number from where a stream stands, whoever asks for which.

    Args:
        stream: The stream.
        transform: What to make of each batch.
        n_epochs: Epochs to give, the present one included; None for no end.
    """

    def __init__(self, stream: Stream, transform: Transform, n_epochs: int | None) -> None:
        self._stream, self._transform = stream, transform
        self._first = stream.epoch * len(stream) + stream.step
        self.n_batches = None if n_epochs is None else n_epochs * len(stream) - stream.step
        """Batches in all; None for no end."""

    def __len__(self) -> int:
        """Count the batches; without an end, as many as can be counted."""
        return sys.maxsize if self.n_batches is None else self.n_batches

    def __getitem__(self, number: int) -> Any:
        """Return a batch."""
        return self._transform(self._stream.batch(*divmod(self._first + number, len(self._stream))))
