"""The commands that need Keras. It is imported when one runs, since that takes seconds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from tqdm import tqdm

from trainer.order import ORDERS
from trainer.recipe import AUGMENTS, LOSSES, PRECISIONS, RESIZES, Recipe
from trainer.run import RunFolder
from trainer.store import open_store

if TYPE_CHECKING:
    from trainer.fit import EpochEnded, Started, Stepped

_DEFAULTS = Recipe()
_RECIPE_OPTIONS = {
    "network": "small, which learns on a CPU, or a network of keras.applications by name, such as ResNet50.",
    "bands": "Bands or sets of bands, joined by commas or +: rgb, 10m, 20m, 60m, s2, s1, all, B08.",
    "labels": "Number of classes.",
    "epochs": "Epochs at most.",
    "batch_size": "Patches of a step.  [default: 512, or less for a small store]",
    "learning_rate": "Highest learning rate; it falls to a tenth on a cosine.",
    "warmup_steps": "Steps to reach it.  [default: 1000, or less for a small store]",
    "weight_decay": "Weight decay of AdamW.",
    "dropout": "Dropout before the last layer.",
    "loss": "Binary cross-entropy or focal loss.",
    "pos_weight": "How much more a present class counts than an absent one, or balanced.",
    "augment": "Random flips, or all eight symmetries of the square.",
    "resize": "How 20 m and 60 m bands are brought to 10 m.",
    "precision": "Mixed precision is for GPUs.",
    "patience": "Stop after so many epochs without a better validation macro AP; 0 never stops.",
    "order": "global shuffles all patches; window some shards at a time, for remote stores and spinning disks.",
    "seed": "Decides weights, order, augmentation and dropout.",
}
_CHOICES = {
    "labels": ("19", "43"),
    "loss": LOSSES,
    "augment": AUGMENTS,
    "resize": RESIZES,
    "precision": PRECISIONS,
    "order": ORDERS,
}


def _add_recipe(command: Callable[..., Any], without: str = "") -> Callable[..., Any]:
    """Add an option for each field of a recipe, except perhaps one."""
    for field in reversed(fields(Recipe)):
        name, default = field.name, getattr(_DEFAULTS, field.name)
        if name == without:
            continue
        if name == "deterministic":
            text = "Give the same run again on the same machine, or let the device be faster."
            option = click.option("--deterministic/--fast", default=default, show_default=True, help=text)
        else:
            shown: dict[str, Any] = {"type": int} if default is None else {"default": default, "show_default": True}
            if name in _CHOICES:
                shown |= {"type": click.Choice(_CHOICES[name]), "default": str(default)}
            option = click.option(f"--{name.replace('_', '-')}", **shown, help=_RECIPE_OPTIONS[name])
        command = option(command)
    return command


@click.command()
@click.argument("store")
@click.argument("run", type=click.Path(path_type=Path))
@_add_recipe
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
@click.option(
    "--checkpoint-steps", default=250, show_default=True, help="Steps between two saved states within an epoch."
)
@click.option("--tensorboard/--no-tensorboard", default=True, show_default=True, help="Write RUN/tensorboard.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def fit(
    store: str,
    run: Path,
    *,
    labels: str,
    threads: int | None,
    checkpoint_steps: int,
    tensorboard: bool,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Train a model from STORE in the folder RUN; killed, the same command goes on exactly.

    Needs the splits train and validation. Keeps the model of the epoch with the best macro average precision on
    validation in RUN/best.keras.

    \b
    Example:
      python -m trainer fit STORE RUN --network ResNet50 --bands 10m,20m,s1
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    opened, chosen = open_store(store), Recipe(labels=int(labels), **recipe)
    _quieten()
    from trainer.fit import FitOptions, fit  # noqa: PLC0415

    options = FitOptions(
        threads=threads,
        checkpoint_steps=checkpoint_steps,
        tensorboard=tensorboard,
        command=f"python -m trainer {' '.join(sys.argv[1:])}",
    )
    with _FitDisplay() as display:
        result = fit(opened, run, chosen, options, display)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    found = result["validation"]
    click.echo(
        f"Validation macro AP  {found['val_macro_ap']:.4f}  (epoch {result['best_epoch']} of {result['epochs']})"
    )
    click.echo(f"Label frequency      {result['baseline_macro_ap']:.4f}  (what a constant prediction reaches)")
    click.echo(f"Model                {run / 'best.keras'}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="The split to measure on: test, validation or train.")
@click.option("--store", help="Where the store is now.  [default: where it was]")
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
@click.option("--json", "as_json", is_flag=True, help="Print all metrics as JSON.")
def evaluate(run: Path, *, split: str, store: str | None, threads: int | None, as_json: bool) -> None:
    """Measure the best model of a training on a whole split.

    Writes all metrics to RUN/evaluation/SPLIT.json and every patch's probabilities to RUN/evaluation/SPLIT.parquet.
    Thresholds are 0.5, and the best for F1 on validation.

    \b
    Example:
      python -m trainer evaluate RUN --split test
    """  # noqa: D301 - see above
    opened = open_store(store or RunFolder(run).read_record().store)
    _quieten()
    from trainer.evaluate import evaluate, locate_evaluation  # noqa: PLC0415

    with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = evaluate(opened, run, split, threads=threads, report=bar.update)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo("\n".join(_describe_evaluation(found)))
    files = locate_evaluation(run, split)
    click.echo(f"\nWritten: {files.metrics}, {files.predictions}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--split", help="Only this split: train, validation or test.  [default: all patches]")
@click.option("--where", metavar="SQL", help="Only patches for which this condition on patches.parquet holds.")
@click.option(
    "--recommended/--all",
    default=False,
    show_default=True,
    help="Leave out patches with snow, cloud or shadow or without a 19-class label, or take them too.",
)
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
def predict(
    model: Path, store: str, out: Path, *, split: str | None, where: str | None, recommended: bool, threads: int | None
) -> None:
    """Predict the patches of any STORE with the bands of MODEL, a .keras file or a RUN, into a Parquet table OUT.

    \b
    Example:
      python -m trainer predict RUN STORE predictions.parquet --where "country = 'Finland'"
    """  # noqa: D301 - see above
    opened = open_store(store)
    _quieten()
    from trainer.predict import predict_store  # noqa: PLC0415

    path = RunFolder(model).model_path if model.is_dir() else model
    choice: dict[str, Any] = {"split": split, "where": where, "recommended": recommended}
    with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = predict_store(path, opened, out, **choice, threads=threads, report=bar.update)
    n_patches = len(found.selection)
    click.echo(f"{n_patches:,} patches, {found.predicted.sum() / n_patches:.2f} labels predicted for each")
    if found.truth is None:
        click.echo("The store has other classes than the model, so the table has no true labels")
    click.echo(f"Written: {out}")


@click.command()
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--bands",
    multiple=True,
    required=True,
    help="Bands or sets of bands of one member, joined by commas or +; give it twice or more. The first is the base.",
)
@click.option("--seeds", default=3, show_default=True, help="Trainings of each member; the seeds count up from --seed.")
@partial(_add_recipe, without="bands")
@click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(
    store: str,
    out: Path,
    *,
    bands: tuple[str, ...],
    seeds: int,
    labels: str,
    threads: int | None,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Train the same recipe on several band sets and seeds, and say whether a difference exceeds the seeds' spread.

    The runs are OUT/BANDS/SEED; OUT/comparison.json and .png are the result. Killed, the same command goes on.

    \b
    Example:
      python -m trainer compare STORE OUT --bands rgb --bands s2 --bands s2+s1 --seeds 3
    """  # noqa: D301 - see above
    opened, chosen = open_store(store), Recipe(labels=int(labels), **recipe)
    _quieten()
    from trainer.compare import compare  # noqa: PLC0415
    from trainer.fit import FitOptions  # noqa: PLC0415

    options = FitOptions(threads=threads, command=f"python -m trainer {' '.join(sys.argv[1:])}")
    with _FitDisplay() as display:
        found = compare(
            opened,
            out,
            chosen,
            bands,
            seeds,
            options,
            display,
            lambda one: click.echo(f"\n[{one.number}/{one.n_members}] {one.bands}, seed {one.seed}", err=True),
        )
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_describe_comparison(found)))
    if not as_json:
        click.echo(f"\nWritten: {out / 'comparison.json'}, {out / 'comparison.png'}")


