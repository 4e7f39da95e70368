"""The official v1.0 lists: splits, snow, cloud and shadow, missing 19-class labels, country, season, Sentinel-1 pair.

By default they are the data files of the PyPI package `bigearthnet-common`, found without importing it.
"""

from __future__ import annotations

import bz2
import gc
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
from pyarrow import csv

from bigearthnet.archive.records import Patch, Source
from bigearthnet.errors import MissingPackageError, SourceError

_SPLIT_FILES: Final = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
_SNOW_FILE: Final = "patches_with_seasonal_snow.csv"
_CLOUD_FILE: Final = "patches_with_cloud_and_shadow.csv"
_NO_19_FILE: Final = "patches_with_no_19_class_targets.csv"
_PAIRS_FILE: Final = "s1_s2_name_country_season.csv"
_PAIRS_COLUMNS: Final = ["s1_name", "s2_name", "country", "season"]

_NAMES: Final = {sensor: re.compile(rf"{sensor}[A-Za-z0-9_]+") for sensor in ("S1", "S2")}
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
    """Read the official lists, two to three seconds for all 590,326 patches.

    Args:
        directory: Folder of CSVs, plain or `.bz2`, under their official names; the lists that come with
            `bigearthnet-common` if None.

    Raises:
        SourceError: A list is missing, is not the list its name says, or names a patch twice.
    """
    folder = directory if directory is not None else _packaged_lists()
    with ThreadPoolExecutor() as pool:  # unpacking the pairs takes longest: the names are read meanwhile
        files = (*_SPLIT_FILES.values(), _SNOW_FILE, _CLOUD_FILE, _NO_19_FILE, _PAIRS_FILE)
        unpacked = {file: pool.submit(_unpack, folder, file) for file in files}
        names_of = {file: _read_names(*unpacked[file].result()) for file in files if file != _PAIRS_FILE}
        pairing_of = _read_pairing(*unpacked[_PAIRS_FILE].result())
    split_of: dict[str, str] = {}
    for split, file in _SPLIT_FILES.items():
        if both := names_of[file].intersection(split_of):
            name = min(both)
            raise SourceError(
                f"{folder / file}: expected {name} in one split, found it in {split_of[name]} and {split}"
            )
        split_of |= dict.fromkeys(names_of[file], split)
    return OfficialLists(split_of, pairing_of, names_of[_SNOW_FILE], names_of[_CLOUD_FILE], names_of[_NO_19_FILE])


def packaged_example(sensor: str) -> Path:
    """Locate the archive of six real patches of a sensor, `S1` or `S2`, that `bigearthnet-common` ships."""
    return _packaged_lists() / f"BigEarthNet-{sensor}-Example.tar.bz2"


def _packaged_lists() -> Path:
    spec = find_spec("bigearthnet_common")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("the package bigearthnet-common, which carries the official lists, is not installed")
    return Path(spec.submodule_search_locations[0])


def _unpack(folder: Path, file: str) -> tuple[Path, bytes]:
    for path in (folder / file, folder / f"{file}.bz2"):
        if path.is_file():
            try:
                return path, bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
            except (OSError, ValueError) as error:
                raise SourceError(f"{path}: cannot be decoded ({error})") from error
    raise SourceError(f"{folder}: expected the official list {file} or {file}.bz2, found neither")


def _read_names(path: Path, content: bytes) -> frozenset[str]:
    """Read the patch names of a list that has one name a line and no header; it may be empty."""
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline=None)
    except ValueError as error:
        raise SourceError(f"{path}: cannot be decoded as a UTF-8 list ({error})") from error
    numbered = {number: name for number, line in enumerate(lines, 1) if (name := line.partition(",")[0].strip())}
    _check_names(path, list(numbered), list(numbered.values()), "S2")
    return frozenset(numbered.values())


def _check_names(path: Path, numbers: Sequence[int], names: Sequence[str], sensor: str) -> None:
    """Refuse the first name that no patch of a sensor can have or that is there again, by the number of its line."""
    is_name = _NAMES[sensor].fullmatch
    if len(set(names)) == len(names) and all(map(is_name, names)):
        return
    seen: set[str] = set()
    for number, name in zip(numbers, names, strict=True):
        if not is_name(name):
            raise SourceError(f"{path}:{number}: expected a Sentinel-{sensor[1]} patch name, found {name!r:.120}")
        if name in seen:
            raise SourceError(f"{path}:{number}: expected each patch once, found {name} again; remove one of its lines")
        seen.add(name)


def _read_pairing(path: Path, content: bytes) -> dict[str, Pairing]:
    try:
        table = csv.read_csv(
            pa.py_buffer(content),
            csv.ReadOptions(use_threads=False),  # or errors do not say in which row they are
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(_PAIRS_COLUMNS, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise SourceError(f"{path}: cannot be read as CSV ({error!s:.200})") from error
    if table.column_names != _PAIRS_COLUMNS:
        raise SourceError(f"{path}: expected the columns {_PAIRS_COLUMNS}, found {table.column_names}")
    s1_names, s2_names, countries, seasons = (column.to_pylist() for column in table.columns)
    numbers = range(2, table.num_rows + 2)
    _check_names(path, numbers, s1_names, "S1")
    _check_names(path, numbers, s2_names, "S2")
    for name in {*countries, *seasons}:  # they are shown on terminals and pages
        if not name.isprintable():
            number = numbers[(countries if name in countries else seasons).index(name)]
            raise SourceError(f"{path}:{number}: expected a country and a season, found {name!r:.120}")
    with _suspend_collection():
        return dict(zip(s2_names, map(Pairing, s1_names, countries, seasons), strict=True))


@contextmanager
def _suspend_collection() -> Iterator[None]:
    """Keep the garbage collector away from half a million new tuples, of which none is garbage: 1.1 s become 0.4."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
