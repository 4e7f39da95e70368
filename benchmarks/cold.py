"""How fast does the converter read an archive that is not in memory, or far away? Run: python -m benchmarks.cold.

On copies of the six real v1.0 patches, in one run, rounds interleaved, medians of patches/s of the shard tasks:

  warm      files in the page cache
  cold      their pages dropped before (posix_fadvise; names and inodes stay in memory)
  far       warm, and 1 ms added to every open of a file of the archive, as a file system across a network would
            (a library of twenty lines, built here with the system's C compiler and preloaded)
  floor     cold, read by 32 threads that do nothing else

Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.convert import clone_real_patches

_N_THREADS = 32
_GOAL_COLD = 0.95
_GOAL_FAR = 0.6

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static void wait_if_far(const char *path) {
    const char *far = getenv("BENCHMARK_FAR");
    struct timespec millisecond = {0, 1000000};
    if (far && !strncmp(path, far, strlen(far))) nanosleep(&millisecond, 0);
}
#define DELAY(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        wait_if_far(path); \
        return real(path, flags, mode); \
    }
DELAY(open)
DELAY(open64)
"""


def build_shim(folder: Path) -> Path:
    """Compile the library that delays."""
    source, shim = folder / "far.c", folder / "far.so"
    source.write_text(_SHIM)
    flags = ("-shared", "-fPIC", "-O2", "-ldl")
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", str(shim), str(source)], check=True)
    return shim


def drop_pages(raw: Path) -> None:
    """Drop the pages of all files, which must be on disk for that."""
    os.sync()
    for path in raw.rglob("*.*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def convert(raw: Path, store: Path, n_workers: int, **environment: str) -> float:
    """Convert by the command line; returns patches/s."""
    shutil.rmtree(store, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "converter",
        "convert",
        str(raw),
        str(store),
        "--workers",
        str(n_workers),
        "--json",
    ]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    summary = json.loads(ended.stdout)
    return float(summary["n_patches"] / summary["convert_s"])


def run_floor(raw: Path) -> float:
    """Read every file with threads that do nothing else; returns patches/s."""
    patches = [str(path) for path in raw.iterdir()]
    start = time.perf_counter()
    with ThreadPoolExecutor(_N_THREADS) as threads:
        list(threads.map(_read_files, patches))
    return len(patches) / (time.perf_counter() - start)


def _read_files(folder: str) -> None:
    for file in os.listdir(folder):
        descriptor = os.open(f"{folder}/{file}", os.O_RDONLY)
        os.read(descriptor, 65_536)
        os.close(descriptor)


def run(folder: Path, n_patches: int, n_workers: int, n_rounds: int) -> None:
    """Make the archive, run all rounds and print the table."""
    raw, store = folder / "s2", folder / "store"
    clone_real_patches(raw, folder / "s1", n_patches)
    shim = build_shim(folder)
    contenders = {
        "floor": partial(run_floor, raw),
        "cold": partial(convert, raw, store, n_workers),
        "warm": partial(convert, raw, store, n_workers),
        "far": partial(convert, raw, store, n_workers, LD_PRELOAD=str(shim), BENCHMARK_FAR=f"{raw}/"),
    }
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(n_rounds):
        for name, measure in contenders.items():
            if name in ("floor", "cold"):
                drop_pages(raw)
            rates[name].append(measure())
    median = {name: statistics.median(measured) for name, measured in rates.items()}
    print(f"\n{n_patches:,} patches, {n_workers} workers, medians of {n_rounds} rounds\n")
    for name, rate in median.items():
        print(f"{name:8}{rate:8,.0f} patches/s  ({', '.join(f'{one:,.0f}' for one in rates[name])})")
    cold, far = median["cold"] / min(median["floor"], median["warm"]), median["far"] / median["warm"]
    print(f"\ncold over the lesser of floor and warm {cold:.2f} [goal {_GOAL_COLD}]")
    print(f"far over warm {far:.2f} [goal {_GOAL_FAR}]")


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=4096, help="patches of the archive (default: 4096)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to make archive and stores (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run(Path(folder), args.patches, args.workers, args.rounds)


if __name__ == "__main__":
    main()
