"""Choose the few of many that differ most, by a handful of numbers each. NumPy alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def mark_kinds(kinds: Sequence[Hashable], distance: float) -> NDArray[np.float64]:
    """Turn kinds of things into coordinates, shape (thing, kind): those of two kinds are so far apart."""
    places = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    return np.asarray(np.eye(len(places))[[places[kind] for kind in kinds]] * distance / np.sqrt(2))


def standardise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring each column, shape (thing, column), to mean 0 and standard deviation 1; one that is constant to 0."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1))


def choose_varied(features: NDArray[np.float64], n: int) -> list[int]:
    """Choose things far from one another: first the most typical one, then always the farthest from all chosen.

    Args:
        features: Coordinates, shape (thing, column), with at least one thing.
        n: How many, at most.

    Returns:
        Positions; of things equally far, the first.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985.
    """
    chosen = [int(_measure(features, features.mean(axis=0)).argmin())]
    nearest = _measure(features, features[chosen[0]])
    while len(chosen) < min(n, len(features)):
        nearest[chosen[-1]] = -1  # those that are just like it may still be taken
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _measure(features, features[chosen[-1]]))
    return chosen


def _measure(features: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure squared distances from a point, shape (thing,), to a digit where rounding no longer decides."""
    return np.asarray(((features - point) ** 2).sum(axis=1).round(9))
