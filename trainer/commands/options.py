"""The options that several commands share, and how a command was called."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from bigearthnet.labels import split_names
from trainer.run.recipe import AUGMENTS, PIXELS, PRECISIONS, RESIZES, Recipe
from trainer.source.read import CHECKS
from trainer.source.store import Selection, open_store
from trainer.stream.options import TURNS
from trainer.stream.order import ORDERS

_RECIPE_OPTIONS = {
    "network": "small, which learns on a CPU, a network of keras.applications by name, such as ResNet50, or your own "
    "as module:function, which turns pixels (patch, row, col, band) into features (patch, feature).",
    "weights": "Begin with these weights: of a RUN, a .keras file, an .h5 file of keras.applications, or imagenet. The "
    "first layer is fitted to the bands; the last one begins anew unless the classes are the same.",
    "freeze": "Layers that keep their weights, by name, joined by commas, with * for any letters: '*' for all but the "
    "last. Batch normalisation among them uses its statistics as they are.",
    "drop_path": "How often the last residual block is skipped for a patch (reBEN: 0.15), earlier ones less.",
    "bands": "Bands or sets of bands, joined by commas or +: rgb, 10m, 20m, 60m, s2, s1, all, B08.",
    "labels": "Number of classes.",
    "classes": "Only these of them, joined by semicolons.  [default: all]",
    "target": "A column that names the classes of each patch instead: lists of text, or text with semicolons between.",
    "join": "CSV or Parquet file of your own columns by patch_id, for --target and conditions.",
    "train_where": "Train only on patches for which this DuckDB condition on the columns of the table, and of the file "
    "joined, holds.",
    "validation_where": "Validate only on patches for which this condition holds.",
    "fraction": "Train on this share of the patches, drawn by --seed, with its share of every class; 0.01 is in 0.05.",
    "epochs": "Epochs at most.",
    "batch_size": "Patches of a step.  [default: 512, or less for a small store]",
    "learning_rate": "Highest learning rate; it falls to a tenth on a cosine.",
    "warmup_steps": "Steps to reach it.  [default: 1000, or less for a small store]",
    "weight_decay": "Weight decay of AdamW.",
    "dropout": "Dropout before the last layer.",
    "loss": "bce (binary cross-entropy), focal, or your own as module:function, which turns labels and logits (patch, "
    "class) into the loss of each patch.",
    "pos_weight": "How much more a present class counts than an absent one, or balanced.",
    "augment": "Random flips, or all eight symmetries of the square.",
    "resize": "How 20 m and 60 m bands are brought to 10 m.",
    "precision": "Mixed precision is for GPUs.",
    "patience": "Stop after so many epochs without a better validation macro AP; 0 never stops.",
    "order": "global shuffles all patches; window some shards at a time, for remote stores and spinning disks.",
    "seed": "Decides weights, order, augmentation and dropout.",
    "deterministic": "Give the same run again on the same machine, or let the device be faster.",
}
_CHOICES = {
    "labels": ("19", "43"),
    "augment": AUGMENTS,
    "resize": RESIZES,
    "precision": PRECISIONS,
    "order": ORDERS,
    "turns": TURNS,
    "check": CHECKS,
}
_SELECTING = ("store", "split", "where", "recommended", "labels", "classes", "target", "join", "fraction", "seed")
_SPELLINGS = {"deterministic": "--deterministic/--fast"}


class _NumberOrAll(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions
    """A number of devices, or all of them."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave `all` as it is."""
        return value if value == "all" else click.INT.convert(value, param, ctx)


add_threads = click.option("--threads", type=int, help="Threads that decode.  [default: one a core, up to 8]")
add_network = click.option(
    "--network",
    metavar="MODULE:FUNCTION",
    default="",
    help="The network of the training, if it has layers of your own: its module is imported. What a run or a model "
    "itself names is not.",
)


def add_plain(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a plain Keras model takes and gives."""
    for option in reversed(
        [
            click.option("--bands", help="Of a plain Keras model: its bands or sets of bands, in its order."),
            click.option(
                "--classes",
                help="Of a plain Keras model: 19 or 43 for the lists of BigEarthNet, or names joined by semicolons, in "
                "its order.",
            ),
            click.option(
                "--pixels",
                type=click.Choice(PIXELS),
                help="Of a plain Keras model: what it takes. stored: numbers as stored; reflectance: those of "
                "Sentinel-2 divided by 10,000; standardised: with mean and deviation of the store's bands.",
            ),
        ]
    ):
        command = option(command)
    return command


def take_plain(bands: str | None, classes: str | None, pixels: Any) -> Mapping[str, str] | None:
    """Return the options of a plain Keras model, all of which must be given, or None if none is."""
    given = {"bands": bands, "classes": classes, "pixels": pixels}
    if missing := [name for name, value in given.items() if value is None]:
        if len(missing) < len(given):
            raise click.UsageError(f"a plain Keras model needs --{' and --'.join(missing)} too")
        return None
    return {name: value for name, value in given.items() if value is not None}


add_devices = click.option(
    "--devices",
    type=_NumberOrAll(),
    default=1,
    show_default=True,
    help="Devices of this machine that share each batch: so many, or all GPUs that there are. Needs KERAS_BACKEND=jax.",
)


def add_hosts(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which of several processes this is."""
    for option in (
        click.option("--ranks", type=int, metavar="N", help="How many there are; 1 for a training alone under srun."),
        click.option("--rank", type=int, metavar="R", help="Which of them this is, from 0."),
        click.option(
            "--coordinator",
            metavar="HOST:PORT",
            help="Train in several processes, one a GPU, with KERAS_BACKEND=jax: where the first listens. Under srun "
            "or mpirun, nothing of this need be said.",
        ),
    ):
        command = option(command)
    return command


def add_fields(record: Any, texts: dict[str, str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each field of a record that there is a text for; what it is in the record is the default."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, text in reversed(texts.items()):
            default = getattr(record, name)
            shown: dict[str, Any] = (
                {"type": int} if default is None else {"default": default, "show_default": default != ""}
            )
            if name in _CHOICES:
                shown |= {"type": click.Choice(_CHOICES[name]), "default": str(default)}
            command = click.option(_SPELLINGS.get(name, f"--{name.replace('_', '-')}"), **shown, help=text)(command)
        return command

    return add


def add_recipe(command: Callable[..., Any], without: Sequence[str] = ()) -> Callable[..., Any]:
    """Add an option for each field of a recipe, except perhaps some."""
    return add_fields(Recipe(), {name: text for name, text in _RECIPE_OPTIONS.items() if name not in without})(command)


def add_selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which patches are selected."""
    for option in reversed(
        [
            click.argument("store"),
            click.option(
                "--split", help="Only this official split: train, validation or test.  [default: all patches]"
            ),
            click.option(
                "--where",
                metavar="SQL",
                help="Only patches for which this DuckDB condition on the columns of patches.parquet holds, such as "
                "\"country = 'Finland' and not list_contains(labels_19, 'Marine waters')\".",
            ),
            click.option(
                "--recommended/--all",
                default=True,
                show_default=True,
                help="Leave out patches with snow, cloud or shadow or without a 19-class label, or take them too.",
            ),
            click.option(
                "--labels", type=click.Choice(["19", "43"]), default="19", show_default=True, help="Number of classes."
            ),
            *(
                click.option(f"--{name}", default="", help=_RECIPE_OPTIONS[name])
                for name in ("classes", "target", "join")
            ),
            click.option(
                "--fraction",
                default=1.0,
                show_default=True,
                help="Only this share of the patches, with its share of every class; a smaller one is inside a larger.",
            ),
            click.option("--seed", default=0, show_default=True, help="Decides which patches make the fraction."),
        ]
    ):
        command = option(command)
    return command


def select_from(store: str, labels: str, classes: str, join: str, **choice: Any) -> Selection:
    """Open a store and select from it as these options say."""
    return open_store(store).select(labels=int(labels), classes=split_names(classes), join=join or None, **choice)


def take_choice(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of all options those by which patches are selected."""
    return {name: options.pop(name) for name in _SELECTING}


def quote_command() -> str:
    """Repeat what was typed, so that it can be typed again."""
    return f"ben-train {shlex.join(sys.argv[1:])}"
