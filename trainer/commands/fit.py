"""`ben-train fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

from bigearthnet.commandline import echo
from trainer.commands.backend import load_backend, name_backend
from trainer.commands.display import FitDisplay
from trainer.commands.options import add_devices, add_hosts, add_recipe, add_threads, quote_command
from trainer.model.hosts import end_together, find_hosts, find_place, join
from trainer.run.recipe import Recipe, follow_reben
from trainer.source.store import open_store


@click.command()
@click.argument("store")
@click.argument("run", type=click.Path(path_type=Path))
@add_recipe
@click.option(
    "--protocol",
    type=click.Choice(["reben"]),
    help="Train exactly as the authors of BigEarthNet v2.0 did, on its splits and 19 classes, so that results compare.",
)
@add_devices
@add_hosts
@add_threads
@click.option(
    "--checkpoint-steps", default=250, show_default=True, help="Steps between two saved states within an epoch."
)
@click.option("--tensorboard/--no-tensorboard", default=True, show_default=True, help="Write RUN/tensorboard.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(
    context: click.Context,
    /,
    store: str,
    run: Path,
    *,
    labels: str,
    protocol: str | None,
    devices: int | Literal["all"],
    coordinator: str | None,
    rank: int | None,
    ranks: int | None,
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
    Examples:
      ben-train fit STORE RUN --network ResNet50 --bands 10m,20m,s1
      ben-train fit STORE RUN --protocol reben --seed 1
      KERAS_BACKEND=jax srun ben-train fit STORE RUN
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    packages = ["tensorboard"] if tensorboard else []
    opened, recipe["labels"] = open_store(store), int(labels)
    if protocol:
        given = {name for name in recipe if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        chosen = follow_reben(opened.attributes["dataset"], **{name: recipe[name] for name in sorted(given)})
    else:
        chosen = Recipe(**recipe)
    place = find_place(coordinator, rank, ranks)
    with end_together(place):
        with load_backend(*packages):
            join(place, name_backend())
            from trainer.training.fit import FitOptions, fit  # noqa: PLC0415

        options = FitOptions(
            threads=threads,
            devices=devices,
            checkpoint_steps=checkpoint_steps,
            tensorboard=tensorboard,
            command=quote_command(),
        )
        is_first = find_hosts().is_first
        with FitDisplay() as display:
            result = fit(opened, run, chosen, options, display if is_first else lambda _: None)
    if not is_first:
        return
    if as_json:
        echo(json.dumps(result, indent=2))
        return
    validation = result["validation"]
    echo(f"Validation macro AP  {validation['val_macro_ap']:.4f}  (epoch {result['best_epoch']} of {result['epochs']})")
    echo(f"Label frequency      {result['baseline_macro_ap']:.4f}  (what a constant prediction reaches)")
    echo(f"Model                {run / 'best.keras'}")
