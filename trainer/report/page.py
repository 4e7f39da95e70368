"""Write the report of a training: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bigearthnet.files import write_new
from bigearthnet.look.page import render_page
from bigearthnet.names import SYNTHETIC_NOTE
from bigearthnet.quantity import format_seconds
from trainer.report.mistakes import count_mistakes
from trainer.report.sections import (
    draw_learning,
    draw_precision,
    draw_reliability,
    list_baselines,
    list_classes,
    list_patches,
)
from trainer.report.sources import RunSources, read_sources
from trainer.report.words import comment
from trainer.run.folder import TIMES, RunFolder, describe_times
from trainer.run.recipe import Recipe
from trainer.score.metrics import THRESHOLD
from trainer.source.store import Store

_JOULES_PER_KWH: Final = 3.6e6


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    notes: tuple[str, ...]
    """What the report lacks, or says before its figures: a sentence each."""


def write_report(run: Path | str, store: Store | None = None, split: str | None = None) -> Report:
    """Write RUN/report.html, or write it anew.

    The same files give the same report, byte by byte.

    Args:
        run: Folder of the training, finished or not, measured or not.
        store: The one that it was trained on; None to look where it was then, and to do without pictures if it is not
            there.
        split: The split to show in detail, which must have been measured; None for test, else validation, else train.

    Raises:
        RunError: The folder holds no training, the split was not measured, or files do not belong together.
        ReadError: A patch cannot be read.
        RemoteError: A patch cannot be fetched.
        OutputError: The page cannot be written.
    """
    sources = read_sources(RunFolder(run), store, split)
    page = render_page("trainer", "report", _describe(sources))
    with write_new(sources.folder.report_path, overwrite=True) as temporary:
        temporary.write_text(page, "utf-8")
    return Report(sources.folder.report_path, sources.notes)


def _describe(sources: RunSources) -> dict[str, Any]:
    """Collect what the template shows."""
    record = sources.record
    values: dict[str, Any] = {
        "run": sources.folder.path,
        "record": record,
        "synthetic": SYNTHETIC_NOTE if record.provenance.get("synthetic") else None,
        "notes": sources.notes,
        "log": sources.log,
        "times": describe_times(sources.log[-1]) if sources.log else "",
        "effort": _describe_effort(sources.log, sources.result["devices"] if sources.result else ()),
        "result": sources.result,
        "learning": draw_learning(sources.log, sources.result),
        "evaluations": sources.evaluations,
        "split": sources.split,
        "recipe": _list_recipe(record.recipe),
    }
    if sources.split is None or sources.predictions is None:
        return values
    assert sources.predictions.truth is not None
    evaluation = sources.evaluations[sources.split]
    decision = "at_tuned" if "at_tuned" in evaluation else "at_0.5"
    overview, curves = draw_precision(sources.predictions, evaluation)
    best, worst, has_pictures = list_patches(sources)
    return values | {
        "evaluation": evaluation,
        "baselines": list_baselines(sources.predictions),
        "decision": decision,
        "thresholds": f"the threshold {THRESHOLD}"
        if decision == "at_0.5"
        else "thresholds tuned for F1 on validation, one a class",
        "classes": list_classes(evaluation, decision),
        "comments": comment(evaluation),
        "reliability": draw_reliability(sources.predictions),
        "overview": overview,
        "curves": curves,
        "mistakes": count_mistakes(sources.predictions.truth, sources.predictions.predicted),
        "best": best,
        "worst": worst,
        "has_pictures": has_pictures,
    }


def _describe_effort(log: Sequence[Mapping[str, float]], devices: Sequence[str]) -> str:
    """Say how long the epochs of a log took, on what, and what energy it drew."""
    seconds = sum(record[name] for record in log for name in TIMES)
    joules = sum(record["energy_j"] for record in log)
    told = [format_seconds(seconds)]
    if devices:
        told.append(f"on {', then '.join(devices)}")
    if joules:
        told.append(f"with {joules / _JOULES_PER_KWH:.3g} kWh")
    return " ".join(told)


def _list_recipe(recipe: Recipe) -> list[tuple[str, Any, bool]]:
    """List name and value of every option, and whether it is another than the default."""
    defaults = asdict(Recipe())
    return [
        (name, value, defaults[name] is not None and value != defaults[name]) for name, value in asdict(recipe).items()
    ]
