"""The command line of the trainer. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

from typing import Final

import click

from bigearthnet import __version__
from bigearthnet.commandline import SETTINGS, Commands

COMMANDS: Final = ("select", "bench", "fit", "evaluate", "predict", "export", "compare", "report")
"""Modules of `trainer.commands`, in the order in which the help lists them."""


@click.group(cls=Commands, package=__package__, names=COMMANDS, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="ben-train")
def cli() -> None:
    """Train from a BigEarthNet store, which `ben-convert` writes.

    STORE is the folder of a store, or a URL such as s3://bucket/store or https://host/store.

    Exit codes: 0 success, 1 failed work (one message says what and what to do), 2 wrong usage, 130 interrupted.
    """
