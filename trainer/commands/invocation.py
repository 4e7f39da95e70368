"""How a command was called."""

from __future__ import annotations

import shlex
import sys


def quote_command() -> str:
    """Repeat what was typed, so that it can be typed again."""
    return f"ben-train {shlex.join(sys.argv[1:])}"
