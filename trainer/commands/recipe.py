"""The options of a recipe, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from trainer.run.recipe import AUGMENTS, LOSSES, PRECISIONS, RESIZES, Recipe
from trainer.stream.order import ORDERS

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


class _NumberOrAll(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions
    """A number of devices, or all of them."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave `all` as it is."""
        return value if value == "all" else click.INT.convert(value, param, ctx)


add_devices = click.option(
    "--devices",
    type=_NumberOrAll(),
    default=1,
    show_default=True,
    help="Devices of this machine that share each batch: so many, or all GPUs that there are. Needs TensorFlow.",
)


def add_recipe(command: Callable[..., Any], without: str = "") -> Callable[..., Any]:
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
