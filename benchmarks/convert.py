"""How fast is BigEarthNet converted, by this project, as others do it, and at the floor? Run: make bench.

Copies of the six real v1.0 pairs are converted by the contenders of `benchmarks.converting`, two workers each, in
turns. Tables, one for each condition; `--only` runs some of them:

  warm      files in the page cache; `reading` and the floor show what no converter can do without
  cold      their pages dropped before (posix_fadvise; names and inodes stay in memory)
  far       warm, and 1 ms added to every open of a file of the archive, as a file system across a network would
  packed    from a .tar, a .tar.gz and a .tar.zst; who cannot read it unpacks it before (tar xf), which counts. The
            copies repeat every six patches, which a window of 512 KiB does not reach: compressed as real ones are
  forms     this project alone: other codecs, with Sentinel-1, v2.0 (whose maps are deflated), all through rasterio
  planning  all 590,326 official names

Rates are from when the workers are up to when the last patch is written. Who reads with rasterio is slow, and gets an
archive of fewer patches, which changes no figure a patch. Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.conditions import (
    build_shim,
    clone_real_patches,
    clone_v2,
    drop_pages,
    pack_archives,
    time_decompression,
    time_unpacking,
)
from benchmarks.converting import CONTENDERS, FLOOR, OURS, READING, RICO, check_output, run_contender
from benchmarks.turns import Figures, Table, find_rate, judge, save_record, show_table, take_turns
from bigearthnet.archive.lists import read_lists
from bigearthnet.archive.records import Source
from bigearthnet.names import N_PATCHES
from bigearthnet.store.layout import CODECS
from converter.options import ConvertOptions
from converter.plan import plan_store

_CONDITIONS: Final = ("warm", "cold", "far", "packed", "forms", "planning")
_GOAL_RICO: Final = 20
_GOAL_FLOOR: Final = 0.5
_GOAL_COLD: Final = 0.95
_GOAL_FAR: Final = 0.6
_PACKAGES: Final = ("zarr", "dask", "numcodecs", "numpy", "rasterio", "lmdb", "safetensors", "tensorflow")

Turns = Mapping[str, Callable[[], Figures]]


class Bench:
    """The archives in a folder, and who converts them.

    Args:
        folder: Empty; everything is made in it.
        n_patches: Patches of the archive.
        n_few: Patches of the one for who is slow.
        n_workers: Worker processes of each.
    """

    def __init__(self, folder: Path, n_patches: int, n_few: int, n_workers: int) -> None:
        self.folder, self.n_patches, self.n_few, self._n_workers = folder, n_patches, n_few, n_workers
        self._raws = {n: folder / f"{n}/BigEarthNet-v1.0" for n in {n_patches, n_few}}
        for n, raw in self._raws.items():
            clone_real_patches(raw, raw.with_name("s1"), n)
        self._checked: set[str] = set()

    def list_turns(self, condition: str) -> Turns:
        """Say who takes turns in a condition, and what each does."""
        if condition == "forms":
            return self._list_forms()
        names = [name for name in CONTENDERS if name != READING or condition in ("warm", "cold")]
        if condition == "far":
            shim = build_shim(self.folder)
            return {
                name: partial(self.run, name, LD_PRELOAD=str(shim), BENCHMARK_FAR=f"{self._choose_raw(name)}/")
                for name in names
            }
        return {name: partial(self._run_cold if condition == "cold" else self.run, name) for name in names}

    def run(self, name: str, *words: str | Path, raw: Path | None = None, **environment: str) -> Figures:
        """Let a contender convert; the first time, what it wrote is compared with the archive."""
        raw, out = raw or self._choose_raw(name), self.folder / "out"
        figures = run_contender(name, raw, out, "--workers", self._n_workers, *words, **environment)
        if name not in self._checked:
            check_output(name, self._choose_raw(name), out)
            self._checked.add(name)
        return figures

    def _run_cold(self, name: str) -> Figures:
        drop_pages(self._choose_raw(name))
        return self.run(name)

    def _choose_raw(self, name: str) -> Path:
        return self._raws[self.n_patches if name in (OURS, FLOOR, READING) else self.n_few]

    def _list_forms(self) -> Turns:
        raw = self._raws[self.n_patches]
        v2 = clone_v2(self.folder, self.n_patches)
        assert v2.s2
        assert v2.s1
        assert v2.reference_maps
        ours = partial(self.run, OURS)
        return {
            **{f"v1.0, {codec}": partial(ours, "--codec", codec) for codec in CODECS},
            "v1.0, with Sentinel-1": partial(ours, "--s1", raw.with_name("s1")),
            "v2.0": partial(ours, raw=v2.s2),
            "v2.0, with Sentinel-1": partial(ours, "--s1", v2.s1, raw=v2.s2),
            "v2.0, with Sentinel-1 and maps": partial(ours, "--s1", v2.s1, "--maps", v2.reference_maps, raw=v2.s2),
            "v1.0, all through rasterio": partial(ours, "--reader", "rasterio", raw=self._raws[self.n_few]),
        }

    def list_packed(self) -> dict[str, Turns]:
        """Say who takes turns for each kind of archive file."""
        files = {n: pack_archives(raw, raw.parent) for n, raw in self._raws.items()}
        tables: dict[str, Turns] = {}
        for suffix, file in files[self.n_patches].items():
            others = [RICO] if suffix == ".tar" else [name for name in CONTENDERS if name not in (OURS, FLOOR, READING)]
            tables[f"from {suffix}"] = {
                OURS: partial(self.run, OURS, raw=file),
                "decompressor alone": partial(self._time, time_decompression, file),
                "tar xf alone": partial(self._time, time_unpacking, file, self.folder / "unpacked"),
                f"tar xf, then {OURS}": partial(self._unpack_and_run, OURS, file, self.n_patches),
                **{
                    f"tar xf, then {name}": partial(self._unpack_and_run, name, files[self.n_few][suffix], self.n_few)
                    for name in others
                },
            }
        return tables

    def _time(self, measure: Callable[..., float], *given: Path) -> Figures:
        return {"patches/s": self.n_patches / measure(*given)}

    def _unpack_and_run(self, name: str, file: Path, n_patches: int) -> Figures:
        folder = self.folder / "unpacked"
        unpacking_s = time_unpacking(file, folder)
        figures = self.run(name, raw=folder / "BigEarthNet-v1.0")
        shutil.rmtree(folder)
        return {**figures, "patches/s": n_patches / (unpacking_s + n_patches / figures["patches/s"])}


def measure_planning() -> Figures:
    """Plan all 590,326 official names in this process."""
    start = time.perf_counter()
    lists = read_lists()
    read_s = time.perf_counter() - start
    options = ConvertOptions()
    plan = plan_store(
        (lists.describe(Source(name, s2=name)) for name in lists.pairing_of), options.choose_layout("v1", {"s2"})
    )
    assert plan.n_patches == N_PATCHES["v1"]
    peak_kb = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]
    return {"s": time.perf_counter() - start, "s of it to read the lists": read_s, "peak MB": int(peak_kb) / 1e3}


def _judge(tables: Mapping[str, Table]) -> None:
    """Print how the goals are met."""
    print()
    for condition in [name for name in ("warm", "cold", "far") if name in tables]:
        table = tables[condition]
        judge(f"{condition}: {OURS} over the {RICO}", find_rate(table, OURS) / find_rate(table, RICO), _GOAL_RICO)
    if warm := tables.get("warm"):
        judge(f"warm: {OURS} over the floor", find_rate(warm, OURS) / find_rate(warm, FLOOR), _GOAL_FLOOR)
    if warm and (cold := tables.get("cold")):
        least = min(find_rate(cold, READING), find_rate(warm, OURS))
        judge("cold over the lesser of only reading and warm", find_rate(cold, OURS) / least, _GOAL_COLD)
    if warm and (far := tables.get("far")):
        judge("far over warm", find_rate(far, OURS) / find_rate(warm, OURS), _GOAL_FAR)


def run(bench: Bench, conditions: list[str], n_rounds: int) -> dict[str, Table]:
    """Run all turns and return the tables."""
    tables: dict[str, Table] = {}
    for condition in conditions:
        if condition == "packed":
            for title, turns in bench.list_packed().items():
                tables[title] = take_turns(turns, max(1, n_rounds - 1))
        elif condition != "planning":
            tables[condition] = take_turns(bench.list_turns(condition), n_rounds)
    return tables


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=2048, help="patches of the archive (default: 2048)")
    parser.add_argument("--few", type=int, default=512, help="patches through rasterio (default: 512)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; of archive files one less (default: 2)")
    parser.add_argument("--folder", type=Path, help="where to make archive and stores (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", choices=_CONDITIONS, default=_CONDITIONS, help="run these tables")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/records")
    args = parser.parse_args()
    if args.only == ["planning"]:  # a process of its own, so that its peak memory is its own too
        for figure, value in measure_planning().items():
            print(f"planning {N_PATCHES['v1']:,} names: {value:,.1f} {figure}")
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tables = run(Bench(Path(folder), args.patches, args.few, args.workers), args.only, args.rounds)
    for title, table in tables.items():
        show_table(title, table)
    _judge(tables)
    if "planning" in args.only:
        subprocess.run([sys.executable, "-m", "benchmarks.convert", "--only", "planning"], check=True)
    if args.record:
        save_record("converting", tables, _PACKAGES)


if __name__ == "__main__":
    main()
