"""The official v2.0 metadata: one Parquet row a patch, with labels, split, country and the Sentinel-1 pair."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearthnet.archive.lists import OfficialLists
from bigearthnet.archive.records import Patch, Source
from bigearthnet.errors import SourceError
from bigearthnet.labels import LABELS_19
from bigearthnet.names import SPLITS

FILES: Final = ("metadata.parquet", "metadata_for_patches_with_snow_cloud_or_shadow.parquet")
"""Official names of the two files: the recommended patches, and those with snow, cloud or shadow."""

_SCHEMA: Final = pa.schema(
    [
        pa.field("patch_id", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("split", pa.string()),
        *(pa.field(name, pa.string()) for name in ("country", "s1_name", "s2v1_name")),
        *(pa.field(f"contains_{what}", pa.bool_(), nullable=False) for what in ("seasonal_snow", "cloud_or_shadow")),
    ]
)
"""The columns that are read, and which of them every patch must have a value of."""


def find_metadata(root: Path) -> tuple[Path, ...]:
    """Find the official files in a folder or, as the archives are published, beside it."""
    nearest = (next(filter(Path.is_file, (root / file, root.parent / file)), None) for file in FILES)
    return tuple(filter(None, nearest))


def find_metadata_above(folder: Path) -> tuple[Path, ...]:
    """Find the official files that are nearest to a folder of patches, or to a single patch: up to three levels up."""
    return next(filter(None, map(find_metadata, (folder, *folder.parents[:2]))), ())


@dataclass(frozen=True)
class Metadata:
    """What the metadata says of every patch it lists."""

    row_of: dict[str, dict[str, Any]]
    """Row of each patch, by name."""
    lists: OfficialLists
    """The v1.0 lists, which know the season of the same patch."""

    @cached_property
    def patch_ids(self) -> frozenset[str]:
        """Every patch that is listed."""
        return frozenset(self.row_of)

    def describe(self, source: Source) -> Patch | None:
        """Join the metadata on one patch; None if it is not listed."""
        row = self.row_of.get(source.patch_id)
        if row is None:
            return None
        snow, cloud = row["contains_seasonal_snow"], row["contains_cloud_or_shadow"]
        v1 = self.lists.pairing_of.get(row["s2v1_name"])
        return Patch(
            source,
            split=row["split"],
            recommended=not (snow or cloud),
            country=row["country"],
            season=v1.season if v1 else None,
            contains_seasonal_snow=snow,
            contains_cloud_or_shadow=cloud,
            labels=tuple(row["labels"]),
            s2v1_name=row["s2v1_name"],
        )

    def s1_name(self, patch_id: str) -> str | None:
        """Name the Sentinel-1 patch that is paired with a Sentinel-2 patch."""
        row = self.row_of.get(patch_id)
        return row["s1_name"] if row else None


def read_metadata(paths: Sequence[Path], lists: OfficialLists) -> Metadata:
    """Read metadata files.

    Args:
        paths: One or both official files.
        lists: The v1.0 lists, for the seasons.

    Raises:
        SourceError: A file is missing, is not of the official form, or lists a patch again.
    """
    row_of: dict[str, dict[str, Any]] = {}
    for path in paths:
        for row in _read_rows(path):
            if row_of.setdefault(row["patch_id"], row) is not row:
                raise SourceError(f"{path}: the patch {row['patch_id']} is listed twice; give each list once")
    return Metadata(row_of, lists)


def find_rows(paths: Sequence[Path], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Find what metadata files say of a few patches, without the time and memory that all of them take.

    Args:
        paths: One or both official files.
        names: Names of Sentinel-2 patches, or of the Sentinel-1 patches that they are paired with.

    Returns:
        The row of each patch that is listed, by the name that it was asked for.

    Raises:
        SourceError: A file is missing or is not of the official form.
    """
    return {
        row[column]: row
        for path in paths
        for column in ("patch_id", "s1_name")
        for row in _read_rows(path, pc.field(column).isin(list(names)))
    }


def _read_rows(path: Path, condition: pc.Expression | None = None) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path, filters=condition)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: expected the official metadata, found no such file") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path}: expected a Parquet file, cannot be read as one: {error}") from error
    if missing := [name for name in _SCHEMA.names if name not in table.column_names]:
        raise SourceError(f"{path}: expected the official columns, found none named {', '.join(missing)}")
    try:
        rows: list[dict[str, Any]] = table.select(_SCHEMA.names).cast(_SCHEMA).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(f"{path}: expected columns of the official types, found others ({error})") from error
    for row in rows:
        labels = row["labels"] or ()
        if row["split"] not in SPLITS or not labels or not set(labels) <= set(LABELS_19):
            raise SourceError(
                f"{path}: {row['patch_id']!r}: expected a split of {', '.join(SPLITS)} and labels of the 19-class "
                f"nomenclature, found {row['split']!r} and {row['labels']!r}"
            )
        if len(set(labels)) != len(labels):
            raise SourceError(f"{path}: {row['patch_id']!r}: expected each label once, found {labels!r}")
        names = [row[name] for name in ("patch_id", "s1_name", "s2v1_name", "country") if row[name] is not None]
        if not all(map(str.isprintable, names)):  # they become paths, and are shown on terminals and pages
            raise SourceError(f"{path}: expected names of patches and a country, found {names!r}")
    return rows
