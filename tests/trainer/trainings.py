"""Trainings of seconds: two bands of 60 m, a few dozen patches."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from trainer import Store
from trainer.run.recipe import Recipe
from trainer.training.events import OnEvent

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow's own, on import
    keras = pytest.importorskip("keras")
    from trainer.training.fit import FitOptions, fit

OWN_WARNINGS = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
"""TensorFlow's own, when NumPy looks at a variable."""

RECIPE = Recipe(bands="60m", epochs=3, batch_size=8, patience=0)
"""7 steps an epoch on the 60 training patches of the test store."""


class StoppedError(Exception):
    """Stands for the end of the process."""


def train(
    store: Store, path: Path, recipe: Recipe = RECIPE, on_event: OnEvent = lambda _: None, **options: Any
) -> dict[str, Any]:
    """Train without TensorBoard."""
    return fit(store, path, recipe, FitOptions(tensorboard=False, threads=2, **options), on_event)
