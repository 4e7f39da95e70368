"""`ben-train compare`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from bigearthnet.commandline import echo
from bigearthnet.errors import OptionError
from trainer.commands.backend import load_backend
from trainer.commands.display import FitDisplay
from trainer.commands.options import add_devices, add_recipe, add_threads, quote_command
from trainer.model.hosts import find_place
from trainer.run.recipe import Recipe
from trainer.source.store import open_store


@click.command()
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--bands",
    multiple=True,
    help="Bands or sets of bands of one member, joined by commas or +; the first is the base.  [default: 10m,20m]",
)
@click.option(
    "--fraction",
    multiple=True,
    type=float,
    help="Share of the training patches of one member: 0.01 lies in 0.05.  [default: 1]",
)
@click.option(
    "--train-where", multiple=True, metavar="SQL", help="One member trains on patches for which this condition holds."
)
@click.option(
    "--without",
    type=click.Choice(["country", "season"]),
    help="For each country, or season, a member that does not see it, measured against one that sees all.",
)
@click.option("--seeds", default=3, show_default=True, help="Trainings of each member; the seeds count up from --seed.")
@partial(add_recipe, without=("bands", "fraction", "train_where"))
@add_devices
@add_threads
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(
    store: str,
    out: Path,
    *,
    bands: tuple[str, ...],
    fraction: tuple[float, ...],
    train_where: tuple[str, ...],
    without: Literal["country", "season"] | None,
    seeds: int,
    labels: str,
    devices: int | Literal["all"],
    threads: int | None,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Train the same recipe on several band sets or patches and seeds, and say whether a difference exceeds the spread.

    --bands, --fraction and --train-where may be given several times: every combination is a member, and the first one
    is the base. The runs are OUT/MEMBER/SEED; OUT/comparison.json and .png are the result. Killed, the same command
    goes on.

    \b
    Examples:
      ben-train compare STORE OUT --bands rgb --bands s2 --bands s2+s1 --seeds 3
      ben-train compare STORE OUT --fraction 0.01 --fraction 0.1 --fraction 1
      ben-train compare STORE OUT --without country
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    opened, chosen = open_store(store), Recipe(labels=int(labels), **recipe)
    if (n_ranks := find_place().n_ranks) > 1:
        raise OptionError(f"compare trains in one process, found {n_ranks} (srun or mpirun started them); start one")
    with load_backend():
        from trainer.training.compare import compare  # noqa: PLC0415
        from trainer.training.fit import FitOptions  # noqa: PLC0415
        from trainer.training.variants import list_variants  # noqa: PLC0415

    variants = list_variants(opened, chosen, bands=bands, fractions=fraction, conditions=train_where, without=without)
    options = FitOptions(threads=threads, devices=devices, command=quote_command())
    with FitDisplay() as display:
        comparison = compare(
            opened,
            out,
            variants,
            seeds,
            options,
            display,
            lambda one: echo(f"\n[{one.number}/{one.n_members}] {one.name}, seed {one.seed}", err=True),
        )
    echo(json.dumps(comparison, indent=2) if as_json else "\n".join(_describe_comparison(comparison)))
    if not as_json:
        echo(f"\nWritten: {out / 'comparison.json'}, {out / 'comparison.png'}")


def _describe_comparison(comparison: dict[str, Any]) -> list[str]:
    """Describe a comparison in lines."""
    sets = list(next(iter(comparison["metrics"].values())))
    lines = [
        f"Split {comparison['split']}, mean and spread (standard deviation) over {len(comparison['seeds'])} seeds",
        "",
        "".join(f"{name:>18}" for name in sets),
    ]
    for name, values in {**comparison["metrics"], **comparison["classes"]}.items():
        cells = [
            "-" if values[bands]["mean"] is None else f"{values[bands]['mean']:.4f} ±{values[bands]['spread']:.4f}"
            for bands in sets
        ]
        lines.append(f"{''.join(f'{cell:>18}' for cell in cells)}  {name}")
    lines.append("")
    for other, verdicts in comparison["verdicts"].items():
        for name, verdict in verdicts.items():
            difference = f"{verdict['difference']:+.4f} ±{verdict['spread']:.4f}"
            lines.append(f"{other} against {comparison['base']}, {name}: {difference}, {verdict['verdict']}")
    for member, verdicts in comparison["held_out"].items():
        for name, verdict in verdicts.items():
            difference = f"{verdict['difference']:+.4f} ±{verdict['spread']:.4f}"
            lines.append(f"{member}, on the test patches of it alone, {name}: {difference}, {verdict['verdict']}")
    return lines
