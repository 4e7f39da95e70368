"""Which classes a made-up patch shows: draws of 43-class labels that are plausible for a country.

Sources: occurrence was counted per country and 19-class label over the official v2.0 metadata (549,488
patches, https://doi.org/10.5281/zenodo.10891137) and rounded. How it divides among the 43 classes, the
classes without a 19-class form and which classes keep company is made up, and beaches, coastal wetlands
and heaths are raised, so that a thousand patches show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from bigearthnet.labels import LABEL_19_OF_43, LABELS_43

COUNTRIES: Final = (
    *("Austria", "Belgium", "Finland", "Ireland", "Kosovo"),
    *("Lithuania", "Luxembourg", "Portugal", "Serbia", "Switzerland"),
)
"""The countries of the archive, in the order of the columns of the table below."""

_TABLE: Final[tuple[tuple[str, str, tuple[float, ...]], ...]] = (
    #                                                      AT  BE  FI  IE  XK  LT  LU  PT  RS  CH
    ("Continuous urban fabric", "town", (2, 6, 0.3, 1, 2, 1, 3, 2, 1, 5)),
    ("Discontinuous urban fabric", "town", (34, 59, 3.5, 7, 30, 13, 45, 7, 15, 46)),
    ("Industrial or commercial units", "town", (4, 8, 1.5, 2, 5, 3, 7, 3, 3, 10)),
    ("Road and rail networks and associated land", "town", (1, 2, 0.3, 0.5, 0.5, 0.4, 2, 0.5, 0.3, 2)),
    ("Port areas", "coast", (0, 1, 0.2, 0.2, 0, 0.3, 0, 0.4, 0, 0)),
    ("Airports", "town", (0.4, 0.7, 0.2, 0.3, 0.2, 0.3, 0.7, 0.3, 0.2, 0.7)),
    ("Mineral extraction sites", "town", (1, 1, 0.8, 0.8, 2, 0.8, 1, 1, 1, 1)),
    ("Dump sites", "town", (0.1, 0.2, 0.1, 0.1, 0.3, 0.1, 0.2, 0.1, 0.2, 0.1)),
    ("Construction sites", "town", (0.2, 0.2, 0.1, 0.2, 0.3, 0.1, 0.5, 0.3, 0.1, 0.3)),
    ("Green urban areas", "town", (0.5, 1, 0.2, 0.2, 0.1, 0.4, 1, 0.2, 0.2, 2)),
    ("Sport and leisure facilities", "town", (1, 2, 0.5, 1, 0.2, 0.3, 1, 0.7, 0.2, 3)),
    ("Non-irrigated arable land", "farm", (63, 50, 16, 35, 40, 63, 69, 24, 47, 65)),
    ("Permanently irrigated land", "farm", (0, 0, 0, 0, 0.5, 0, 0, 18, 0.5, 0)),
    ("Rice fields", "farm", (0, 0, 0, 0, 0, 0, 0, 4, 0, 0)),
    ("Vineyards", "farm", (9, 0, 0, 0, 1, 0, 3, 7, 1, 1.5)),
    ("Fruit trees and berry plantations", "farm", (1, 0.2, 0, 0, 0, 1, 0.5, 5, 2, 0.5)),
    ("Olive groves", "farm", (0, 0, 0, 0, 0, 0, 0, 12, 0, 0)),
    ("Pastures", "farm", (25, 66, 0.2, 70, 10, 38, 66, 15, 10, 27)),
    ("Annual crops associated with permanent crops", "farm", (0, 0, 0, 0, 0, 0, 0, 6, 0, 0)),
    ("Complex cultivation patterns", "farm", (32, 55, 0.2, 6, 34, 49, 50, 21, 40, 27)),
    (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "farm",
        (30, 29, 19, 11, 52, 41, 31, 18, 46, 9),
    ),
    ("Agro-forestry areas", "wood", (0, 0, 0, 0, 0, 0, 0, 37, 0, 0)),
    ("Broad-leaved forest", "wood", (36, 41, 7, 6, 70, 36, 70, 40, 61, 20)),
    ("Coniferous forest", "wood", (33, 21, 68, 16, 3, 34, 28, 10, 3, 36)),
    ("Mixed forest", "wood", (41, 28, 62, 8, 4, 49, 37, 16, 5, 65)),
    ("Natural grassland", "open", (3, 0.1, 0, 1.5, 19, 0.5, 0, 1.5, 10, 4)),
    ("Moors and heathland", "open", (1, 4, 0.3, 8, 0.5, 0.3, 0, 4, 0.2, 2)),
    ("Sclerophyllous vegetation", "open", (0, 0, 0, 0, 0, 0, 0, 9, 0.2, 0)),
    ("Transitional woodland/shrub", "open", (3, 8, 35, 10, 39, 30, 1, 44, 36, 6)),
    ("Beaches, dunes, sands", "coast", (0, 0.3, 0.4, 3, 0, 2, 0, 4, 0.3, 0)),
    ("Bare rock", "open", (1, 0, 0.5, 0.5, 0.5, 0, 0, 0.3, 0.2, 3)),
    ("Sparsely vegetated areas", "open", (1, 0, 0.3, 0.3, 2, 0, 0, 0.4, 1.5, 2)),
    ("Burnt areas", "open", (0, 0, 0, 0.1, 0.2, 0, 0, 0.6, 0.1, 0)),
    ("Inland marshes", "wet", (1.5, 2, 2, 0.7, 0.4, 2, 0.2, 0.3, 2, 0.7)),
    ("Peatbogs", "wet", (0.5, 1.5, 7, 10, 0, 3, 0, 0, 0, 0.7)),
    ("Salt marshes", "coast", (0, 0.2, 0.6, 3, 0, 0, 0, 3, 0, 0)),
    ("Salines", "coast", (0, 0, 0, 0, 0, 0, 0, 2, 0, 0)),
    ("Intertidal flats", "coast", (0, 0.2, 0, 2, 0, 0, 0, 0.8, 0, 0)),
    ("Water courses", "water", (3, 2, 3, 1, 1.5, 4, 3, 2.5, 5, 2)),
    ("Water bodies", "water", (2, 2, 30, 2, 0.5, 8, 1, 3, 2, 10)),
    ("Coastal lagoons", "coast", (0, 0, 0.2, 0.5, 0, 3, 0, 1, 0, 0)),
    ("Estuaries", "coast", (0, 0, 0.3, 2, 0, 0, 0, 2.5, 0, 0)),
    ("Sea and ocean", "coast", (0, 0, 21, 22, 0, 2, 0, 7.5, 0, 0)),
)
"""43-class name, its company, and the percentage of a country's patches that show it."""

