"""How do time, memory and bytes grow with the number of patches? Run: python -m benchmarks.growth.

Archives of official names, whose files are hard links to six real patches, so that they are in memory. Of each size
once, each in a process of its own:

  convert      `ben-convert convert`, two workers
  open         `open_store` and `select`
  first batch  the same, and the first batch of a stream of all bands
  epoch        all RGB batches of an epoch, the first one, in which checksums are compared
  verify       `ben-convert verify`: every byte
  report       `ben-convert report`

Seconds are those of the command, or of the code without its imports. Memory is that of all processes without mapped
files, as looked up twenty times a second. Bytes are those of the store, or of the page. The last column goes on from
the last two sizes below it in a straight line, but never downwards. All 590,326 patches may be one of the sizes where
75 GB are free: then what they took stands beside what the others foretold. An archive and its store are removed before
the next is made.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.processes import watch_python
from benchmarks.turns import save_record
from bigearthnet.names import N_PATCHES
from tests.full.archive import build_archive

Table = dict[str, dict[str, dict[str, list[float]]]]
"""Command to number of patches to figure to its one value."""

_BEGIN: Final = """
import sys, time
from itertools import islice
from trainer import Stream, open_store
start = time.perf_counter()
selection = open_store(sys.argv[1]).select(recommended=False)
"""
_END: Final = "print(time.perf_counter() - start)"
_STREAM: Final = """
with Stream(selection, bands="{bands}") as stream:
    for batch in islice(stream, {n}):
        pass
"""
_CODE: Final = {
    "open": _BEGIN + _END,
    "first batch": _BEGIN + _STREAM.format(bands="all", n=1) + _END,
    "epoch": _BEGIN + _STREAM.format(bands="rgb", n=None) + _END,
}
_LOOK_S: Final = 0.05


def measure(raw: Path, store: Path, n_workers: int) -> dict[str, dict[str, float]]:
    """Run all commands on an archive; returns command to figures."""
    page = store.with_suffix(".html")
    converter = ("-m", "converter")
    commands: dict[str, tuple[str | Path | int, ...]] = {
        "convert": (*converter, "convert", raw, store, "--workers", n_workers),
        **{name: ("-c", code, store) for name, code in _CODE.items()},
        "verify": (*converter, "verify", store, "--workers", n_workers),
        "report": (*converter, "report", store, "--out", page),
    }
    found = {}
    for name, words in commands.items():
        watched = watch_python(*words, look_s=_LOOK_S)
        seconds = json.loads(watched.shown) if name in _CODE else watched.seconds
        found[name] = {"s": seconds, "peak MB": watched.peak_bytes / 1e6}
    found["convert"]["bytes"] = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    found["report"]["bytes"] = page.stat().st_size
    return found


def project(values: dict[int, float], n: int) -> float:
    """Go on from the last two sizes below `n` in a straight line, but not downwards: that would be noise."""
    (n_1, value_1), (n_2, value_2) = sorted(item for item in values.items() if item[0] < n)[-2:]
    return value_2 + max(0.0, value_2 - value_1) / (n_2 - n_1) * (n - n_2)


def run(folder: Path | None, sizes: list[int], n_workers: int) -> Table:
    """Measure archives of some sizes."""
    table: Table = {}
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            raw = Path(work) / "archive"
            build_archive(raw, n)
            for name, figures in measure(raw, raw.with_name("store"), n_workers).items():
                table.setdefault(name, {})[str(n)] = {figure: [value] for figure, value in figures.items()}
    return table


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 4096, 16384], help="patches (default: 1024 4096 16384)"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--folder", type=Path, help="where to make archives and stores (default: a temporary folder)")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/records")
    args = parser.parse_args()
    sizes = sorted(args.sizes)
    n_all = N_PATCHES["v1"]
    if any(a == b for a, b in pairwise(sizes)) or sizes[-1] > n_all or len([n for n in sizes if n < n_all]) < 2:
        parser.error(f"give two sizes or more below {n_all:,}, and {n_all:,} besides if there is room")
    table = run(args.folder, sizes, args.workers)
    print(f"\n{'':24}" + "".join(f"{n:>15,}" for n in sizes) + f"{f'{n_all:,} (projected)':>25}")
    for name, of_size in table.items():
        for figure in of_size[str(sizes[0])]:
            values = {n: of_size[str(n)][figure][0] for n in sizes}
            cells = [*values.values(), project(values, n_all)]
            form = ",.0f" if figure == "bytes" else ",.2f"
            print(f"{f'{name}, {figure}':24}" + "".join(f"{cell:>15{form}}" for cell in cells[:-1]), end="")
            print(f"{cells[-1]:>25{form}}")
    if args.record:
        save_record("growth", table, ("zarr", "dask", "numcodecs", "numpy", "duckdb"))


if __name__ == "__main__":
    main()
