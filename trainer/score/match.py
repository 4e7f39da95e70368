"""Match a model with what it is to predict: the bands, classes and patches of a store, or the files of raw patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bigearthnet.bands import GROUPS, BandGroup
from bigearthnet.errors import RunError
from bigearthnet.labels import split_names
from trainer.model.networks import ModelCard
from trainer.run.recipe import Recipe
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
    """Find the class list of a store that has all of some names: 19 or 43, or None if neither has."""
    lists = {19: store.labels_19, 43: store.labels_43}
    return next((number for number, names in lists.items() if set(classes) <= set(names)), None)


def select_with_sensors(
    store: Store, split: str | None, bands: Mapping[str, Any], where: Sequence[str] = (), **choice: Any
) -> Selection:
    """Select patches that have all the sensors asked for; see `Store.select`."""
    needs = ("has_s1",) if any(name.startswith("s1") for name in bands) else ()
    return store.select(split, where=(*where, *needs), **choice)


def select_split(
    store: Store, recipe: Recipe, split: str, bands: Mapping[str, Any], where: str = "", classes: Sequence[str] = ()
) -> Selection:
    """Select the patches of a split that a recipe trains on, validates on or, of any other, is measured on.

    Args:
        store: Of these patches.
        recipe: Its conditions are those of the splits `train` and `validation`, its fraction is one of `train`.
        split: `train`, `validation` or `test`.
        bands: For each array, the bands that a model takes.
        where: A further condition.
        classes: Those of a model; what the recipe says if there are none.
    """
    conditions = {"train": recipe.train_where, "validation": recipe.validation_where}
    return select_with_sensors(
        store,
        split,
        bands,
        [condition for condition in (conditions.get(split), where) if condition],
        labels=recipe.labels,
        classes=classes or split_names(recipe.classes),
        join=recipe.join or None,
        target=recipe.target,
        fraction=recipe.fraction if split == "train" else 1.0,
        seed=recipe.seed,
    )


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