_COMPANIES: Final = ("town", "farm", "wood", "open", "wet", "water", "coast")
_AFFINITY: Final[tuple[tuple[float, ...], ...]] = (
    # town farm wood open  wet water coast
    (3.0, 1.2, 0.5, 0.3, 0.2, 0.6, 0.8),
    (1.2, 1.5, 0.7, 0.6, 0.4, 0.6, 0.2),
    (0.5, 0.7, 1.5, 1.2, 1.0, 1.0, 0.5),
    (0.3, 0.6, 1.2, 2.0, 1.0, 0.6, 1.0),
    (0.2, 0.4, 1.0, 1.0, 2.0, 1.5, 0.8),
    (0.6, 0.6, 1.0, 0.6, 1.5, 2.0, 0.3),
    (0.8, 0.2, 0.5, 1.0, 0.8, 0.3, 4.0),
)
"""How much likelier a class of one company (column) is beside a first class of another (row)."""

_N_LABELS: Final = (18, 20, 29, 21, 9, 3)
"""Percentage of patches with one to six labels; counted over the v2.0 metadata, mean 2.95."""

_COMPANY_OF: Final = {name: _COMPANIES.index(company) for name, company, _ in _TABLE}
_WEIGHT_OF: Final = {
    country: {name: percentages[column] for name, _, percentages in _TABLE} for column, country in enumerate(COUNTRIES)
}


def draw_labels(country: str, draw: Callable[[], float], *, with_19: bool = True) -> tuple[str, ...]:
    """Draw the labels of one patch: a first class that suits the country, then classes that suit both.

    Args:
        country: One of `COUNTRIES`.
        draw: Returns a new number in [0, 1) at every call.
        with_19: Whether the patch must have a label with a 19-class form, or must have none.

    Returns:
        One to six names from `LABELS_43`, in that order.
    """
    weights = {name: weight for name, weight in _WEIGHT_OF[country].items() if weight > 0}
    n_labels = _draw_index(_N_LABELS, draw) + 1
    if not with_19:
        weights = {name: weight for name, weight in weights.items() if LABEL_19_OF_43[name] is None}
        n_labels = min(n_labels, 2)
    firsts = {name: weight for name, weight in weights.items() if with_19 == (LABEL_19_OF_43[name] is not None)}
    first = list(firsts)[_draw_index(firsts.values(), draw)]
    affinity = _AFFINITY[_COMPANY_OF[first]]
    chosen = {first}
    while len(chosen) < n_labels:
        others = {name: weight * affinity[_COMPANY_OF[name]] for name, weight in weights.items() if name not in chosen}
        chosen.add(list(others)[_draw_index(others.values(), draw)])
    return tuple(label for label in LABELS_43 if label in chosen)


def _draw_index(weights: Iterable[float], draw: Callable[[], float]) -> int:
    sums = list(accumulate(weights))
    target = draw() * sums[-1]
    return next(index for index, total in enumerate(sums) if target < total)
