"""Run commands by their real command lines, and log how long each takes and how much memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_WATCH: Final = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call([sys.executable, "-m", *sys.argv[2:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
json.dump([code, time.perf_counter() - start, peak], open(sys.argv[1], "w"))
"""
"""Runs a command in a process of its own, since what a command takes is told of all that a process has started."""

_MODULES: Final = {"ben-convert": "converter", "ben-train": "trainer"}


@dataclass(frozen=True)
class Log:
    """A file with a line for each command, and the most that one of its processes may take."""

    path: Path
    folder: Path
    """Where commands run."""
    max_bytes: int

    def begin(self) -> None:
        """Write the head of a new log."""
        memory = psutil.virtual_memory().total / 1e9
        machine = f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.platform()}, Python {platform.python_version()}"
        self.path.write_text(f"{time.strftime('%F %R')}, {machine}; memory is that of the largest process\n")

    def run(self, program: str, *words: str | Path) -> str:
        """Run a command to its successful end; return what it printed."""
        usage = self.folder / "usage.json"
        command = [sys.executable, "-c", _WATCH, usage, _MODULES[program], *words]
        ended = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, cwd=self.folder, check=True
        )
        code, seconds, n_bytes = json.loads(usage.read_text())
        shown = " ".join([program, *(repr(str(word)) if " " in str(word) else str(word) for word in words)])
        with open(self.path, "a") as log:
            log.write(f"{seconds:7.1f} s  {n_bytes / 1e9:5.2f} GB  exit {code}  {shown}\n")
        assert code == 0, f"{shown}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        assert n_bytes <= self.max_bytes, f"{shown}: {n_bytes / 1e9:.2f} GB"
        return ended.stdout