def _describe_comparison(found: dict[str, Any]) -> list[str]:
    """Describe a comparison in lines."""
    sets = list(next(iter(found["metrics"].values())))
    lines = [
        f"Split {found['split']}, mean and spread (standard deviation) over {len(found['seeds'])} seeds",
        "",
        "".join(f"{bands:>18}" for bands in sets),
    ]
    for name, values in {**found["metrics"], **found["classes"]}.items():
        cells = [
            "-" if values[bands]["mean"] is None else f"{values[bands]['mean']:.4f} ±{values[bands]['spread']:.4f}"
            for bands in sets
        ]
        lines.append(f"{''.join(f'{cell:>18}' for cell in cells)}  {name}")
    lines.append("")
    for other, verdicts in found["verdicts"].items():
        for name, verdict in verdicts.items():
            difference = f"{verdict['difference']:+.4f} ±{verdict['spread']:.4f}"
            lines.append(f"{other} against {found['base']}, {name}: {difference}, {verdict['verdict']}")
    return lines


def _describe_evaluation(found: dict[str, Any]) -> list[str]:
    """Describe an evaluation in lines."""
    lines = [f"{found['patches']:,} patches of {found['split']}", "", f"{'':32}{'macro':>9}{'micro':>9}{'sample':>9}"]
    for title in ("ranking", "at_0.5", "at_tuned"):
        means = found.get(title, {})
        suffix = "" if title == "ranking" else f" {title.replace('_', ' ')}"
        for metric in dict.fromkeys(metric for values in means.values() for metric in values):
            values = [means[mean].get(metric) for mean in ("macro", "micro", "sample")]
            lines.append(f"{metric.replace('_', ' ') + suffix:32}{''.join(_format_score(value) for value in values)}")
    lines += ["", f"{'average precision':>18}{'patches':>10}  class"]
    for name, values in sorted(found["classes"].items(), key=lambda item: -item[1]["support"]):
        lines.append(f"{_format_score(values['average_precision']):>18}{values['support']:>10,.0f}  {name}")
    if found["absent_classes"]:
        lines += ["", f"In no patch, so left out of the macro means: {'; '.join(found['absent_classes'])}"]
    return lines


