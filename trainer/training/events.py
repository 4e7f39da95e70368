"""What a training says while it runs. No framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bigearthnet.lock import Watching
from trainer.run.recipe import Recipe


@dataclass(frozen=True)
class TrainingStarted:
    """The training begins, or goes on."""

    recipe: Recipe
    n_train: int
    n_validation: int
    n_weights: int
    n_steps: int
    """Of an epoch."""
    baseline: float
    """Macro average precision on validation of a constant prediction: the mean label frequency."""
    n_devices: int
    """Share each batch."""
    named_devices: str
    """How many of what they are."""
    digest: str
    """Of the training patches."""
    epoch: int
    step: int
    """Where it begins: 0, 0 unless it goes on."""


@dataclass(frozen=True)
class StepTrained:
    """A step was trained."""

    epoch: int
    step: int
    """Steps of the epoch done."""
    loss: float
    """Mean over these."""


@dataclass(frozen=True)
class EpochEnded:
    """An epoch was trained and validated."""

    record: dict[str, float]
    """What the log says of it."""
    is_best: bool
    """If so, its model is written while training goes on; it is there when the next epoch ends, or training."""


OnEvent = Callable[[Watching | TrainingStarted | StepTrained | EpochEnded], None]
