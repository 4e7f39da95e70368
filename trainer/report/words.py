"""What a careful colleague would say of an evaluation, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bigearthnet.quantity import format_count

_FEW: Final = 50
"""Patches of a class, below which its scores are said to be uncertain whatever the interval."""
_WIDE: Final = 0.2
"""Width of an interval of average precision from which a class is too uncertain to rank models by."""
_FLOOD: Final = 2.0
"""Times as many patches predicted as there are."""
_UNSURE: Final = 0.02
"""Calibration error from which probabilities should not be taken at their word."""


def comment(evaluation: Mapping[str, Any]) -> list[str]:
    """Say what to beware of in the evaluation of one split."""
    decision = "at_tuned" if "at_tuned" in evaluation else "at_0.5"
    classes = [{"name": name, **values, **values[decision]} for name, values in evaluation["classes"].items()]
    sentences = [*_doubt_classes(evaluation, classes), *_name_floods(classes)]
    if calibration := evaluation.get("calibration"):
        sentences.append(_judge_calibration(calibration))
    return sentences


def _doubt_classes(evaluation: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]) -> list[str]:
    intervals = evaluation.get("intervals", {}).get("classes", {})
    doubted = []
    for row in sorted(classes, key=lambda row: row["support"]):
        low, high = intervals.get(row["name"], (None, None))
        if not row["support"] or low is None or high is None:
            continue
        if row["support"] < _FEW or high - low > _WIDE:
            n_patches = format_count(int(row["support"]), "patch")
            doubted.append(f"{row['name']} ({n_patches}: {row['average_precision']:.2f}, from {low:.2f} to {high:.2f})")
    if not doubted:
        return []
    return [
        "Too uncertain to compare models by, with average precision and where 95 of 100 draws of the patches have it: "
        f"{'; '.join(doubted)}. The macro mean counts each of them as much as a common class."
    ]


def _name_floods(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    floods = [
        f"{row['name']} ({times:.1f} times as often as it is there, threshold {row['threshold']:.2f})"
        for row in classes
        if row["precision"] and row["recall"] and (times := row["recall"] / row["precision"]) >= _FLOOD
    ]
    why = "Thresholds that flood, since the best F1 of a rare class is bought with false alarms"
    return [f"{why}: {'; '.join(floods)}."] if floods else []


def _judge_calibration(calibration: Mapping[str, float]) -> str:
    error = calibration["error"]
    verdict = "can be taken at their word" if error < _UNSURE else "should not be taken at their word"
    sentence = f"Probabilities {verdict}: they miss what comes true by {error:.3f} in the mean (calibration error)."
    if "temperature" not in calibration:
        return sentence
    temperature, mended = calibration["temperature"], calibration["error_at_temperature"]
    sure = "too sure of itself" if temperature > 1 else "not sure enough"
    divided = f"with all logits divided by {temperature:.2f}, as fitted on validation, it is {mended:.3f}"
    return f"{sentence} The model is {sure}: {divided}." if mended < error else f"{sentence} No better {divided}."
