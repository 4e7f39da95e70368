"""How long does the page about a store take, if all 590,326 patches are in it? Run: python -m benchmarks.report STORE.

A store with so large a table is made from STORE, such as that of the sample: the rows are repeated under other names
and at other places, and every copy has the pixels of its original. Prints the seconds and the processor's seconds of
each step, and the most memory that was taken.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from bigearthnet.labels import LABELS_19
from bigearthnet.names import N_PATCHES
from bigearthnet.store.layout import MANIFEST
from bigearthnet.store.manifest import build_manifest, encode_manifest, read_attributes, read_manifest
from bigearthnet.store.objects import LocalObjects
from converter.report import write_report
from converter.report.census import take_census
from converter.report.footprints import count_footprints
from converter.report.gallery import choose_gallery
from converter.report.pixels import draw_sample

_MOVED = "(hash(patch_id, copy, {seed}) % 2000)::INTEGER / 1000 - 1"
"""Degrees, between -1 and 1."""


def enlarge(store: Path, folder: Path, n_patches: int) -> None:
    """Write a store of so many rows, which has the images of another."""
    (folder / "images.zarr").symlink_to((store / "images.zarr").absolute())
    source = store / "patches.parquet"
    footer = pq.read_metadata(source)
    east, north = (_MOVED.format(seed=seed) for seed in (0, 1))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(
            f"""SELECT patches.* REPLACE (
                patch_id || '_' || copy AS patch_id,
                {{'xmin': bbox.xmin + {east}, 'ymin': bbox.ymin + {north},
                  'xmax': bbox.xmax + {east}, 'ymax': bbox.ymax + {north}}} AS bbox,
                x_ul + 1200 * (copy % 300) AS x_ul
            ) FROM read_parquet($source) AS patches, range($n) AS copies(copy) LIMIT $n_patches""",
            params={"source": str(source), "n": -(-n_patches // footer.num_rows), "n_patches": n_patches},
        ).to_arrow_table()
    facts = {key: value for key, value in footer.metadata.items() if not key.startswith(b"ARROW")}
    with pq.ParquetWriter(folder / "patches.parquet", rows.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows, row_group_size=50_000)
        writer.add_key_value_metadata(facts)
    manifest = read_manifest(LocalObjects(store))
    enlarged = build_manifest(folder, manifest.fingerprint, manifest.counts, manifest.shards)
    (folder / MANIFEST).write_bytes(encode_manifest(enlarged))


def clock(name: str, work: Callable[[], object]) -> None:
    """Print how long something takes."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    print(f"{name:36} {time.perf_counter() - wall:6.2f} s  {time.process_time() - processor:6.2f} s", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a finished store, such as data/sample-store")
    parser.add_argument("--patches", type=int, default=N_PATCHES["v1"], help="rows of the table (default: 590326)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-report-") as temporary:
        store = Path(temporary) / "store"
        store.mkdir()
        enlarge(arguments.store, store, arguments.patches)
        print(f"{arguments.patches:,} rows, {(store / 'patches.parquet').stat().st_size / 1e6:.1f} MB")
        print(f"{'':36} {'wall':>8}  {'processor':>8}")
        clock("counts", lambda: take_census(store, read_attributes(store)))
        clock("footprints", lambda: count_footprints(store))
        clock("choice of pictures", lambda: choose_gallery(store, LABELS_19))
        clock("choice of patches for the histograms", lambda: draw_sample(store, 256))
        page = Path(temporary) / "page.html"
        clock("whole page, 256 patches read", lambda: write_report(store, page))
        print(f"{page.stat().st_size / 1e6:.2f} MB of HTML")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB of memory at most")


if __name__ == "__main__":
    main()
