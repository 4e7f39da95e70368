"""The GeoParquet table of patches: build it, write it, summarise it.

pyarrow is given open files, never paths, since it takes none that is not UTF-8.

Source: GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/). `crs` is left out, which means OGC:CRS84.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from bigearthnet.archive.records import Patch, PatchFacts, Reject
from bigearthnet.errors import StoreError
from bigearthnet.labels import to_labels_19
from bigearthnet.names import parse_patch_name
from bigearthnet.store.footprint import outline_patches
from bigearthnet.store.layout import FORMAT_NAME, ORIGIN, REJECTS, TABLE

_LABELS: Final = pa.list_(pa.string())
_TIME: Final = pa.timestamp("ms", tz="UTC")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_BOUNDS: Final = pa.struct([pa.field(corner, pa.float64(), nullable=False) for corner in _CORNERS])

COLUMNS: Final = {
    "index": (pa.int32(), "Position in every array of the images; equals the row number."),
    "patch_id": (pa.string(), "Name of the Sentinel-2 patch."),
    "labels": (_LABELS, "Classes of the patch, as the source gives them: of 43 in v1.0, of 19 in v2.0."),
    "labels_19": (_LABELS, "Classes of the patch in the 19-class nomenclature; may be none."),
    "split": (pa.string(), "Official split; none where no list names the patch."),
    "recommended": (pa.bool_(), "In a split, free of snow, cloud and shadow, with a 19-class label."),
    "country": (pa.string(), "Country of the patch."),
    "season": (pa.string(), "Season in which the patch was sensed."),
    "contains_seasonal_snow": (pa.bool_(), "Covered by seasonal snow, by the official list."),
    "contains_cloud_or_shadow": (pa.bool_(), "Under cloud or its shadow, by the official list."),
    "s1_name": (pa.string(), "Name of the paired Sentinel-1 patch."),
    "s2v1_name": (pa.string(), "Name of the same patch in BigEarthNet v1.0; none in v1.0 itself."),
    "has_s1": (pa.bool_(), "The images hold Sentinel-1 pixels of the patch."),
    "s2_time": (_TIME, "Start of Sentinel-2 sensing, UTC."),
    "s1_time": (_TIME, "Start of Sentinel-1 sensing, UTC; none without Sentinel-1."),
    "satellite": (pa.string(), "Sentinel-2 satellite."),
    "tile": (pa.string(), "MGRS tile."),
    "column": (pa.int16(), "Position in the tile, in patches from the west."),
    "row": (pa.int16(), "Position in the tile, in patches from the north."),
    "epsg": (pa.int32(), "EPSG code of the projected coordinate system."),
    "x_ul": (pa.float64(), "Easting of the upper-left corner in metres."),
    "y_ul": (pa.float64(), "Northing of the upper-left corner in metres."),
    "zero_pixels": (pa.int32(), "Zeros in the stored 10 m bands of Sentinel-2, over all bands."),
    "geometry": (pa.binary(), "Footprint in longitude and latitude, WKB."),
    "bbox": (_BOUNDS, "Bounds of the footprint in longitude and latitude."),
}
"""What the table says of a patch: type and meaning of each column."""

_NULLABLE: Final = frozenset(
    {"split", "country", "season", "s1_name", "s2v1_name", "s2_time", "s1_time", "tile", "zero_pixels"}
)

_SCHEMA: Final = pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, (kind, _) in COLUMNS.items()])

_ORIGIN_FIELD: Final = pa.field(ORIGIN, pa.int32(), nullable=False)

_DICTIONARY_COLUMNS: Final = [
    *("labels.list.element", "labels_19.list.element", "split", "country", "season", "satellite", "tile", "epsg"),
]
PATCH_COLUMNS: Final = (
    *("patch_id", "split", "recommended", "country", "season", "contains_seasonal_snow", "contains_cloud_or_shadow"),
    "s2v1_name",
)
"""Columns that are fields of a `Patch`."""

_ROW_GROUP_ROWS: Final = 50_000

_GEO: Final = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "covering": {"bbox": {corner: ["bbox", corner] for corner in _CORNERS}},
        }
    },
}

Table = pa.Table
"""The type of a table, for those who may not import pyarrow."""

_FINGERPRINT_KEY: Final = f"{FORMAT_NAME}:fingerprint"


def build_table(patches: Sequence[Patch], facts: Sequence[PatchFacts]) -> pa.Table:
    """Join what the lists know of each patch with what reading it taught.

    Args:
        patches: Patches in store order.
        facts: The facts of the same patches in the same order.
    """
    names = [parse_patch_name(patch.patch_id) for patch in patches]
    labels = [patch.labels or fact.labels or () for patch, fact in zip(patches, facts, strict=True)]
    epsg = np.array([fact.epsg for fact in facts], dtype=np.int32)
    x_ul = np.array([fact.x_ul for fact in facts])
    y_ul = np.array([fact.y_ul for fact in facts])
    outlines, bounds = outline_patches(epsg, x_ul, y_ul)
    columns: dict[str, Any] = {
        **{name: [getattr(patch, name) for patch in patches] for name in PATCH_COLUMNS},
        **{name: [getattr(fact, name) for fact in facts] for name in ("tile", "zero_pixels", "has_s1")},
        **{name: [getattr(part, name) for part in names if part] for name in ("satellite", "column", "row")},
        "index": np.arange(len(patches), dtype=np.int32),
        "labels": labels,
        "labels_19": [to_labels_19(classes) for classes in labels],
        "s1_name": [patch.source.s1_name for patch in patches],
        "s2_time": np.array([fact.s2_time for fact in facts], dtype="datetime64[ms]"),
        "s1_time": np.array([fact.s1_time for fact in facts], dtype="datetime64[ms]"),
        "epsg": epsg,
        "x_ul": x_ul,
        "y_ul": y_ul,
        "geometry": outlines,
        "bbox": pa.StructArray.from_arrays(
            [pa.array(np.ascontiguousarray(side)) for side in bounds.T], fields=list(_BOUNDS)
        ),
    }
    return pa.table({name: pa.array(columns[name], _SCHEMA.field(name).type) for name in _SCHEMA.names}, schema=_SCHEMA)


def take_rows(table: pa.Table, rows: NDArray[np.integer]) -> pa.Table:
    """Take some rows, which become a table of their own that says which rows of the whole they were.

    Args:
        table: A table of a store, perhaps itself a part.
        rows: Ascending positions in it, shape (patch,).
    """
    part = table.take(pa.array(rows))
    if ORIGIN not in part.column_names:
        part = part.append_column(_ORIGIN_FIELD, part["index"])
    place = part.column_names.index("index")
    return part.set_column(place, _SCHEMA.field("index"), pa.array(np.arange(len(rows), dtype=np.int32)))


def encode_table(table: pa.Table, fingerprint: str) -> bytes:
    """Return the table as a Parquet file, which repeats the fingerprint so that it is known away from its store."""
    file = pa.BufferOutputStream()
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        use_dictionary=_DICTIONARY_COLUMNS,
        store_schema=False,
        write_page_index=True,
    ) as writer:
        writer.add_key_value_metadata({"geo": json.dumps(_GEO), _FINGERPRINT_KEY: fingerprint})
        writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
    return bytes(file.getvalue())


def encode_rejects(rejects: Iterable[Reject]) -> bytes:
    """Return the list of patches that could not be converted as a Parquet file: `patch_id`, `file`, `reason`."""
    rows = [asdict(reject) for reject in sorted(rejects, key=lambda reject: reject.patch_id)]
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")
    return bytes(file.getvalue())


def hash_table(table: pa.Table) -> str:
    """Hash the values of a table, whatever chunks or dictionaries hold them, as docs/reliability.md defines it."""
    digest = hashlib.blake2b(f"{table.num_rows}\n".encode(), digest_size=16)
    for name in table.column_names:
        digest.update(f"{name}\n".encode())
        for part in _encode_values(table[name].combine_chunks()):
            digest.update(part)
    return digest.hexdigest()


def _encode_values(values: pa.Array) -> Iterator[bytes]:
    """Yield the canonical bytes of a column: which values are there, their lengths if these vary, then all of them."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    yield _pack(values.is_valid(), "u1")
    if pa.types.is_struct(kind):
        for position in range(kind.num_fields):
            yield from _encode_values(pc.struct_field(values, position))
    elif pa.types.is_list(kind):
        yield _pack(pc.list_value_length(values), "<u4")
        yield from _encode_values(values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield _pack(pc.binary_length(values), "<u4")
        yield _join(values.drop_null())
    elif pa.types.is_boolean(kind):
        yield _pack(values, "u1")
    else:
        numbers = values.cast(pa.int64()) if pa.types.is_timestamp(kind) else values
        yield _pack(numbers, np.dtype(numbers.type.to_pandas_dtype()).newbyteorder("<"))


def _pack(numbers: pa.Array, dtype: DTypeLike) -> bytes:
    """Return the bytes of numbers, with 0 for null."""
    present = numbers.fill_null(False if pa.types.is_boolean(numbers.type) else 0)
    return bytes(present.to_numpy(zero_copy_only=False).astype(dtype).tobytes())


def _join(strings: pa.Array) -> bytes:
    """Return the bytes of strings that are all there, one after another."""
    if not len(strings):
        return b""
    _, offsets, content = strings.buffers()
    ends = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return bytes(memoryview(content or b"")[ends[0] : ends[-1]])


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """Open a table of the store; whatever is wrong with it becomes one error that names it.

    Its bytes are copied into Arrow's own memory: one of Arrow's threads that let go of a Python file just when Python
    ended aborted the process.
    """
    try:
        with open(path, "rb") as file:
            content = pa.allocate_buffer(os.fstat(file.fileno()).st_size)
            file.readinto(memoryview(content))
        yield pa.BufferReader(content)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path}: expected a Parquet table of a store, cannot be read as one ({error}); copy the store again, or "
            "convert again with the option overwrite"
        ) from error


