"""Probabilities from a model: of a selection, of the patches of any store, of patches in no store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.folders import RawPatch, find_patches, stream_patches
from bigearthnet.archive.records import OnBad, is_archive_file
from bigearthnet.errors import SourceError
from trainer.model.networks import ModelCard, describe_model, load_model
from trainer.model.plain import PlainModel, wrap_model
from trainer.run.folder import RunFolder
from trainer.score.batches import read_batches
from trainer.score.confidence import sigmoid
from trainer.score.match import check_bands, choose_files, find_labels, select_with_sensors
from trainer.score.metrics import THRESHOLD
from trainer.score.predictions import (
    Predictions,
    RawPredictions,
    check_table,
    write_predictions,
    write_raw_predictions,
)
from trainer.source.store import Selection, Store
from trainer.stream.options import StreamOptions, count_threads
from trainer.stream.stream import Batch, Stream

BATCH_SIZE: Final = 64
"""Patches predicted at once; larger ones are no faster on a CPU."""

_N_QUEUED: Final = 2
"""Batches that may wait for a model that does not make its caller wait."""


def predict_selection(
    model: Any,
    card: ModelCard,
    selection: Selection,
    *,
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda *_: None,
) -> NDArray[np.float32]:
    """Predict every patch of a selection.

    Args:
        model: Takes stored pixels and gives logits.
        card: The model's own description.
        selection: What to predict, in the order of the store.
        batch_size: Patches at once.
        threads: Threads that decode; one a core if None.
        advance: Called after each batch with how many patches are done, and how many there are.

    Returns:
        Probabilities, shape (patch, class).

    Raises:
        OptionError: The store lacks a band that the model takes.
        RunError: The pixels are not of the size or the array that the model takes.
    """
    options = StreamOptions(
        bands=card.band_names, batch_size=batch_size, order="sequential", threads=threads or count_threads()
    )
    check_bands(card, selection.store)
    probabilities = np.empty((len(selection), len(card.classes)), np.float32)
    done = 0
    queue: deque[Any] = deque()
    with Stream(selection, options) as stream:
        for batch in chain(stream, [None] * _N_QUEUED):
            if batch is not None:
                queue.append(model.predict_on_batch(take_pixels(batch, card)))
            if queue and (batch is None or len(queue) > _N_QUEUED):
                part = _squash(queue.popleft())
                probabilities[done : done + len(part)] = part
                done += len(part)
                advance(done, len(selection))
    return probabilities


def predict(
    model: Path | str,
    store: Store,
    out: Path | str | None = None,
    *,
    split: str | None = None,
    where: str | None = None,
    join: Path | None = None,
    recommended: bool = False,
    network: str = "",
    plain: PlainModel | None = None,
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda *_: None,
) -> Predictions:
    """Predict patches of any store that has the bands of a saved model, and perhaps write a Parquet table.

    Args:
        model: Folder of a training, or a `.keras` file.
        store: Its labels go into the table if it has the classes of the model.
        out: The table, which must not exist; None to write none.
        split: As `where` and `recommended`, see `Store.select`. A model that takes Sentinel-1 bands leaves out patches
            without them.
        where: A condition on `patches.parquet`.
        join: A file of further columns for it.
        recommended: Leave out patches with snow, cloud or shadow or without a 19-class label.
        network: `module:function` of the network, if the model has layers of its module.
        plain: What a Keras model takes and gives that `ben-train fit` did not write.
        threads: Threads that decode.
        advance: Called after each batch with how many patches are done, and how many there are.

    Raises:
        OptionError: The store lacks a band that the model takes.
        RunError: There is no model.
        OutputError: The table is already there, or cannot be written.
    """
    if out:
        check_table(out := Path(out))
    loaded, card = open_model(model, network, plain, store)
    check_bands(card, store)
    labels = find_labels(card.classes, store)
    known: dict[str, Any] = {} if labels is None else {"labels": labels, "classes": card.classes}
    conditions = [where] if where else []
    selection = select_with_sensors(store, split, card.bands, conditions, join=join, recommended=recommended, **known)
    predictions = Predictions(
        selection=selection,
        classes=card.classes,
        probabilities=predict_selection(loaded, card, selection, threads=threads, advance=advance),
        thresholds=np.full(len(card.classes), THRESHOLD),
        truth=selection.labels if selection.classes == card.classes else None,
    )
    if out:
        write_predictions(out, predictions)
    return predictions


def predict_raw(
    model: Path | str,
    paths: Sequence[Path],
    out: Path | str | None = None,
    *,
    on_bad: OnBad = "stop",
    network: str = "",
    plain: PlainModel | None = None,
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda *_: None,
    complain: Callable[[str], object] = lambda _: None,
) -> RawPredictions:
    """Predict patches from their GeoTIFFs, and perhaps write a Parquet table.

    Args:
        model: Folder of a training, or a `.keras` file.
        paths: Patch folders, or folders of them; see `bigearthnet.archive.folders.find_patches`. Or one archive file,
            which is read once, in the order of the archive.
        out: The table, which must not exist; None to write none.
        on_bad: `stop` at the first patch that cannot be read, or `skip` it.
        network: `module:function` of the network, if the model has layers of its module.
        plain: What a Keras model takes and gives that `ben-train fit` did not write.
        threads: Threads that read, ahead of the model.
        advance: Called after each batch with how many patches are done, and how many there are: 0 if nobody knows.
        complain: Called with the reason for each patch that is skipped.

    Raises:
        SourceError: A patch lacks a band of the model, or cannot be read; or none can.
        SelectionError: There is no patch.
        RunError: There is no model.
        OutputError: The table is already there, or cannot be written.
    """
    if out:
        check_table(out := Path(out))
    loaded, card = open_model(model, network, plain)
    groups = choose_files(loaded, card)
    patches: Iterable[RawPatch]
    n_total = 0
    if len(paths) == 1 and is_archive_file(paths[0]) and paths[0].suffix != ".parquet":
        patches = stream_patches(paths[0], groups)
    else:
        patches = find_patches(paths, {group.sensor for group in groups})
        n_total = len(patches)
    read: list[RawPatch] = []
    n_bad, probabilities = 0, []
    for batch in read_batches(
        patches, groups, batch_size=BATCH_SIZE, threads=threads or count_threads(), on_bad=on_bad
    ):
        for reason in batch.bad:
            complain(reason)
        if batch.patches:
            read += (replace(patch, files=None) for patch in batch.patches)
            probabilities.append(_squash(loaded.predict_on_batch(batch.pixels)))
        n_bad += len(batch.bad)
        advance(len(read) + n_bad, n_total)
    if not read:
        raise SourceError(f"none of {n_bad:,} patches can be read")
    predictions = RawPredictions(
        patches=tuple(read),
        n_bad=n_bad,
        classes=card.classes,
        probabilities=np.concatenate(probabilities),
        thresholds=np.full(len(card.classes), THRESHOLD),
    )
    if out:
        write_raw_predictions(out, predictions)
    return predictions


def open_model(
    model: Path | str, network: str = "", plain: PlainModel | None = None, store: Store | None = None
) -> tuple[Any, ModelCard]:
    """Load a model and say what it takes and gives; if it is a plain one, for the bands and classes of a store."""
    path = RunFolder(model).model_path if Path(model).is_dir() else Path(model)
    if plain is None:
        loaded = load_model(path, network)
        return loaded, describe_model(loaded)
    if store is None:
        return wrap_model(path, plain, network=network)
    return wrap_model(path, plain, store.arrays, (store.labels_19, store.labels_43), store.scale_of, network)


def _squash(logits: Any) -> NDArray[np.float32]:
    """Turn logits into probabilities, once the model has them."""
    return sigmoid(np.asarray(logits)).astype(np.float32)


def take_pixels(batch: Batch, card: ModelCard) -> dict[str, NDArray[Any]]:
    """Take from a batch what a model takes."""
    return {name: batch[name] for name in card.bands}
