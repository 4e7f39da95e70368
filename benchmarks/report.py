"""How long does the page about a store take, if all 590,326 patches are in it? Run: python -m benchmarks.report STORE.

A store of so many patches is made from STORE, such as that of the sample: its rows are repeated under other names and
at other places, and its shards are linked under other numbers. Prints the seconds and the processor's seconds of
each step, and the most memory that was taken.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearthnet.labels import LABELS_19
from bigearthnet.names import N_PATCHES
from bigearthnet.store.images import read_layout, write_metadata
from bigearthnet.store.layout import MANIFEST, TABLE, name_shard
from bigearthnet.store.manifest import build_manifest, encode_manifest, read_attributes, read_manifest
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.table import Table, read_table
from converter.finish import count_splits
from converter.report import write_report
from converter.report.census import take_census
from converter.report.footprints import count_footprints
from converter.report.gallery import choose_gallery
from converter.report.pixels import draw_sample


def enlarge_table(store: Path, folder: Path, n_patches: int) -> Table:
    """Write the table of a store of so many patches: rows repeated under other names and at other places.

    Copies of a row follow it, so that splits are still ranges of rows.
    """
    few = read_table(store)
    copies, places = np.divmod(np.arange(n_patches), few.num_rows)
    order = np.argsort(places, kind="stable")
    copies, places = copies[order], places[order]
    rows = few.take(pa.array(places))
    moved = np.random.default_rng(0).uniform(-1, 1, (2, n_patches))  # degrees to the east, and to the north
    sides = rows["bbox"].combine_chunks().flatten()  # west, south, east, north
    bounds = [pa.array(side.to_numpy() + moved[number % 2]) for number, side in enumerate(sides)]
    columns = {name: rows[name] for name in rows.column_names} | {
        "index": pa.array(np.arange(n_patches, dtype=np.int32)),
        "patch_id": pc.binary_join_element_wise(rows["patch_id"], pa.array(copies).cast(pa.string()), "_"),
        "x_ul": pa.array(rows["x_ul"].to_numpy() + 1200 * (copies % 300)),
        "bbox": pa.StructArray.from_arrays(bounds, fields=list(rows.schema.field("bbox").type)),
    }
    rows = pa.table(columns, schema=rows.schema)
    facts = pq.read_metadata(store / TABLE).metadata
    with pq.ParquetWriter(folder / TABLE, rows.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows, row_group_size=50_000)
        writer.add_key_value_metadata({key: value for key, value in facts.items() if not key.startswith(b"ARROW")})
    return rows


def enlarge_images(store: Path, folder: Path, rows: Table) -> None:
    """Write the images of a store of so many patches, shards linked under other numbers, and the manifest of all."""
    attributes = read_attributes(store)
    layout = read_layout(store, attributes)
    n_whole = max(1, attributes["counts"]["converted"] // layout.shard_size)
    manifest = read_manifest(LocalObjects(store))
    shards = {}
    for group, shard in product(layout.groups, range(-(-rows.num_rows // layout.shard_size))):
        name, other = name_shard(group, shard), name_shard(group, shard % n_whole)
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to((store / other).absolute())
        shards[name] = manifest.shards[other]
    coordinates = {name: rows[name].to_numpy() for name in ("patch_id", "epsg", "x_ul", "y_ul")}
    splits = rows.filter(rows["recommended"])["split"].to_pylist()
    write_metadata(folder, layout, coordinates, attributes | {"splits": count_splits(splits)})
    enlarged = build_manifest(folder, manifest.fingerprint, manifest.counts, shards)
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
        enlarge_images(arguments.store, store, enlarge_table(arguments.store, store, arguments.patches))
        print(f"{arguments.patches:,} rows, {(store / TABLE).stat().st_size / 1e6:.1f} MB")
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