def read_table(store: Path) -> pa.Table:
    """Read the table of a finished store, in the schema that `build_table` gives it."""
    with _open_parquet(store / TABLE) as file:
        is_part = ORIGIN in pq.read_schema(file).names
        return pq.read_table(file, schema=_SCHEMA.append(_ORIGIN_FIELD) if is_part else _SCHEMA)


def read_rows(store: Path) -> list[dict[str, Any]]:
    """Read the table without its geometry as one record a patch: labels as tuples, times as they stand in the source.

    Raises:
        StoreError: The file is not the table of a store.
    """
    table = read_table(store).drop_columns(["geometry", "bbox"])
    for name in ("s2_time", "s1_time"):
        text = pc.strftime(table[name], "%Y-%m-%d %H:%M:%S")
        column = pc.utf8_slice_codeunits(text, 0, len("2017-06-13 10:10:31"))
        table = table.set_column(table.column_names.index(name), name, column)
    shared: dict[str | tuple[str, ...], Any] = {}

    def share(value: Any) -> Any:
        """Return one object for all values that are equal: few of them are different."""
        value = tuple(value) if isinstance(value, list) else value
        return shared.setdefault(value, value) if isinstance(value, str | tuple) else value

    return [
        {name: share(value) for name, value in row.items()}
        for batch in table.to_batches(max_chunksize=4_096)
        for row in batch.to_pylist()
    ]


