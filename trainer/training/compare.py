"""Train the same recipe on several band sets and seeds, and say what the difference is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from bigearthnet.errors import OptionError, RunError
from bigearthnet.files import write_json, write_new
from trainer.run.folder import RunFolder
from trainer.run.recipe import Recipe
from trainer.score.evaluate import evaluate
from trainer.score.match import select_with_sensors
from trainer.source.store import Store
from trainer.training.events import OnEvent
from trainer.training.fit import FitOptions, fit

METRICS: Final = {
    "macro AP": ("ranking", "macro", "average_precision"),
    "micro AP": ("ranking", "micro", "average_precision"),
    "macro F1": ("at_tuned", "macro", "f1"),
    "micro F1": ("at_tuned", "micro", "f1"),
}
"""What is compared, and where it stands in an evaluation."""


@dataclass(frozen=True)
class Member:
    """One training of a comparison is about to begin, or was finished before."""

    bands: str
    seed: int
    number: int
    """From 1."""
    n_members: int


def compare(
    store: Store,
    path: Path | str,
    recipe: Recipe,
    band_sets: Sequence[str],
    n_seeds: int,
    options: FitOptions | None = None,
    on_event: OnEvent = lambda _: None,
    announce: Callable[[Member], None] = lambda _: None,
) -> dict[str, Any]:
    """Train and measure on the test split every band set with every seed, and compare them.

    A comparison that was killed goes on: trainings that are finished are not repeated.

    Args:
        store: Needs all three splits.
        path: Folder; PATH/BANDS/SEED are runs, PATH/comparison.json is what is returned.
        recipe: Its bands and seed are replaced; seeds count up from its own.
        band_sets: At least two, as in `Recipe.bands`; the first is what the others are compared with.
        n_seeds: At least two.
        options: How to work.
        on_event: Gets the events of every training.
        announce: Called before each training.

    Returns:
        What `summarize` says, and of what.

    Raises:
        OptionError: There is nothing to compare.
        SelectionError: The store lacks a split.
        RunError: The folder holds a comparison of another kind.
    """
    arrays = [store.resolve_bands(bands) for bands in band_sets]
    if len(arrays) < 2 or any(one in arrays[:place] for place, one in enumerate(arrays)):
        raise OptionError(f"give two different band sets or more, not {', '.join(band_sets) or 'none'}")
    if n_seeds < 2:
        raise OptionError(f"the spread over seeds needs 2 seeds at least, not {n_seeds}")
    for bands in arrays:  # before hours go by
        for split in ("train", "validation", "test"):
            select_with_sensors(store, split, recipe.labels, bands)
    seeds = [recipe.seed + number for number in range(n_seeds)]
    members = [replace(recipe, bands=bands, seed=seed) for seed in seeds for bands in band_sets]
    evaluations: dict[str, list[dict[str, Any]]] = {bands: [] for bands in band_sets}
    for number, member in enumerate(members, 1):
        announce(Member(member.bands, member.seed, number, len(members)))
        folder = RunFolder(Path(path) / member.bands / str(member.seed))
        if folder.read_result() is None:
            fit(store, folder.path, member, options, on_event)
        else:
            _check_member(folder, member)
        evaluations[member.bands].append(evaluate(store, folder.path, threads=options.threads if options else None))
    comparison = {
        "store": store.name,
        "fingerprint": store.fingerprint,
        "split": "test",
        "seeds": seeds,
        "command": options.command if options else "",
        **summarize(evaluations),
    }
    write_json(Path(path) / "comparison.json", comparison)
    with write_new(Path(path) / "comparison.png", overwrite=True) as temporary:
        plot_comparison(comparison, temporary)
    return comparison


def summarize(evaluations_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Compare evaluations.

    Args:
        evaluations_of: For each band set its evaluations, in the order of the same seeds; the first set is the base.

    Returns:
        `metrics` and `classes` (average precision) with values by seed, mean and spread (standard deviation, n - 1) of
        each band set; `verdicts` of every other set against the base, by metric.
    """
    values = {
        bands: {
            name: [one[part][mean][metric] for one in evaluations] for name, (part, mean, metric) in METRICS.items()
        }
        for bands, evaluations in evaluations_of.items()
    }
    base, *others = evaluations_of
    return {
        "base": base,
        "metrics": {name: {bands: _describe(values[bands][name]) for bands in evaluations_of} for name in METRICS},
        "classes": {
            name: {
                bands: _describe([one["classes"][name]["average_precision"] for one in evaluations])
                for bands, evaluations in evaluations_of.items()
            }
            for name in evaluations_of[base][0]["classes"]
        },
        "verdicts": {
            other: {name: judge(values[base][name], values[other][name]) for name in METRICS} for other in others
        },
    }


def judge(base: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Judge a difference by the spread of the seeds.

    The difference counts if every seed agrees on its sign and it exceeds the standard deviation over the seeds of both
    band sets: with two or three seeds that is a rule of thumb and no test.

    Args:
        base: A metric by seed.
        other: The same of another band set, in the order of the same seeds.
    """
    differences = np.subtract(other, base)
    mean = float(differences.mean())
    spread = max(float(np.std(values, ddof=1)) for values in (base, other))
    agreed = bool((differences > 0).all() or (differences < 0).all())
    exceeds = agreed and abs(mean) > spread
    return {
        "difference": mean,
        "spread": spread,
        "verdict": ("better" if mean > 0 else "worse") if exceeds else "no difference beyond the spread of the seeds",
    }


def plot_comparison(comparison: Mapping[str, Any], path: Path) -> None:
    """Draw each seed as a dot and each mean as a line, for every metric and band set."""
    metrics = comparison["metrics"]
    figure = Figure(figsize=(2.2 * len(metrics), 3.6), layout="constrained")
    for axes, (name, sets) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True):
        for place, values in enumerate(sets.values()):
            axes.plot([place] * len(values["by_seed"]), values["by_seed"], "o", alpha=0.6, color=f"C{place}")
            axes.hlines(values["mean"], place - 0.3, place + 0.3, color=f"C{place}")
        axes.set_xticks(range(len(sets)), list(sets), rotation=30, ha="right")
        axes.set_xlim(-0.6, len(sets) - 0.4)
        axes.set_title(name, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{comparison['split']} split, {len(comparison['seeds'])} seeds", fontsize=10)
    figure.savefig(path, dpi=150)


def _check_member(folder: RunFolder, member: Recipe) -> None:
    """Check that a finished run is of the recipe that is wanted; sizes may have been filled in."""
    recipe = folder.read_record().recipe
    wanted = replace(
        member,
        batch_size=member.batch_size or recipe.batch_size,
        warmup_steps=recipe.warmup_steps if member.warmup_steps is None else member.warmup_steps,
    )
    differences = wanted.list_differences(vars(recipe))
    if differences:
        raise RunError(f"{folder.path}: was trained with {'; '.join(differences)}; choose another folder")


def _describe(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "by_seed": list(values),
        "mean": float(np.mean(known)) if known else None,
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }
