"""The description of a store, as mlcroissant validates it and reads the table through it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from converter.verify.verification import VerifyOptions, verify
from tests.archives import read_files
from tests.samples import Samples

STORES = ("sample-store", "pairs-store", "v2-store")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlcroissant's own


def open_description(store: Path) -> Any:
    return mlcroissant.Dataset(jsonld=store / "croissant.json")


@pytest.fixture(params=STORES)
def described(request: pytest.FixtureRequest, samples: Samples) -> Path:
    return samples.root / "data" / str(request.param)


def test_mlcroissant_finds_no_error_and_nothing_to_warn_of(described: Path) -> None:
    issues = open_description(described).metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())


def test_the_records_are_the_rows_of_the_table(described: Path) -> None:
    records = list(open_description(described).records("patches"))
    rows = pq.read_table(described / "patches.parquet").drop_columns(["geometry"]).to_pylist()
    assert [_plain(record) for record in records] == rows


def _plain(value: Any) -> Any:
    """Return a record of mlcroissant as pyarrow would."""
    match value:
        case dict():
            return {name.rpartition("/")[2]: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case bytes():
            return value.decode()
        case np.generic():
            return value.item()
        case pd.Timestamp():
            return value.to_pydatetime()
    return value


def test_every_column_is_described_with_its_own_type(described: Path) -> None:
    types = {
        pa.int16(): "Int16",
        pa.int32(): "Int32",
        pa.float64(): "Float64",
        pa.string(): "Text",
        pa.bool_(): "Boolean",
        pa.timestamp("ms", tz="UTC"): "DateTime",
    }
    (fields,) = (found.fields for found in open_description(described).metadata.record_sets if found.id == "patches")
    found = {field.name: [str(kind).rpartition("/")[2] for kind in field.data_types] for field in fields}
    schema = pq.read_schema(described / "patches.parquet")
    assert list(found) == [name for name in schema.names if name != "geometry"]
    for name, kinds in found.items():
        if name != "bbox":
            kind = schema.field(name).type
            assert kinds == [types[kind.value_type if pa.types.is_list(kind) else kind]]
    assert {field.name for field in fields if field.repeated} == {"labels", "labels_19"}


def test_each_split_is_one_that_croissant_knows(described: Path) -> None:
    records = [_plain(record) for record in open_description(described).records("splits")]
    names = set(pq.read_table(described / "patches.parquet")["split"].to_pylist()) - {None}
    assert names <= {record["name"] for record in records}
    assert {record["url"] for record in records} == {"cr:TrainingSplit", "cr:ValidationSplit", "cr:TestSplit"}


def test_every_file_of_the_store_is_named_once_and_identified(described: Path) -> None:
    metadata = open_description(described).metadata
    for file in metadata.file_objects:
        content = (described / file.content_url).read_bytes()
        assert (file.sha256, file.content_size) == (hashlib.sha256(content).hexdigest(), f"{len(content)} B")
    (images,) = metadata.file_sets
    named = [*(file.content_url for file in metadata.file_objects), *images.includes]
    for name in read_files(described).keys() - {"croissant.json", "manifest.json"}:
        assert sum(fnmatch(name, pattern) for pattern in named) == 1, name


@pytest.mark.parametrize(
    ("store", "name", "version", "citation"),
    [
        ("sample-store", "BigEarthNet v1.0", "1.0.0", "doi:10.1109/IGARSS.2019.8900532"),
        ("v2-store", "BigEarthNet v2.0", "2.0.0", "arXiv:2407.03653"),
    ],
)
def test_who_cites_finds_the_right_paper(store: str, name: str, version: str, citation: str, samples: Samples) -> None:
    metadata = open_description(samples.root / "data" / store).metadata
    assert metadata.name == f"Synthetic sample in the form of {name}"
    assert (metadata.version, metadata.license) == (version, ["https://cdla.dev/permissive-1-0/"])
    assert citation in metadata.cite_as
    assert f"{len(samples.rows(store))} of the " in metadata.description


# -- Verification ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(samples: Samples, tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples.root / "data/pairs-store", tmp_path / "store"))


def find_faults(store: Path, scheduler: str) -> list[str]:
    return [str(fault) for fault in verify(store, VerifyOptions(scheduler=scheduler)).faults]


def damage(path: Path, samples: Samples) -> Iterator[str]:
    """Put descriptions in its place that are not the store's, saying what was changed."""
    text = path.read_text()
    described = json.loads(text)
    path.write_text(text.replace("Int32", "Int16", 1))
    yield "one word"
    path.write_text(text.replace(described["distribution"][0]["sha256"], "0" * 64))
    yield "no checksum of the table"
    path.write_text(text.replace(described["distribution"][0]["contentSize"], "0 B"))
    yield "no size of the table"
    path.write_text((samples.root / "data/v2-store/croissant.json").read_text())
    yield "that of another store"
    path.write_bytes(b"")
    yield "emptied"


def test_a_description_that_is_not_the_one_that_was_written_is_found(
    copy: Path, samples: Samples, scheduler: str
) -> None:
    for what in damage(copy / "croissant.json", samples):
        (fault,) = find_faults(copy, scheduler)
        assert fault.startswith("croissant.json: its bytes are not those that were written"), what
    (copy / "croissant.json").unlink()
    (fault,) = find_faults(copy, scheduler)
    assert fault.startswith("croissant.json: cannot be read (No such file or directory)")
