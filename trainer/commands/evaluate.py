"""`ben-train evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bigearthnet.commandline import echo, show_progress
from trainer.commands.backend import load_backend
from trainer.commands.options import add_network, add_plain, add_threads, take_plain
from trainer.run.folder import RunFolder, locate_evaluation
from trainer.source.store import open_store


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True, help="The split to measure on: test, validation or train.")
@click.option(
    "--where",
    metavar="SQL",
    default="",
    help="Measure only patches of it for which this DuckDB condition holds; the files have a name of their own then.",
)
@click.option(
    "--join",
    type=click.Path(path_type=Path),
    help="Where the file is now whose columns the training joined.  [default: where it was]",
)
@click.option("--store", help="Where the store is now.  [default: where it was]")
@add_plain
@click.option("--out", type=click.Path(path_type=Path), help="Of a plain Keras model: the folder to write to.")
@add_network
@add_threads
@click.option("--json", "as_json", is_flag=True, help="Print all metrics as JSON.")
def command(
    run: Path,
    *,
    split: str,
    where: str,
    join: Path | None,
    store: str | None,
    bands: str | None,
    classes: str | None,
    pixels: Any,
    out: Path | None,
    network: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the best model of a training on a whole split.

    Writes all metrics to RUN/evaluation/SPLIT.json and every patch's probabilities to RUN/evaluation/SPLIT.parquet.
    Thresholds are 0.5, and the best for F1 on validation. RUN/report.html shows all of it; see
    `report --help`.

    RUN may be a .keras file that `ben-train fit` did not write: then say its --bands, --classes and --pixels, the
    --store, and --out, in whose folder `evaluation` the same files are written.

    \b
    Examples:
      ben-train evaluate RUN --split test
      ben-train evaluate RUN --split test --where "country = 'Finland'"
      ben-train evaluate MODEL.keras --store STORE --bands rgb --classes 19 --pixels reflectance --out measured
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    said = take_plain(bands, classes, pixels)
    if said and (store is None or out is None):
        raise click.UsageError("a plain Keras model needs --store and --out too")
    if not said and run.is_file():
        raise click.UsageError(f"{run} is a file: name the folder of a run, or say what a plain Keras model takes")
    if join and said:
        raise click.UsageError("--join is for a run that joined a file only")
    if out and not said:
        raise click.UsageError("--out is for a plain Keras model only: a run is measured in its own folder")
    opened = open_store(store or RunFolder(run).read_record().store)
    with load_backend():
        from trainer.model.plain import PlainModel  # noqa: PLC0415
        from trainer.report import comment, write_report  # noqa: PLC0415
        from trainer.score.evaluate import evaluate, evaluate_plain  # noqa: PLC0415

    files = locate_evaluation(out or run, split, where)
    written = [files.metrics, files.predictions]
    with show_progress("Predicting") as show:
        options: dict[str, Any] = {"where": where, "network": network, "threads": threads, "advance": show}
        if said:
            assert out is not None
            plain = PlainModel(**said)  # type: ignore[arg-type] # click has checked the choice
            evaluation = evaluate_plain(opened, run, plain, out, split, **options)
        else:
            evaluation = evaluate(opened, run, split, join=join, **options)
    if not said and not where:
        written.append(write_report(run, opened).path)
    if as_json:
        echo(json.dumps(evaluation, indent=2))
        return
    echo("\n".join(_describe_evaluation(evaluation)))
    echo("".join(f"\n{sentence}\n" for sentence in comment(evaluation)).rstrip("\n"))
    echo(f"\nWritten: {', '.join(map(str, written))}")


def _describe_evaluation(evaluation: dict[str, Any]) -> list[str]:
    """Describe an evaluation in lines."""
    lines = [
        f"{evaluation['patches']:,} patches of {evaluation['split']}",
        "",
        f"{'':32}{'macro':>9}{'micro':>9}{'sample':>9}",
    ]
    for title in ("ranking", "at_0.5", "at_tuned"):
        means = evaluation.get(title, {})
        suffix = "" if title == "ranking" else f" {title.replace('_', ' ')}"
        for metric in dict.fromkeys(metric for values in means.values() for metric in values):
            values = [means[mean].get(metric) for mean in ("macro", "micro", "sample")]
            lines.append(f"{metric.replace('_', ' ') + suffix:32}{''.join(_format_score(value) for value in values)}")
    lines += ["", f"{'average precision':>18}{'patches':>10}  class"]
    for name, values in sorted(evaluation["classes"].items(), key=lambda item: -item[1]["support"]):
        lines.append(f"{_format_score(values['average_precision']):>18}{values['support']:>10,.0f}  {name}")
    if evaluation["absent_classes"]:
        lines += ["", f"In no patch, so left out of the macro means: {'; '.join(evaluation['absent_classes'])}"]
    return lines


def _format_score(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>9}"
