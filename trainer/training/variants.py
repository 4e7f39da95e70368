"""The members of a comparison: recipes that differ in their bands or in the patches that they see."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, Literal

from bigearthnet.errors import OptionError
from trainer.run.recipe import Recipe
from trainer.score.match import select_split
from trainer.score.predictions import describe_patches
from trainer.source.store import Store

Held = Literal["country", "season"]
_PLAIN_NAME: Final = re.compile(r"\w+( \w+)*")
"""A country or season that becomes the name of a folder."""


@dataclass(frozen=True)
class Variant:
    """What all trainings of one member of a comparison have in common."""

    recipe: Recipe
    held_out: str | None = None
    """The country or season that it does not see."""


def list_variants(
    store: Store,
    recipe: Recipe,
    *,
    bands: Sequence[str] = (),
    fractions: Sequence[float] = (),
    conditions: Sequence[str] = (),
    without: Held | None = None,
) -> dict[str, Variant]:
    """List the members of a comparison: every combination of what is given.

    Args:
        store: Says which countries and seasons there are.
        recipe: What they have in common.
        bands: As in `Recipe.bands`.
        fractions: As in `Recipe.fraction`.
        conditions: As in `Recipe.train_where`.
        without: For every country, or season, of the training patches a member that neither trains nor validates on
            its patches, beside one on all.

    Returns:
        Members by name, made of what is given more than once; conditions are numbered. The first is the base.

    Raises:
        OptionError: A country or season cannot be the name of a folder.
    """
    choices: list[list[tuple[str, dict[str, Any]]]] = [
        [(one.replace("/", "_"), {"bands": one}) for one in bands],
        [(f"{one:g}", {"fraction": one}) for one in fractions],
        [(f"where-{number}", {"train_where": one}) for number, one in enumerate(conditions, 1)],
    ]
    variants = {}
    for combination in product(*(chosen or [("", {})] for chosen in choices)):
        names = [name for chosen, (name, _) in zip(choices, combination, strict=True) if len(chosen) > 1]
        member = replace(recipe, **{name: value for _, chosen in combination for name, value in chosen.items()})
        variants["-".join(names) or "all"] = Variant(member)
        for value in _list_values(store, member, without) if without else ():
            condition = f"{without} IS DISTINCT FROM '{value}'"
            changes: dict[str, Any] = {
                name: f"({old}\n) AND {condition}" if (old := getattr(member, name)) else condition
                for name in ("train_where", "validation_where")
            }
            variants["-".join([*names, f"without-{value}"])] = Variant(replace(member, **changes), value)
    return variants


def _list_values(store: Store, recipe: Recipe, column: Held) -> list[str]:
    """List the countries or seasons of the training patches."""
    selection = select_split(store, recipe, "train", store.resolve_bands(recipe.bands))
    values = sorted({value for value in describe_patches(selection)[column].to_pylist() if value is not None})
    if strange := [value for value in values if not _PLAIN_NAME.fullmatch(value)]:
        raise OptionError(f"{store.name}: expected names of a {column}, found {strange[0]!r}")
    return values


def check_variants(store: Store, variants: Mapping[str, Variant]) -> None:
    """Refuse what cannot be compared, before hours go by.

    Raises:
        OptionError: There are less than two, or two are the same, or a fraction fills no batch.
        SelectionError: The store lacks a split, or a variant has no patches.
    """
    recipes = [variant.recipe for variant in variants.values()]
    kinds = [(store.resolve_bands(one.bands), one.fraction, one.train_where) for one in recipes]
    if len(kinds) < 2 or any(kind in kinds[:place] for place, kind in enumerate(kinds)):
        raise OptionError(f"give two different members or more, not {', '.join(variants) or 'none'}")
    for recipe in recipes:
        for split in ("test", "validation", "train"):
            selection = select_split(store, recipe, split, store.resolve_bands(recipe.bands))
        recipe.fit_to(len(selection))
