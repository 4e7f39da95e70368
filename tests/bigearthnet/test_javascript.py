"""zarrita and hyparquet, under node, read the same pixels and rows as rasterio and Arrow."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from bigearthnet.store.layout import CODECS
from converter.conversion import ConvertOptions
from tests.documents import find_blocks
from tests.forms import ARRAYS_V2, V2Archive, convert_here, write_v2, write_v2_lists
from tests.js.packages import HERE, MODULES, install_packages, run_node
from tests.samples import Samples

ROWS: Final = (0, 1, 4, 8)
COLUMNS: Final = (
    *(
        "index",
        "patch_id",
        "labels",
        "labels_19",
        "split",
        "recommended",
        "country",
        "season",
        "contains_seasonal_snow",
    ),
    *("s1_name", "has_s1", "s2_time", "s1_time", "satellite", "tile", "column", "row", "epsg", "x_ul", "zero_pixels"),
    *("geometry", "bbox"),
)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    try:
        install_packages()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    return write_v2(tmp_path_factory.mktemp("v2"))


@pytest.fixture(scope="module")
def stores(v2: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of v2.0, with everything there is, in each codec; and what is in it."""
    folder = tmp_path_factory.mktemp("stores")
    lists = write_v2_lists(folder / "lists", v2)
    for codec in CODECS:
        convert_here(v2.sources, folder / codec, ConvertOptions(lists=lists, codec=codec, shard_size=8))
    (folder / "expected.json").write_text(json.dumps({codec: expect(folder / codec, v2) for codec in CODECS}))
    return folder


def expect(store: Path, v2: V2Archive) -> dict[str, Any]:
    """Say what is in a store: checksums of rasterio's pixels and Arrow's rows, as JSON values."""
    rows = pq.read_table(store / "patches.parquet", columns=list(COLUMNS)).to_pylist()
    arrays = {}
    for array in ARRAYS_V2:
        pixels = {row: v2.read_array(rows[row]["patch_id"], array) for row in ROWS}
        arrays[array] = {
            "shape": [len(rows), *pixels[0].shape],
            "dtype": str(pixels[0].dtype),
            "pixels": {row: hashlib.sha256(found.tobytes()).hexdigest() for row, found in pixels.items()},
        }
    return {"arrays": arrays, "patches": [{name: _plain(value) for name, value in row.items()} for row in rows]}


def _plain(value: Any) -> Any:
    """Return a value as JSON.stringify writes it; footprints as GeoJSON."""
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.loads(shapely.to_geojson(shapely.from_wkb(value))) if isinstance(value, bytes) else value


def test_zarrita_and_hyparquet_read_every_codec_from_disk_and_over_http(stores: Path) -> None:
    done = run_node("--test", "--test-reporter=tap", str(HERE / "store.test.js"), cwd=HERE, STORES=str(stores))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"# tests 26", "# pass 26"} <= set(done.stdout.splitlines())


def test_what_the_document_shows_runs(samples: Samples, in_samples: Path) -> None:
    (block,) = find_blocks("interoperability.md", "js")
    (in_samples / "node_modules").symlink_to(MODULES)
    try:
        done = run_node("--input-type=module", "--eval", block.code, cwd=in_samples)
    finally:
        (in_samples / "node_modules").unlink()
    assert done.returncode == 0, done.stderr
    row = next(row for row in samples.rows("sample-store") if "Coniferous forest" in row["labels_19"])
    red = samples.read_array("sample-store", row, "s2_10m")[2]
    assert json.loads(done.stdout) == [row["patch_id"], [120, 120], int(np.max(red))]
