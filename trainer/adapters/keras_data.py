"""Hand a stream to Keras or TensorFlow. Thin: the stream does the work, this names the parts.

Both adapters start where the stream stands when they are made, and each new iteration of them starts there again:
what they give is a pure function of the stream and that position. Frameworks fetch ahead, so the position of the
stream says what was fetched; to resume a training, count the batches trained on and pass them to `Stream.state`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.adapters.batches import NumberedBatches, Transform, split_batch
from trainer.stream.stream import Stream


class KerasBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """A stream as a `keras.utils.PyDataset`, on any backend; with TensorFlow, `to_tf_dataset` is faster.

    Args:
        stream: The stream.
        transform: What to make of each batch.
        n_epochs: Epochs to give, the present one included; None for no end, which `fit` needs in order to go from
            epoch to epoch: `fit(KerasBatches(stream), steps_per_epoch=len(stream), epochs=...)`. A batch number
            leads to its epoch then, and the unseeded shuffle of `fit` has nothing to shuffle.
    """

    def __init__(self, stream: Stream, transform: Transform = split_batch, n_epochs: int | None = None) -> None:
        super().__init__()  # one worker: the stream has threads of its own
        self._batches = NumberedBatches(stream, transform, n_epochs)

    @property
    def num_batches(self) -> int | None:
        """Batches in all; None for no end."""
        return self._batches.n_batches

    def __getitem__(self, number: int) -> Any:
        """Return a batch by its number from the start."""
        return self._batches[number]


def to_tf_dataset(stream: Stream, transform: Transform = split_batch, n_epochs: int | None = None) -> tf.data.Dataset:
    """Make a `tf.data.Dataset` of batches; pixels are not copied.

    Args:
        stream: The stream.
        transform: What to make of each batch, in NumPy; map the dataset for what TensorFlow should do.
        n_epochs: Epochs to give, the present one included; None for no end, which `fit` needs in order to go from
            epoch to epoch without stopping: `fit(dataset, steps_per_epoch=len(stream), epochs=...)`.
    """
    batches, position = NumberedBatches(stream, transform, n_epochs), (stream.epoch, stream.step)
    example = batches[0]
    stream.seek(*position)
    parts = tf.nest.flatten(example)

    def get(number: np.int64) -> list[Any]:
        batch: list[Any] = tf.nest.flatten(batches[int(number)])
        return batch

    def pack(number: Any) -> Any:
        tensors = tf.numpy_function(get, [number], [part.dtype for part in parts])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.set_shape((None, *part.shape[1:]))  # the last batch of an epoch may be smaller
        return tf.nest.pack_sequence_as(example, tensors)

    # Not `from_generator`: on Python 3.11 and later it makes malloc map every block of 128 KiB and more anew
    # (TensorFlow's ApplyPython311MemoryPatch), and blosc asks for one at each chunk, which takes as long as decoding.
    numbers = tf.data.Dataset.counter() if batches.n_batches is None else tf.data.Dataset.range(batches.n_batches)
    # The stream reads ahead; prefetching here only takes the hand-over off the training loop.
    return numbers.map(pack).prefetch(2)
