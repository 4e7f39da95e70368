"""Grain gets the batches of the stream, and Keras's `fit` gets them from Grain."""

from __future__ import annotations

import warnings
from itertools import islice

import pytest

from trainer import Batch, Selection, Stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on import
    keras = pytest.importorskip("keras")
    grain = pytest.importorskip("grain")
    absl_flags = pytest.importorskip("absl.flags")
    from trainer.adapters.grain_data import to_grain_dataset


def test_a_dataset_goes_on_where_the_stream_stands(train: Selection) -> None:
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        expected = [batch["index"].tolist() for batch in islice(stream.forever(), 20)]
        stream.seek(0, 3)
        dataset = to_grain_dataset(stream, lambda batch: batch["index"])
        for _ in range(2):
            assert [index.tolist() for index in islice(dataset, 17)] == expected[3:]
        stream.seek(1, 2)
        assert len(list(to_grain_dataset(stream, n_epochs=2))) == 2 * len(stream) - 2


def test_an_iterator_is_saved_and_restored_as_grain_does(train: Selection) -> None:
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        dataset = to_grain_dataset(stream, lambda batch: batch["index"].copy())
        iterator = iter(dataset)
        list(islice(iterator, 5))
        saved = iterator.get_state()
        expected = [index.tolist() for index in islice(iterator, 9)]
        again = iter(dataset)
        again.set_state(saved)
        assert [index.tolist() for index in islice(again, 9)] == expected


def test_keras_trains_from_grain_on_every_patch_once_an_epoch(train: Selection) -> None:
    seen: list[list[int]] = []

    def record(batch: Batch) -> tuple[object, object]:
        seen.append(batch["index"].tolist())
        return batch["s2_60m"], batch["labels"]

    inputs = keras.Input((2, 20, 20), dtype="uint16")
    outputs = keras.layers.Dense(19, activation="sigmoid")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "binary_crossentropy")
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        model.fit(to_grain_dataset(stream, record), steps_per_epoch=len(stream), epochs=3, shuffle=False, verbose=0)
        n_batches = 3 * len(stream)
        expected = [batch["index"].tolist() for batch in islice(stream.forever(), n_batches)]
        stream.seek(0)
        expected = [batch["index"].tolist() for batch in islice(stream.forever(), n_batches)]
    assert any(seen[start : start + n_batches] == expected for start in range(len(seen)))


def test_processes_of_grain_are_refused(train: Selection) -> None:
    absl_flags.FLAGS.mark_as_parsed()  # else Grain asks for that first
    with Stream(train, bands="s2_60m", batch_size=12) as stream:
        dataset = to_grain_dataset(stream).mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=2))
        with pytest.raises(Exception, match="give the loader no workers"):
            next(iter(dataset))
