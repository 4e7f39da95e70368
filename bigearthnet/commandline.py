"""What the command lines of both programs share: commands imported when asked for, one message an error, exit codes."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryFile
from typing import Any, Final, NoReturn

import click
from tqdm import tqdm

from bigearthnet.errors import EXIT_INTERRUPTED, BigEarthNetError
from bigearthnet.names import suggest
from bigearthnet.quantity import format_pace

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_INTERRUPTED: Final = "Interrupted."

_shown = 2
"""The descriptor of what a user sees as stderr."""

LINE_EVERY_S: Final = 10
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""

_WIDE: Final = 80
"""Columns of a terminal from which on a bar has a picture."""
_NARROW: Final = "{percentage:.0f}%, {remaining} left, {rate_fmt}{postfix}"
_NARROW_WITHOUT_END: Final = "{n_fmt}, {rate_fmt}{postfix}"

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that change the direction of writing."""


def echo(text: str, *, err: bool = False) -> None:
    """Print text, above a progress bar if there is one.

    Parts of it may come from a stranger's store or archive: what would move the cursor, rename the window or turn the
    writing round is shown as its escape.
    """
    with tqdm.external_write_mode():
        click.echo(_escape_controls(text), err=err)


def _escape_controls(text: str) -> str:
    return _CONTROLS.sub(lambda control: ascii(control[0])[1:-1], text)


class _Bar(tqdm):  # type: ignore[type-arg]  # tqdm cannot be subscripted when it runs
    """A bar that gives up its picture on a narrow terminal, and keeps the rate, the time left and what else it says."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """Say what to draw, and how."""
        drawn = dict(super().format_dict)
        if (drawn["ncols"] or _WIDE) < _WIDE:
            drawn["bar_format"] = _NARROW if self.total else _NARROW_WITHOUT_END
        return drawn


def open_bar(doing: str, unit: str, **options: Any) -> Any:
    """Open a progress bar on a terminal or in a notebook; elsewhere it shows nothing."""
    is_shown = sys.stderr.isatty() or "ipykernel" in sys.modules
    return _Bar(desc=doing, unit=unit, disable=not is_shown, dynamic_ncols=True, **{"leave": False, **options})


@contextmanager
def show_progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many patches are done, at what rate, and how long the rest takes: see `open_bar`, or else line by line.

    Yields:
        To be called with how many are done, and how many there are; 0 if nobody knows.
    """
    with open_bar(doing, " patches") as bar:
        began = printed = time.monotonic()

        def show(n_done: int, n_total: int) -> None:
            nonlocal printed
            bar.total = n_total or None
            bar.update(n_done - bar.n)
            if bar.disable and (now := time.monotonic()) - printed >= LINE_EVERY_S:
                printed = now
                echo(f"{doing}: {format_pace(n_done, n_total, now - began)}", err=True)

        yield show


class Commands(click.Group):
    """Imports a command when it is asked for, and an expected error of it is one message.

    What takes long a command imports itself when it runs, under `end_on_interrupt`, so that no help waits for it.

    Args:
        package: Holds a module for each command, whose function is called `command`.
        names: The modules, in the order in which the help lists them.
    """

    def __init__(self, *arguments: Any, package: str, names: Sequence[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._package, self._names = package, tuple(names)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the names of all commands."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in self._names:
            return None
        with end_on_interrupt():
            command: click.Command = import_module(f"{self._package}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant, or name one that is spelt alike."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if not (question := suggest(args[:1], self._names)):
                raise
            raise click.UsageError(f"{error.message}{question}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BigEarthNetError as error:
            raise click.ClickException(_escape_controls(str(error))) from error


@contextmanager
def end_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once, for the time of imports before any work has begun.

    Extension modules that are interrupted while they are imported go on as if nothing had happened, or abort.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # whoever ignores or handles Ctrl-C does so here too
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def hold_notes() -> Iterator[None]:
    """Hold back what is written to stderr, by whatever library; show it if there is an error."""
    global _shown  # noqa: PLW0603 - a process has one stderr
    sys.stderr.flush()
    with TemporaryFile() as held, open(os.dup(2), "wb", buffering=0) as shown:
        os.dup2(held.fileno(), 2)
        _shown = shown.fileno()
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            shown.write(held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown.fileno(), 2)
            _shown = 2


def _end_at_once(*_: object) -> NoReturn:
    os.write(_shown, f"\n{_INTERRUPTED}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def run_program(program: str) -> NoReturn:
    """Run a command line and end the process.

    It exits with 0 on success, 1 if the work failed (one message says what and what to do), 2 on wrong usage and 130
    if it was interrupted, even while it is still being imported.

    Args:
        program: The module whose `cli` is the command line.
    """
    try:
        with end_on_interrupt():
            cli = import_module(program).cli
        status = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as interrupt:
        # click turns what interrupts a command into its own Abort.
        click.echo(f"\n{str(interrupt.__context__ or interrupt) or _INTERRUPTED}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(status)


def ben_convert() -> NoReturn:
    """Run `ben-convert`."""
    run_program("converter.commands.cli")


def ben_train() -> NoReturn:
    """Run `ben-train`, whose package takes long to import: Ctrl-C does no harm then."""
    run_program("trainer.commands.cli")
