"""`ben-train predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bigearthnet.archive.records import ON_BAD, OnBad
from bigearthnet.commandline import echo, show_progress
from bigearthnet.store.layout import IMAGES
from trainer.commands.backend import load_backend
from trainer.commands.options import add_network, add_plain, take_plain
from trainer.source.store import open_store

if TYPE_CHECKING:  # importing it takes a tenth of a second
    from trainer.score.predictions import Scores

_OF_STORES = ("split", "where", "join", "recommended")
_OF_FOLDERS = ("on_bad",)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write a Parquet table, instead of lines to stdout.")
@click.option("--split", help="Of a store, only this split: train, validation or test.  [default: all patches]")
@click.option("--where", metavar="SQL", help="Of a store, only patches for which this condition on its table holds.")
@click.option(
    "--join",
    type=click.Path(path_type=Path),
    help="Of a store, a CSV or Parquet file of your own columns by patch_id, for --where.",
)
@click.option(
    "--recommended/--all",
    default=False,
    show_default=True,
    help="Of a store, leave out patches with snow, cloud or shadow or without a 19-class label, or take them too.",
)
@click.option(
    "--on-bad",
    type=click.Choice(ON_BAD),
    default="stop",
    show_default=True,
    help="What to do about a patch folder that lacks a band or cannot be read: end, or list it and go on.",
)
@add_plain
@add_network
@click.option("--threads", type=int, help="Threads that read.  [default: one a core, up to 8]")
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    paths: tuple[str, ...],
    *,
    out: Path | None,
    split: str | None,
    where: str | None,
    join: Path | None,
    recommended: bool,
    on_bad: OnBad,
    bands: str | None,
    classes: str | None,
    pixels: Any,
    network: str,
    threads: int | None,
) -> None:
    """Predict the classes of patches with MODEL, a .keras file or a RUN.

    A Keras model that `ben-train fit` did not write needs --bands, --classes and --pixels.

    PATHS are one store, or patch folders as BigEarthNet consists of them (<patch>/<patch>_B04.tif and so on), or
    folders of patch folders at any depth, or one archive file as it was downloaded. A model of Sentinel-1 takes its
    folders (_VV.tif), and one of both sensors both; v2.0 says in metadata.parquet which belong together: if it is not
    in a folder that you give, nor beside or above it, give it too.

    Each line is a patch, a tab, and the classes with a probability of 0.5 or more.

    \b
    Examples:
      ben-train predict RUN BigEarthNet-v1.0/S2A_MSIL2A_20170613T101031_87_48
      ben-train predict RUN BigEarthNet-S2 --out predictions.parquet --on-bad skip
      ben-train predict RUN BigEarthNet-S2.tar.zst --out predictions.parquet
      ben-train predict RUN STORE --out predictions.parquet --where "country = 'Finland'"
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    stores = [path for path in paths if _is_store(path)]
    if stores and len(paths) > 1:
        raise click.UsageError(f"{stores[0]} is a store: give it alone, or patch folders only")
    _check_options(context, _OF_FOLDERS if stores else _OF_STORES, "patch folders" if stores else "a store")
    opened = open_store(stores[0]) if stores else None
    with load_backend():
        from trainer.model.plain import PlainModel  # noqa: PLC0415
        from trainer.score.predict import predict, predict_raw  # noqa: PLC0415
        from trainer.score.predictions import Predictions, describe_patches  # noqa: PLC0415

    said = take_plain(bands, classes, pixels)
    plain = PlainModel(**said) if said else None  # type: ignore[arg-type] # click has checked the choice
    scores: Scores
    with show_progress("Predicting") as show:
        if opened:
            choice: dict[str, Any] = {"split": split, "where": where, "join": join, "recommended": recommended}
            scores = predict(model, opened, out, **choice, network=network, plain=plain, threads=threads, advance=show)
            names = describe_patches(scores.selection)["patch_id"].to_pylist()
        else:
            scores = predict_raw(
                model,
                [Path(path) for path in paths],
                out,
                on_bad=on_bad,
                network=network,
                plain=plain,
                threads=threads,
                advance=show,
                complain=lambda reason: echo(f"Skipped: {reason}", err=True),
            )
            names = [patch.patch_id for patch in scores.patches]
            if scores.n_bad:
                echo(f"{scores.n_bad:,} of {scores.n_bad + len(names):,} patches skipped", err=True)
    if out is None:
        echo("\n".join(_describe(names, scores)))
        return
    echo(f"{len(names):,} patches, {scores.predicted.sum() / len(names):.2f} labels predicted for each")
    if isinstance(scores, Predictions) and scores.truth is None:
        echo("The store has other classes than the model, so the table has no true labels")
    echo(f"Written: {out}")


def _is_store(path: str) -> bool:
    return "://" in path or (Path(path) / IMAGES).exists()


def _check_options(context: click.Context, names: tuple[str, ...], what: str) -> None:
    """Refuse options that would do nothing."""
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and is_given:
            raise click.UsageError(f"{parameter.opts[0]} is for {what} only")


def _describe(names: list[str], scores: Scores) -> list[str]:
    """Name each patch with its predicted classes, the most probable first."""
    lines = []
    for name, probabilities, predicted in zip(names, scores.probabilities, scores.predicted, strict=True):
        chosen = [place for place in (-probabilities).argsort() if predicted[place]]
        lines.append(f"{name}\t{'; '.join(f'{scores.classes[i]} {probabilities[i]:.2f}' for i in chosen) or '-'}")
    return lines
