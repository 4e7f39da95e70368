"""Processes of Python, watched: what they print, and what they take with all that they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType

import psutil


@dataclass(frozen=True)
class Watched:
    """What a process printed and took, all that it started included."""

    shown: str
    seconds: float
    peak_bytes: int
    """Of memory, the most at any time; pages of files that are mapped do not count."""
    worker_bytes: int
    """The same of the largest process that it started."""


def watch_python(
    *words: str | Path | int, environment: Mapping[str, str] = MappingProxyType({}), look_s: float = 0.2
) -> Watched:
    """Run Python to its successful end and watch its memory, looking every `look_s` seconds."""
    start = time.perf_counter()
    command = [sys.executable, *map(str, words)]
    with TemporaryFile("w+") as shown, TemporaryFile("w+") as errors:  # a pipe that nobody empties would be full
        process = subprocess.Popen(command, env=os.environ | environment, stdout=shown, stderr=errors)
        peak_bytes = worker_bytes = 0
        while process.poll() is None:
            n_bytes = list(_list_memory(process.pid))
            peak_bytes, worker_bytes = max(peak_bytes, sum(n_bytes)), max([worker_bytes, *n_bytes[1:]])
            time.sleep(look_s)
        seconds = time.perf_counter() - start
        shown.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command}: {errors.read()}")
        return Watched(shown.read(), seconds, peak_bytes, worker_bytes)


def _list_memory(pid: int) -> Iterator[int]:
    """Yield the bytes of each process of a tree, the root first, without those of files."""
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                memory = process.memory_info()
                yield memory.rss - memory.shared


def count_cpu() -> float:
    """Count the seconds of the processor of this process and all it has started, those that have ended too."""
    total, root = 0.0, psutil.Process()
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total
