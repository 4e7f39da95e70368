"""Train the same recipe on several band sets, parts of the patches and seeds, and say what a difference is worth."""

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
from trainer.source.store import Store
from trainer.training.events import OnEvent
from trainer.training.fit import FitOptions, fit
from trainer.training.variants import Variant, check_variants

METRICS: Final = {
    "macro AP": ("ranking", "macro", "average_precision"),
    "micro AP": ("ranking", "micro", "average_precision"),
    "macro F1": ("at_tuned", "macro", "f1"),
    "micro F1": ("at_tuned", "micro", "f1"),
}
"""What is compared, and where it stands in an evaluation."""


SLICE_METRICS: Final = {
    "macro AP": "macro_average_precision",
    "micro AP": "micro_average_precision",
    "macro F1": "macro_f1",
    "micro F1": "micro_f1",
}
"""The same of a country or season."""


@dataclass(frozen=True)
class Member:
    """One training of a comparison is about to begin, or was finished before."""

    name: str
    """Of its variant."""
    seed: int
    number: int
    """From 1."""
    n_members: int


def compare(
    store: Store,
    path: Path | str,
    variants: Mapping[str, Variant],
    n_seeds: int,
    options: FitOptions | None = None,
    on_event: OnEvent = lambda _: None,
    announce: Callable[[Member], None] = lambda _: None,
) -> dict[str, Any]:
    """Train every variant with every seed, measure it on the test split, and compare them.

    A comparison that was killed goes on: trainings that are finished are not repeated.

    Args:
        store: Needs all three splits.
        path: Folder; PATH/NAME/SEED are runs, PATH/comparison.json is what is returned.
        variants: At least two by name, see `list_variants`; the first is what the others are compared with. Seeds
            count up from that of its recipe.
        n_seeds: At least two.
        options: How to work.
        on_event: Gets the events of every training.
        announce: Called before each training.

    Returns:
        What `summarize` says, and of what.

    Raises:
        OptionError: There is nothing to compare.
        SelectionError: The store lacks a split, or a variant has no patches.
        RunError: The folder holds a comparison of another kind.
    """
    check_variants(store, variants)
    if n_seeds < 2:
        raise OptionError(f"the spread over seeds needs 2 seeds at least, not {n_seeds}")
    first = next(iter(variants.values())).recipe.seed
    seeds = [first + number for number in range(n_seeds)]
    members = [(name, replace(variant.recipe, seed=seed)) for seed in seeds for name, variant in variants.items()]
    evaluations: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for number, (name, member) in enumerate(members, 1):
        announce(Member(name, member.seed, number, len(members)))
        folder = RunFolder(Path(path) / name / str(member.seed))
        if folder.read_result() is None:
            fit(store, folder.path, member, options, on_event)
        else:
            _check_member(folder, member)
        network = member.name_functions().get("network", "")
        threads = options.threads if options else None
        evaluations[name].append(evaluate(store, folder.path, network=network, threads=threads))
    comparison = {
        "store": store.name,
        "fingerprint": store.fingerprint,
        "split": "test",
        "seeds": seeds,
        "command": options.command if options else "",
        "members": {name: variant.recipe.describe_choice() for name, variant in variants.items()},
        **summarize(evaluations, {name: one.held_out for name, one in variants.items() if one.held_out}),
    }
    write_json(Path(path) / "comparison.json", comparison)
    with write_new(Path(path) / "comparison.png", overwrite=True) as temporary:
        plot_comparison(comparison, temporary)
    return comparison


def summarize(
    evaluations_of: Mapping[str, Sequence[Mapping[str, Any]]], held_out: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compare evaluations.

    Args:
        evaluations_of: For each member its evaluations, in the order of the same seeds; the first one is the base.
        held_out: The country or season that a member did not see, of those that did not see one.

    Returns:
        `metrics` and `classes` (average precision) with values by seed, mean and spread (standard deviation, n - 1) of
        each member; `verdicts` of every other one against the base, by metric; and of those that did not see
        something, `held_out`: the same verdicts over the test patches of that alone.
    """
    values = {
        member: {
            name: [one[part][mean][metric] for one in evaluations] for name, (part, mean, metric) in METRICS.items()
        }
        for member, evaluations in evaluations_of.items()
    }
    base, *others = evaluations_of
    return {
        "base": base,
        "metrics": {name: {member: _describe(values[member][name]) for member in evaluations_of} for name in METRICS},
        "classes": {
            name: {
                member: _describe([one["classes"][name]["average_precision"] for one in evaluations])
                for member, evaluations in evaluations_of.items()
            }
            for name in evaluations_of[base][0]["classes"]
        },
        "verdicts": {
            other: {name: judge(values[base][name], values[other][name]) for name in METRICS} for other in others
        },
        "held_out": {
            name: _judge_slice(evaluations_of[base], evaluations_of[name], value)
            for name, value in (held_out or {}).items()
        },
    }


def _judge_slice(base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], value: str) -> dict[str, Any]:
    """Judge the difference on the test patches of one country or season; nothing if there are none."""
    slices = [
        [found for slices in one["slices"].values() for name, found in slices.items() if name == value]
        for one in (*base, *other)
    ]
    if not all(slices):
        return {}
    judged = {}
    for metric, key in SLICE_METRICS.items():
        values = [found[key] for (found,) in slices]
        if None not in values:
            judged[metric] = judge(values[: len(base)], values[len(base) :])
    return judged


def judge(base: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Judge a difference by the spread of the seeds.

    The difference counts if every seed agrees on its sign and it exceeds the standard deviation over the seeds of both:
    with two or three seeds that is a rule of thumb and no test.

    Args:
        base: A metric by seed.
        other: The same of another member, in the order of the same seeds.
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
    """Draw each seed as a dot and each mean as a line, for every metric and member."""
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
    known, sources = folder.read_record().sources, member.hash_sources()
    differences += [f"another source of {name}" for name, hashed in sources.items() if known.get(name) != hashed]
    if differences:
        raise RunError(f"{folder.path}: was trained with {'; '.join(differences)}; choose another folder")


def _describe(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "by_seed": list(values),
        "mean": float(np.mean(known)) if known else None,
        "spread": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }
