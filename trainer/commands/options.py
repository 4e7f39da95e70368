"""The options that several commands share, and how a command was called."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

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
    help="Devices of this machine that share each batch: so many, or all GPUs that there are. Needs TensorFlow.",
)


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


def add_recipe(command: Callable[..., Any], without: str = "") -> Callable[..., Any]:
    """Add an option for each field of a recipe, except perhaps one."""
    return add_fields(Recipe(), {name: text for name, text in _RECIPE_OPTIONS.items() if name != without})(command)


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
        ]
    ):
        command = option(command)
    return command


def select_from(store: str, split: str | None, where: str | None, recommended: bool, labels: str) -> Selection:
    """Open a store and select from it as these options say."""
    return open_store(store).select(split, where=where, recommended=recommended, labels=int(labels))


def quote_command() -> str:
    """Repeat what was typed, so that it can be typed again."""
    return f"ben-train {shlex.join(sys.argv[1:])}"
