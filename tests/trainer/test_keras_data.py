"""Keras and tf.data get the batches of the stream."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tests.trainer.conftest import Pixels
from trainer import Batch, Selection, Stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow's own, on import
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    from trainer.adapters.keras_data import KerasBatches, to_tf_dataset


def _with_index(batch: Batch) -> tuple[Any, ...]:
    """Hand out the rows too, so that batches can be recognised."""
    return batch["s2_60m"], batch["index"]


def _model() -> Any:
    inputs = keras.Input((2, 20, 20), dtype="uint16")
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1e-4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(19, activation="sigmoid")(pixels))
    model.compile("sgd", "binary_crossentropy")
    return model


def _expected(train: Selection, n_batches: int, **options: Any) -> list[list[int]]:
    with Stream(train, bands="s2_60m", **options) as stream:
        return [batch["index"].tolist() for batch in islice(stream.forever(), n_batches)]


def test_tf_data_gives_the_batches_of_the_stream_from_where_it_stands(train: Selection) -> None:
    expected = _expected(train, 20, batch_size=12)
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        stream.seek(0, 3)
        dataset = to_tf_dataset(stream, _with_index)
        for _ in range(2):
            found = [index.numpy().tolist() for _, index in dataset.take(17)]
            assert found == expected[3:]


def test_a_finite_dataset_ends_with_its_epochs(train: Selection) -> None:
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        stream.seek(1, 2)
        dataset = to_tf_dataset(stream, n_epochs=2)
        assert dataset.cardinality().numpy() == 2 * len(stream) - 2
        assert len(list(dataset)) == 2 * len(stream) - 2


def test_tensors_stay_what_they_were(train: Selection, pixels: Pixels) -> None:
    """TensorFlow shares the memory of a batch, which must not be used again while a tensor lives."""
    with Stream(train, batch_size=8, prefetch_bytes=0) as stream:
        dataset = to_tf_dataset(stream, lambda batch: (batch["s2_10m"], batch["index"]))
        kept = list(dataset.take(3 * len(stream)))
        for tensor, index in kept:
            np.testing.assert_array_equal(tensor.numpy(), pixels["s2_10m"][index.numpy()])


def test_keras_batches_lead_from_epoch_to_epoch(train: Selection) -> None:
    expected = _expected(train, 20, batch_size=12)
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        stream.seek(0, 1)
        batches = KerasBatches(stream, _with_index)
        assert batches.num_batches is None
        assert [batches[number][1].tolist() for number in (0, 1, 0, 7, 18)] == [
            expected[1 + number] for number in (0, 1, 0, 7, 18)
        ]
        assert KerasBatches(stream, n_epochs=1).num_batches == len(stream) - stream.step


@pytest.mark.parametrize("adapter", [to_tf_dataset, KerasBatches])
def test_fit_sees_every_patch_once_an_epoch(train: Selection, adapter: Any) -> None:
    seen: list[list[int]] = []

    def record(batch: Batch) -> tuple[Any, ...]:
        seen.append(batch["index"].tolist())
        return batch["s2_60m"], batch["labels"]

    with Stream(train, bands="s2_60m", batch_size=12) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: that its shuffle does nothing here
        _model().fit(adapter(stream, record), steps_per_epoch=len(stream), epochs=3, verbose=0)
        n_batches = 3 * len(stream)
        expected = _expected(train, n_batches, batch_size=12)
        start = next(place for place in range(len(seen)) if seen[place : place + n_batches] == expected)
        assert start <= 3  # what Keras and we look at to learn the shapes


def test_fit_takes_dicts_labels_and_weights(train: Selection) -> None:
    weights = np.ones(len(train))
    with Stream(train, bands=("B04", "B05"), batch_size=12, weights=weights) as stream:
        for batch in (next(iter(to_tf_dataset(stream))), KerasBatches(stream)[0]):
            inputs, labels, found = batch
            assert {name: tuple(array.shape) for name, array in inputs.items()} == {
                "s2_10m": (12, 1, 120, 120),
                "s2_20m": (12, 1, 60, 60),
            }
            assert tuple(labels.shape) == (12, 19)
            assert tuple(found.shape) == (12,)
