"""`ben-train export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bigearthnet.commandline import echo
from trainer.commands.backend import load_backend
from trainer.commands.options import add_network
from trainer.run.folder import RunFolder


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["savedmodel", "onnx"]),
    help="A folder for TensorFlow and what serves its models, or a file for ONNX.  [default: as the name of OUT says]",
)
@add_network
@click.option("--json", "as_json", is_flag=True, help="Print what the model takes and gives as JSON.")
def command(model: Path, out: Path, *, form: Any, network: str, as_json: bool) -> None:
    """Export MODEL, a .keras file or a RUN, to OUT, in a form that needs neither Keras nor this package.

    It takes stored pixels, as the model itself does, and gives logits. Bands, classes and statistics go with it:
    OUT/model.json, or the metadata of the ONNX file. ONNX needs the extra onnx.

    \b
    Examples:
      ben-train export RUN classifier
      ben-train export RUN classifier.onnx
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    with load_backend():
        from trainer.model.export import export_model  # noqa: PLC0415

    card = export_model(RunFolder(model).model_path if model.is_dir() else model, out, form, network)
    if as_json:
        echo(json.dumps(card, indent=2))
        return
    for name, given in card["inputs"].items():
        echo(f"{name:8}  {' x '.join(map(str, given['shape']))}  {given['dtype']}  {', '.join(given['bands'])}")
    echo(f"{'logits':8}  patch x {len(card['classes'])}  float32\nWritten: {out}")
