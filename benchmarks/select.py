"""How long does it take to choose patches out of all 590,326? Run: python -m benchmarks.select STORE.

The store is enlarged from STORE, such as that of the sample, as in `benchmarks.report`. Prints the seconds and the
processor's seconds of each choice, and the most memory that was taken.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.report import clock, enlarge_images, enlarge_table
from bigearthnet.names import N_PATCHES
from bigearthnet.store.layout import TABLE
from trainer import open_store


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a finished store, such as data/sample-store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-select-") as temporary:
        folder = Path(temporary) / "store"
        folder.mkdir()
        rows = enlarge_table(arguments.store, folder, N_PATCHES["v1"])
        enlarge_images(arguments.store, folder, rows)
        height = pa.array(np.arange(rows.num_rows) % 4000)
        own = pa.table({"patch_id": rows["patch_id"], "height": height, "kinds": rows["labels_19"]})
        pq.write_table(own, Path(temporary) / "own.parquet")
        pyarrow.csv.write_csv(own.select(["patch_id", "height"]), Path(temporary) / "own.csv")
        print(f"{rows.num_rows:,} rows, {(folder / TABLE).stat().st_size / 1e6:.1f} MB")
        print(f"{'':36} {'wall':>8}  {'processor':>8}")
        store = open_store(folder)
        clock("split", lambda: store.select("train"))
        clock("split and condition", lambda: store.select("train", where="country <> 'Finland'"))
        clock("one percent of the split", lambda: store.select("train", fraction=0.01))
        for name in ("own.parquet", "own.csv"):
            path = Path(temporary) / name
            clock(f"condition on {name}", lambda path=path: store.select("train", where="height > 99", join=path))  # type: ignore[misc]
        path = Path(temporary) / "own.parquet"
        clock("classes of own.parquet", lambda: store.select("train", target="kinds", join=path))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB of memory at most")


if __name__ == "__main__":
    main()
