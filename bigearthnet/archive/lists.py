"""The official v1.0 lists: splits, snow, cloud and shadow, missing 19-class labels, country, season, Sentinel-1 pair.

By default they are the data files of the PyPI package `bigearthnet-common`, found without importing it.
"""

from __future__ import annotations

import bz2
import csv
import io
import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet.archive.records import Patch, Source
from bigearthnet.errors import MissingPackageError, SourceError

_SPLIT_FILES: Final = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
_PAIRS_COLUMNS: Final = ["s1_name", "s2_name", "country", "season"]

_NAME: Final = re.compile(r"S[12][A-Za-z0-9_]+")
"""What the names of patches consist of; checked here, since they become paths and rows of the table."""


class Pairing(NamedTuple):
    """Where and when a patch was sensed, and its Sentinel-1 partner."""

    s1_name: str
    country: str
    season: str


@dataclass(frozen=True)
class OfficialLists:
    """What is known of every v1.0 patch before any of its files is opened."""

    split_of: dict[str, str]
    """Split of each listed patch."""
    pairing_of: dict[str, Pairing]
    """Sentinel-1 name, country and season of each listed patch."""
    snow: frozenset[str]
    """Patches covered by seasonal snow."""
    cloud: frozenset[str]
    """Patches under clouds or their shadow."""
    no_19: frozenset[str]
    """Patches none of whose labels has a 19-class form."""

    @cached_property
    def patch_ids(self) -> frozenset[str]:
        """Every patch that is listed."""
        return frozenset(self.pairing_of)

    def s1_name(self, patch_id: str) -> str | None:
        """Name the Sentinel-1 patch that is paired with a Sentinel-2 patch."""
        pairing = self.pairing_of.get(patch_id)
        return pairing.s1_name if pairing else None

    def describe(self, source: Source) -> Patch:
        """Join the lists on one patch; an unlisted one is in no split and not recommended."""
        patch_id = source.patch_id
        pairing = self.pairing_of.get(patch_id)
        split = self.split_of.get(patch_id)
        snow, cloud = patch_id in self.snow, patch_id in self.cloud
        return Patch(
            source,
            split=split,
            recommended=split is not None and not (snow or cloud or patch_id in self.no_19),
            country=pairing.country if pairing else None,
            season=pairing.season if pairing else None,
            contains_seasonal_snow=snow,
            contains_cloud_or_shadow=cloud,
        )


def read_lists(directory: Path | None = None) -> OfficialLists:
    """Read the official lists, about two seconds for all 590,326 patches.

    Args:
        directory: Folder of CSVs, plain or `.bz2`, under their official names; the lists that come with
            `bigearthnet-common` if None.

    Raises:
        SourceError: A list is missing, is not the list its name says, or names a patch twice.
    """
    folder = directory if directory is not None else _packaged_lists()
    return OfficialLists(
        split_of=_read_splits(folder),
        pairing_of=_read_pairing(folder),
        snow=frozenset(_read_names(folder, "patches_with_seasonal_snow.csv")),
        cloud=frozenset(_read_names(folder, "patches_with_cloud_and_shadow.csv")),
        no_19=frozenset(_read_names(folder, "patches_with_no_19_class_targets.csv")),
    )


def packaged_example(sensor: str) -> Path:
    """Locate the archive of six real patches of a sensor, `S1` or `S2`, that `bigearthnet-common` ships."""
    return _packaged_lists() / f"BigEarthNet-{sensor}-Example.tar.bz2"


def _packaged_lists() -> Path:
    spec = find_spec("bigearthnet_common")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("the package bigearthnet-common, which carries the official lists, is not installed")
    return Path(spec.submodule_search_locations[0])


def _open_list(folder: Path, file: str) -> tuple[Path, io.TextIOBase]:
    for path in (folder / file, folder / f"{file}.bz2"):
        if path.is_file():
            data = path.read_bytes()
            try:
                text = (bz2.decompress(data) if path.suffix == ".bz2" else data).decode("utf-8-sig")
            except (OSError, ValueError) as error:
                raise SourceError(f"{path}: cannot be decoded as a UTF-8 list ({error})") from error
            return path, io.StringIO(text, newline=None)
    raise SourceError(f"{folder}: expected the official list {file} or {file}.bz2, found neither")


def _read_splits(folder: Path) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split, file in _SPLIT_FILES.items():
        for name in _read_names(folder, file):
            if (other := split_of.setdefault(name, split)) != split:
                raise SourceError(f"{folder / file}: expected {name} in one split, found it in {other} and {split}")
    return split_of


def _read_names(folder: Path, file: str) -> set[str]:
    """Read the patch names of a list that has one name a line and no header; it may be empty."""
    path, lines = _open_list(folder, file)
    names: set[str] = set()
    for number, line in enumerate(lines, 1):
        if name := line.strip().split(",")[0]:
            _check_name(path, number, name, "S2", names)
            names.add(name)
    return names


def _check_name(path: Path, number: int, name: str, sensor: str, others: Container[str]) -> None:
    if not (name.startswith(sensor) and _NAME.fullmatch(name)):
        raise SourceError(f"{path}:{number}: expected a Sentinel-{sensor[1]} patch name, found {name!r:.120}")
    if name in others:
        raise SourceError(f"{path}:{number}: expected each patch once, found {name} again; remove one of its lines")


def _read_pairing(folder: Path) -> dict[str, Pairing]:
    path, lines = _open_list(folder, "s1_s2_name_country_season.csv")
    pairing_of: dict[str, Pairing] = {}
    s1_names: set[str] = set()
    rows = csv.reader(lines)
    try:
        header = next(rows, None)
        if header != _PAIRS_COLUMNS:
            raise SourceError(f"{path}: expected the columns {_PAIRS_COLUMNS}, found {header}")
        for row in filter(None, rows):
            if len(row) != len(_PAIRS_COLUMNS):
                raise SourceError(f"{path}:{rows.line_num}: expected {len(_PAIRS_COLUMNS)} fields, found {row}")
            s1_name, s2_name, country, season = row
            _check_name(path, rows.line_num, s1_name, "S1", s1_names)
            _check_name(path, rows.line_num, s2_name, "S2", pairing_of)
            if not (country + season).isprintable():  # they are shown on terminals and pages
                raise SourceError(f"{path}:{rows.line_num}: expected a country and a season, found {row[2:]}")
            s1_names.add(s1_name)
            pairing_of[s2_name] = Pairing(s1_name, country, season)
    except csv.Error as error:
        raise SourceError(f"{path}:{rows.line_num}: cannot be read as CSV ({error})") from error
    return pairing_of
