"""The two metadata files of v2.0 for a sample, with the official columns and types."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bigearthnet.archive.metadata import FILES
from bigearthnet.labels import to_labels_19
from converter.sample.brief import Brief

_SCHEMA: Final = pa.schema(
    [
        ("patch_id", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("split", pa.string()),
        ("country", pa.string()),
        ("s1_name", pa.string()),
        ("s2v1_name", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)


def write_listing(out: Path, briefs: Iterable[Brief]) -> int:
    """Write both files, the second even if it has no rows.

    Returns:
        Bytes written.
    """
    rows = sorted(map(_describe, briefs), key=lambda row: str(row["patch_id"]))
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row in rows:
        parts[row["contains_seasonal_snow"] or row["contains_cloud_or_shadow"]].append(row)
    for file, part in zip(FILES, parts, strict=True):
        pq.write_table(pa.Table.from_pylist(part, _SCHEMA), out / file, compression="zstd", store_schema=False)
    return sum((out / file).stat().st_size for file in FILES)


def _describe(brief: Brief) -> dict[str, Any]:
    labels, _ = brief.draw_details()
    return {
        "patch_id": brief.v2_name,
        "labels": sorted(to_labels_19(labels)),
        "split": brief.v2_split,
        "country": brief.country,
        "s1_name": brief.s1_name,
        "s2v1_name": brief.name,
        "contains_seasonal_snow": brief.snow,
        "contains_cloud_or_shadow": brief.cloud,
    }