def _format_score(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>9}"


class _FitDisplay:
    """Shows a training on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._n_epochs = 0
        self._n_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def __call__(self, event: Started | Stepped | EpochEnded) -> None:
        from trainer.fit import Started, Stepped  # noqa: PLC0415 - loaded long since

        if isinstance(event, Started):
            self._show_start(event)
        elif isinstance(event, Stepped):
            self._show_step(event)
        else:
            self._show_epoch(event)

    def _show_start(self, event: Started) -> None:
        recipe = event.recipe
        self._n_epochs, self._n_steps = recipe.epochs, event.n_steps
        lines = [
            f"Network    {recipe.network}, {event.n_weights:,} weights, bands {recipe.bands}, {recipe.labels} classes",
            f"Patches    {event.n_train:,} train, {event.n_validation:,} validation; batches of {recipe.batch_size}, "
            f"{event.n_steps:,} an epoch, {recipe.warmup_steps:,} to warm up",
            f"Baseline   validation macro AP {event.baseline:.4f} (label frequency)",
        ]
        if event.epoch or event.step:
            lines.append(f"Goes on    in epoch {event.epoch + 1} after step {event.step} of {event.n_steps}")
        click.echo("\n".join(lines), err=True)

    def _show_step(self, event: Stepped) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=self._n_steps,
                initial=event.step - 1,
                desc=f"Epoch {event.epoch + 1}/{self._n_epochs}",
                unit="step",
                leave=False,
                disable=not sys.stderr.isatty(),
            )
        self._bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
        self._bar.update()

    def _show_epoch(self, event: EpochEnded) -> None:
        self._close_bar()
        found = event.record
        click.echo(
            f"Epoch {found['epoch']:.0f}/{self._n_epochs}  loss {found['loss']:.4f}  val_loss {found['val_loss']:.4f}  "
            f"val_macro_ap {found['val_macro_ap']:.4f}{' *' if event.is_best else '  '}  "
            f"{found['patches_per_s']:,.0f} patches/s, {found['data_wait_share']:.1%} waiting for data",
            err=True,
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _quieten() -> None:
    """Keep TensorFlow's notes on its own build out of the output; its errors stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