def count_rejects(store: Path) -> int:
    """Count the patches that were left out."""
    path = store / REJECTS
    if not path.is_file():
        return 0
    with _open_parquet(path) as file:
        return int(pq.read_metadata(file).num_rows)


def read_fingerprint(store: Path) -> str | None:
    """Read the fingerprint that the table repeats."""
    with _open_parquet(store / TABLE) as file:
        fingerprint = (pq.read_metadata(file).metadata or {}).get(_FINGERPRINT_KEY.encode())
    return None if fingerprint is None else fingerprint.decode(errors="replace")


def count_values(store: Path) -> dict[str, dict[str, int]]:
    """Count the patches of a store per split, country, season and class.

    Returns:
        For each column, the number of patches of each value; list columns count every class of a patch.
    """
    columns = ["split", "recommended", "country", "season", "contains_seasonal_snow", "contains_cloud_or_shadow"]
    with _open_parquet(store / TABLE) as file:
        table = pq.read_table(file, columns=[*columns, "labels", "labels_19"])
    counts = {name: _count(table[name]) for name in columns}
    counts["recommended_split"] = _count(table.filter(table["recommended"])["split"])
    return counts | {name: _count(pc.list_flatten(table[name])) for name in ("labels", "labels_19")}


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column.combine_chunks()).to_pylist()
    values = ((item["values"], item["counts"]) for item in counted)
    counts = {value if isinstance(value, str) else json.dumps(value): n for value, n in values}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
