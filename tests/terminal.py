"""A pseudo-terminal to show things on."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Callable, Iterator

import pytest


def show_on_terminal(show: Callable[[], object], monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> str:
    """Call something with stderr on a terminal, and return what that received."""
    shown, behind = os.openpty()
    termios.tcsetwinsize(behind, (40, columns))
    with os.fdopen(behind, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        show()
    received = b"".join(_read_to_the_end(shown))
    os.close(shown)
    return received.decode()


def _read_to_the_end(terminal: int) -> Iterator[bytes]:
    """Read what a terminal received; the kernel hands it over bit by bit, and late."""
    with contextlib.suppress(OSError):  # EIO: the other side is closed and nothing is left
        while part := os.read(terminal, 4_096):
            yield part
