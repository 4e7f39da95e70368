"""The fingerprint, recomputed from what docs/reliability.md says of it, without Arrow's buffers."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearthnet.store.table import hash_table

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TINY = pa.table(
    {
        "index": pa.array([0, 1, 2], pa.int32()),
        "name": pa.array(["first", None, "dritte Fläche"]),
        "labels": pa.array([["Pastures", "Marine waters"], [], ["Pastures"]], pa.list_(pa.string())),
        "recommended": pa.array([True, False, None]),
        "time": pa.array([datetime(2017, 6, 13, 10, 10, 31, tzinfo=UTC), None, EPOCH], pa.timestamp("ms", tz="UTC")),
        "x_ul": pa.array([300_000.0, -0.5, 1e-300]),
        "geometry": pa.array([b"\0\1", b"", b"\xff"], pa.binary()),
        "bbox": pa.array(
            [{"xmin": 1.5, "row": 1}, {"xmin": None, "row": 2}, None],
            pa.struct([("xmin", pa.float64()), ("row", pa.int64())]),
        ),
    }
)


def encode(values: Sequence[Any], kind: pa.DataType) -> bytes:
    """Encode a column as the format says, from Python's own values."""
    present = bytes(value is not None for value in values)
    if pa.types.is_struct(kind):
        fields = [
            encode([None if value is None else value[field.name] for value in values], field.type) for field in kind
        ]
        return present + b"".join(fields)
    if pa.types.is_list(kind):
        lengths = b"".join(struct.pack("<I", len(value or ())) for value in values)
        return present + lengths + encode([item for value in values for item in value or ()], kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        content = [value.encode() if isinstance(value, str) else value or b"" for value in values]
        return present + b"".join(struct.pack("<I", len(one)) for one in content) + b"".join(content)
    codes = {
        pa.bool_(): "B",
        pa.int16(): "h",
        pa.int32(): "i",
        pa.int64(): "q",
        pa.float64(): "d",
        pa.timestamp("ms", tz="UTC"): "q",
    }
    numbers = [
        round((value - EPOCH).total_seconds() * 1_000) if isinstance(value, datetime) else value or 0
        for value in values
    ]
    return present + struct.pack(f"<{len(numbers)}{codes[kind]}", *numbers)


def hash_values(table: pa.Table) -> str:
    content = f"{table.num_rows}\n".encode()
    for field in table.schema:
        content += f"{field.name}\n".encode() + encode(table[field.name].to_pylist(), field.type)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def test_the_hash_of_a_table_is_pinned() -> None:
    assert hash_table(TINY) == "a762531063e800a237e4674ea1a63f2f"
    assert hash_values(TINY) == hash_table(TINY)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: pa.concat_tables([table.slice(0, 1), table.slice(1, 2)]),
        lambda table: pa.concat_tables([table.slice(2, 1), table]).slice(1),
        lambda table: table.set_column(1, "name", table["name"].dictionary_encode()),
        lambda table: table.set_column(1, "name", pa.chunked_array([["first", None], ["dritte Fläche"]])),
    ],
)
def test_it_is_the_same_whatever_holds_the_values(change: Callable[[pa.Table], pa.Table]) -> None:
    assert hash_table(change(TINY)) == hash_table(TINY)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("index", [0, 1, 3]),
        ("name", ["first", "", "dritte Fläche"]),
        ("name", ["firs", "t", "dritte Fläche"]),
        ("labels", [["Pastures"], ["Marine waters"], ["Pastures"]]),
        ("labels", [["Pastures", "Marine waters"], None, ["Pastures"]]),
        ("labels", [["PasturesMarine waters"], [], ["Pastures"]]),
        ("recommended", [True, False, False]),
        ("time", [TINY["time"][0].as_py(), EPOCH, EPOCH]),
        ("x_ul", [300_000.0, 0.5, 1e-300]),
        ("geometry", [b"\0", b"\1", b"\xff"]),
        ("bbox", [{"xmin": 1.5, "row": 1}, {"xmin": None, "row": 2}, {"xmin": None, "row": None}]),
    ],
)
def test_any_other_value_gives_another(column: str, values: list[Any]) -> None:
    place, field = TINY.schema.get_field_index(column), TINY.schema.field(column)
    assert hash_table(TINY.set_column(place, field, pa.array(values, field.type))) != hash_table(TINY)


def test_the_fingerprint_of_a_store_is_that_of_its_shards_and_its_table(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    hashes = [checksum for _, checksum in manifest["shards"].values()] + [
        hash_values(pq.read_table(store / "patches.parquet"))
    ]
    assert hashlib.blake2b("".join(hashes).encode(), digest_size=16).hexdigest() == manifest["fingerprint"]
