"""`ben-train select`."""

from __future__ import annotations

import json
from typing import Any

import click

from bigearthnet.commandline import echo
from trainer.commands.options import add_selection, select_from


@click.command()
@add_selection
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool, **options: Any) -> None:
    """Show what a selection holds, to try a condition before training on it.

    \b
    Examples:
      ben-train select STORE --split train --where "season = 'Summer'"
      ben-train select STORE --split train --fraction 0.01
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    selection = select_from(**options)
    counts = dict(zip(selection.classes, selection.labels.sum(0).astype(int).tolist(), strict=True))
    if as_json:
        echo(json.dumps({"patches": len(selection), "digest": selection.digest, "classes": counts}, indent=2))
        return
    echo(f"{len(selection):,} of {selection.store.n_patches:,} patches (digest {selection.digest})\n")
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        echo(f"{count:>9,}  {count / len(selection):6.1%}  {name}")
