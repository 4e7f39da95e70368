"""Match a model with what it is to predict: the bands, classes and patches of a store, or the files of raw patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bigearthnet.bands import GROUPS, BandGroup
from bigearthnet.errors import RunError
from trainer.model.networks import ModelCard
from trainer.source.store import Selection, Store


def check_bands(card: ModelCard, store: Store) -> None:
    """Check that a store has the bands of a model where the model expects them.

    Raises:
        OptionError: A band is not in the store.
        RunError: A band is in another array.
    """
    arrays = store.resolve_bands(card.band_names)
    if arrays != dict(card.bands):
        raise RunError(f"{store.name}: the model takes {dict(card.bands)}, but the store has these bands as {arrays}")


def find_labels(classes: tuple[str, ...], store: Store) -> int | None:
    """Find the class list of a store by its names: 19 or 43, or None if it has no such list."""
    return {store.labels_19: 19, store.labels_43: 43}.get(classes)


def select_with_sensors(
    store: Store,
    split: str | None,
    labels: int,
    bands: Mapping[str, Any],
    where: str | None = None,
    recommended: bool = True,
) -> Selection:
    """Select patches that have all the sensors asked for; see `Store.select`."""
    if any(name.startswith("s1") for name in bands):
        where = f"({where}\n) and has_s1" if where else "has_s1"
    return store.select(split, where=where, recommended=recommended, labels=labels)


def choose_files(model: Any, card: ModelCard) -> list[BandGroup]:
    """Say which files a model takes, by the inputs that they become.

    Raises:
        RunError: It was trained on a store of something else than BigEarthNet.
    """
    published = {group.name: group for group in GROUPS}
    groups = []
    for name, bands in card.bands.items():
        expected = model.input[name]
        group = published.get(name)
        if group is None or (expected.shape[-2:], expected.dtype) != ((group.size, group.size), group.dtype):
            raise RunError(
                f"the model takes {name} as {expected.shape[-2]} x {expected.shape[-1]} {expected.dtype}, which "
                "BigEarthNet's files do not hold; convert them to a store of the kind that it was trained on"
            )
        groups.append(replace(group, bands=bands))
    return groups
