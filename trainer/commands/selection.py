"""The options by which patches of a store are selected, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from trainer.source.store import Selection, open_store


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
