"""The command line. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from converter import __version__
from converter.errors import EXIT_INTERRUPTED, ConverterError

COMMANDS: Final = ("convert", "verify", "info", "query", "preview", "export", "report", "sample")
"""Modules of `converter.commands`, in the order in which the help lists them."""


class _Commands(click.Group):
    """Imports a command when it is asked for, since dask alone takes a second; an expected error is one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"converter.commands.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="converter")
def cli() -> None:
    """Pack the raw BigEarthNet archive once into a store that trains fast.

    \b
    A store is a folder:
      images.zarr       sharded Zarr v3, native resolution, bit-identical pixels
      patches.parquet   GeoParquet: labels, splits, times, footprints; row i = index i of every array

    \b
    Try it without the archive:
      python -m converter sample data/sample
      python -m converter convert data/sample data/sample-store
      python -m converter info data/sample-store

    Exit codes: 0 success, 1 failed work (one message says what and what to do), 2 wrong usage, 130 interrupted.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


def main() -> NoReturn:
    """Run the command line."""
    try:
        status = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as interrupt:
        # click turns what interrupts a command into its own Abort.
        click.echo(f"\n{str(interrupt.__cause__ or interrupt) or 'Interrupted.'}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(status)
