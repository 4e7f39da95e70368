"""What the JSON of an evaluation holds, as `trainer.score.evaluate` writes it and a report reads it."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

Score = float | None
"""None where it is not defined."""


class Ranking(Struct):
    """What needs no threshold."""

    average_precision: Score
    auroc: Score = None


class Decision(Struct):
    """What needs predicted labels."""

    f1: Score
    f2: Score
    precision: Score
    recall: Score
    subset_accuracy: Score = None


class ClassDecision(Decision, kw_only=True):
    """Likewise, of one class."""

    threshold: float


class RankingMeans(Struct):
    """By each mean."""

    macro: Ranking
    micro: Ranking
    sample: Ranking


class DecisionMeans(Struct):
    """By each mean."""

    macro: Decision
    micro: Decision
    sample: Decision


class ClassScores(Struct):
    """Of one class."""

    support: Annotated[float, Meta(ge=0)]
    average_precision: Score
    auroc: Score
    at_half: ClassDecision = field(name="at_0.5")
    at_tuned: ClassDecision | UnsetType = UNSET


class Slice(Struct):
    """Of the patches of one country or season."""

    patches: int
    classes_present: int
    macro_average_precision: Score
    micro_average_precision: Score
    macro_f1: Score
    micro_f1: Score


class Intervals(Struct):
    """Lower and upper bound of average precision in 95 of 100 draws of patches."""

    macro: tuple[Score, Score]
    classes: dict[str, tuple[Score, Score]]


class Calibration(Struct):
    """How far probabilities can be taken at their word."""

    error: Annotated[float, Meta(ge=0, le=1)]
    temperature: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    """Fitted on validation; of other splits only."""
    error_at_temperature: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class Evaluation(Struct):
    """Of one split."""

    run: str
    split: str
    patches: Annotated[int, Meta(ge=1)]
    patches_without_label: int
    absent_classes: list[str]
    ranking: RankingMeans
    classes: dict[str, ClassScores]
    slices: dict[str, dict[str, Slice]]
    at_half: DecisionMeans = field(name="at_0.5")
    at_tuned: DecisionMeans | UnsetType = UNSET
    intervals: Intervals | UnsetType = UNSET
    calibration: Calibration | UnsetType = UNSET
    model: str | None = None
