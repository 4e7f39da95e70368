"""Probabilities from a model, whole selections at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.errors import RunError
from trainer.networks import ModelCard
from trainer.options import StreamOptions, count_cores
from trainer.store import Selection, Store
from trainer.stream import Batch, Stream

BATCH_SIZE: Final = 64
"""Patches predicted at once; larger ones are no faster on a CPU."""


def predict_selection(
    model: Any,
    card: ModelCard,
    selection: Selection,
    *,
    batch_size: int = BATCH_SIZE,
    threads: int | None = None,
    report: Callable[[int], object] | None = None,
) -> NDArray[np.float32]:
    """Predict every patch of a selection.

    Args:
        model: Takes stored pixels and gives logits.
        card: The model's own description.
        selection: What to predict, in the order of the store.
        batch_size: Patches at once.
        threads: Threads that decode; one a core if None.
        report: Called with the number of patches after each batch.

    Returns:
        Probabilities, shape (patch, class).

    Raises:
        OptionError: The store lacks a band that the model takes.
        RunError: The pixels are not of the size or the array that the model takes.
    """
    options = StreamOptions(
        bands=card.band_names, batch_size=batch_size, order="sequential", threads=threads or count_cores()
    )
    check_bands(card, selection.store)
    found = np.empty((len(selection), len(card.classes)), np.float32)
    done = 0
    with Stream(selection, options) as stream:
        for batch in stream:
            logits = np.asarray(model.predict_on_batch(take_pixels(batch, card)), np.float64)
            found[done : done + len(logits)] = 1 / (1 + np.exp(-logits))
            done += len(logits)
            if report:
                report(len(logits))
    return found


def take_pixels(batch: Batch, card: ModelCard) -> dict[str, NDArray[Any]]:
    """Take from a batch what a model takes."""
    return {name: batch[name] for name in card.bands}


def check_bands(card: ModelCard, store: Store) -> None:
    """Check that a store has the bands of a model where the model expects them.

    Raises:
        OptionError: A band is not in the store.
        RunError: A band is in another array.
    """
    found: Mapping[str, tuple[str, ...]] = store.resolve_bands(card.band_names)
    if dict(found) != dict(card.bands):
        raise RunError(f"{store.name}: the model takes {dict(card.bands)}, but the store has these bands as {found}")


def check_classes(classes: tuple[str, ...], store: Store) -> int:
    """Find the class list of a store that a model was trained on.

    Returns:
        19 or 43, for `Store.select`.

    Raises:
        RunError: The store has no such list.
    """
    known = {19: store.labels_19, 43: store.labels_43}
    for labels, names in known.items():
        if names == classes:
            return labels
    counts = " and ".join(str(len(names)) for names in known.values() if names)
    raise RunError(
        f"{store.name}: the model has {len(classes)} classes ({classes[0]}, ...), "
        f"which are not the {counts} of the store"
    )


def select_patches(store: Store, split: str | None, labels: int, bands: Mapping[str, Any]) -> Selection:
    """Select the recommended patches of a split that have all the sensors asked for."""
    where = "has_s1" if any(name.startswith("s1") for name in bands) else None
    return store.select(split, where=where, labels=labels)
