"""Where predicted labels differ from true ones: between classes, and by patch. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.score.metrics import patch_cross_entropy


@dataclass(frozen=True)
class MixUp:
    """A class that was predicted in patches where another was missed."""

    missed: int
    """Its place in the list of classes."""
    predicted: int
    n_patches: int
    n_missed: int
    """Patches in which the one is missed, whatever else is predicted."""
    n_expected: float
    """Patches that chance would give, if missing the one had nothing to do with adding the other."""


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Mistakes among the patches that truly have a class (row) in another class (column)."""

    support: NDArray[np.int64]
    """Patches that have the class, shape (class,)."""
    added: NDArray[np.int64]
    """Patches in which the other class is predicted, but not true: shape (class, class)."""
    missed: NDArray[np.int64]
    """Patches in which the other class is true, but not predicted; on the diagonal the class itself."""
    mix_ups: tuple[MixUp, ...]
    """Those that are more frequent than by chance; the largest excess first."""

    def share(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Divide counts by the patches that have the class; NaN for a class that no patch has."""
        support = np.where(self.support > 0, self.support, np.nan)
        return np.asarray(counts / support[:, None])


def count_mistakes(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Mistakes:
    """Count which classes are added and missed beside which.

    Args:
        truth: Shape (patch, class).
        predicted: The same of what is predicted.
    """
    missed, added = truth & ~predicted, predicted & ~truth
    pairs, n_missed = _count_pairs(missed, added), missed.sum(0)
    expected = np.outer(n_missed, added.mean(0))
    excess = pairs - expected
    places = np.argsort(-excess, axis=None, kind="stable")[: np.count_nonzero(excess > 0)]
    rows, columns = np.unravel_index(places, pairs.shape)
    return Mistakes(
        support=truth.sum(0),
        added=_count_pairs(truth, added),
        missed=_count_pairs(truth, missed),
        mix_ups=tuple(
            MixUp(int(row), int(column), int(pairs[row, column]), int(n_missed[row]), float(expected[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ),
    )


def rank_patches(
    truth: NDArray[np.bool_], probabilities: NDArray[Any], n_patches: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Find the patches that a model knows best and worst, of each set of true labels at most one.

    Without this limit all of them would show the easiest and the hardest class.

    Args:
        truth: Shape (patch, class).
        probabilities: Shape (patch, class).
        n_patches: How many of each kind, at most; where there are fewer sets of labels, no patch is in both.

    Returns:
        Positions of the best, the best first; of the worst, the worst first; the cross-entropy of every patch.
    """
    losses = patch_cross_entropy(truth, probabilities)
    _, label_sets = np.unique(np.packbits(truth, axis=1), axis=0, return_inverse=True)
    ascending = np.argsort(losses, kind="stable")
    best = _take_first_of_each(ascending, label_sets.ravel())
    worst = _take_first_of_each(ascending[::-1], label_sets.ravel())
    worst = worst[: min(n_patches, (len(losses) + 1) // 2)]
    return best[~np.isin(best, worst)][:n_patches], worst, losses


def _take_first_of_each(order: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first = np.unique(groups[order], return_index=True)
    return order[np.sort(first)]


def _count_pairs(rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the patches that have both, shape (class, class); float32 is exact up to 16 million of them."""
    return np.rint(rows.astype(np.float32).T @ columns.astype(np.float32)).astype(np.int64)
