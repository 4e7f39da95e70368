"""How fast are batches, against other ways to keep the same patches? Run: make bench.

The contenders of `benchmarks.reading` read copies of real patches in random batches of 128, in turns, each in a process
of its own. Tables for all bands and for RGB; `--only` runs some:

  warm   an epoch warms up, then as many batches as go into some seconds; checksums are those of a later epoch
  cold   the first epoch, from when the contender has opened its files, whose pages were dropped before

Who opens GeoTIFFs is measured for a batch. Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from tqdm import tqdm

from benchmarks.reading import CONTENDERS, MAPS, make_patches, run_contender, write_form
from benchmarks.turns import Table, find_rate, judge, save_record, show_table, take_turns
from bigearthnet.store.layout import CODECS

_BANDS: Final = {"all bands": "s2", "RGB": "rgb"}
_CONDITIONS: Final = ("warm", "cold")
_GOAL_MAPS: Final = 0.8
_PACKAGES: Final = (
    "zarr", "zarrs", "tensorstore", "numpy", "tensorflow", "torch", "lmdb", "safetensors", "litdata",
    "mosaicml-streaming", "webdataset", "grain", "array-record", "torchgeo", "rasterio",
)  # fmt: skip


def run(folder: Path, names: list[str], conditions: list[str], seconds: float, n_rounds: int) -> dict[str, Table]:
    """Write all forms and run all turns; returns the tables."""
    for name in tqdm(names, desc="Writing", unit=" forms", disable=None):
        write_form(name, folder)
    return {
        f"{bands}, {condition}": take_turns(
            {name: partial(run_contender, name, folder, band_set, seconds, cold=condition == "cold") for name in names},
            n_rounds,
        )
        for condition in conditions
        for bands, band_set in _BANDS.items()
    }


def judge_tables(tables: dict[str, Table]) -> None:
    """Print how the goals are met: ahead of all that compress, and near to the maps."""
    for title, table in tables.items():
        rate = {name: find_rate(table, name) for name in table}
        if "lz4" in rate:
            for name, other in rate.items():
                if CONTENDERS[name].compresses and name not in CODECS:
                    judge(f"{title}: lz4 over {name}", rate["lz4"] / other, 1)
        if "none" in rate and MAPS in rate:
            judge(f"{title}: none over {MAPS}", rate["none"] / rate[MAPS], _GOAL_MAPS)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make all forms in DIR, and leave them for next time")
    parser.add_argument("--patches", type=int, default=4096, help="a multiple of 512 (default: 4096, which take 8 GB)")
    parser.add_argument("--seconds", type=float, default=2, help="to measure a contender for (default: 2)")
    parser.add_argument("--rounds", type=int, default=2, help="default: 2")
    parser.add_argument("--only", nargs="+", choices=_CONDITIONS, default=_CONDITIONS, help="run these tables")
    parser.add_argument("--names", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help="run these contenders")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/records")
    args = parser.parse_args()
    if args.patches % 512:
        parser.error("--patches must be a multiple of 512, so that an epoch is whole batches for everyone")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        make_patches(folder, args.patches)
        tables = run(folder, args.names, args.only, args.seconds, args.rounds)
    for title, table in tables.items():
        show_table(title, table)
    print()
    judge_tables(tables)
    if args.record:
        save_record("reading", tables, _PACKAGES)


if __name__ == "__main__":
    main()
