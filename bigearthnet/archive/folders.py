"""Patches as they lie in folders that nothing describes, or come out of an archive: find them, read one at a time.

A conversion goes by the official lists instead (`bigearthnet.archive.catalogue`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.annotation import read_annotation
from bigearthnet.archive.members import ArchiveReader
from bigearthnet.archive.metadata import find_metadata_above, find_rows
from bigearthnet.archive.patch import PatchReader, join_readings, read_sensor
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import PatchFacts, Source
from bigearthnet.archive.scan import Scan, list_patch_folders
from bigearthnet.bands import PUBLISHED_BANDS, REFERENCE_MAP, S1_10M, S2_GROUPS, BandGroup, Sensor
from bigearthnet.errors import PatchError, SelectionError, SourceError
from bigearthnet.names import annotation_file, band_file, parse_patch_name


@dataclass(frozen=True)
class RawPatch:
    """A patch, where its files lie."""

    path: Path
    """Its folder; that of Sentinel-2 if there are two."""
    partner: Path | None = None
    """The folder of its Sentinel-1 partner, where that is needed and known."""
    files: Mapping[str, bytes | OSError] | None = field(default=None, repr=False, compare=False)
    """Its files by name, if it came out of an archive; its path is that inside the archive then."""

    @property
    def patch_id(self) -> str:
        """The name of its folder."""
        return self.path.name

    def locate(self, file: str) -> Path:
        """Return the path of one of its files; its folder, if no file is named."""
        folder = self.partner if self.partner and file.startswith(f"{self.partner.name}_") else self.path
        return folder / file


def find_patches(paths: Sequence[Path], sensors: Collection[Sensor]) -> list[RawPatch]:
    """Find the patches in some folders, at any depth and of any name, sorted by path.

    A patch folder that is reached twice is taken once. Folders of reference maps are passed by.

    Args:
        paths: Patch folders, or folders of them. The partners of v2.0 need its metadata: in such a folder, beside or
            above it, or as a path of its own.
        sensors: Those that are needed. Each Sentinel-2 patch gets its Sentinel-1 partner if both are.

    Raises:
        SelectionError: A path does not exist, or there is no patch.
        SourceError: A folder cannot be listed, or what names the partners cannot be read.
    """
    tables: list[Path] = []
    folders: dict[Sensor, dict[tuple[int, int], Path]] = {"s2": {}, "s1": {}, "map": {}}
    for path in (Path(os.path.abspath(path)) for path in paths):  # not resolved: a link may have another name
        if path.is_dir():
            tables += find_metadata_above(path)
            for folder in list_patch_folders(path):
                status = folder.stat()
                folders[_find_sensor(folder)].setdefault((status.st_dev, status.st_ino), folder)
        elif path.is_file() and path.suffix == ".parquet":
            tables.append(path)
        else:
            raise SelectionError(f"{path}: expected a folder of patches, or metadata.parquet; found no such thing")
    main: Sensor = "s2" if "s2" in sensors else "s1"
    chosen = sorted(folders[main].values())
    if not chosen:
        file = band_file("<patch>", "B04" if main == "s2" else "VV")
        given = ", ".join(map(str, paths))
        raise SelectionError(f"{given}: no patch; expected folders <patch> with files such as {file}, here or below")
    pairs = _find_partners(chosen, folders["s1"].values(), tables) if {"s1", "s2"} <= set(sensors) else {}
    return [RawPatch(folder, pairs.get(folder.name)) for folder in chosen]


def stream_patches(path: Path, groups: Sequence[BandGroup]) -> Iterator[RawPatch]:
    """Yield the patches of an archive file in the order of the archive, in one pass.

    Args:
        path: The archive.
        groups: What is needed of each patch, all of one sensor.

    Raises:
        SelectionError: Two sensors are needed, or the archive is one of another.
        SourceError: It is damaged, or its members lie too far apart.
    """
    sensors = {"s2" if group.sensor == "map" else group.sensor for group in groups}
    with closing(ArchiveReader(path)) as reader:
        named = parse_patch_name(reader.peek())
        if named is None or {named.sensor} != sensors:
            raise SelectionError(
                f"{path}: expected an archive of all that is needed, {' and '.join(sorted(sensors)).upper()}; found "
                f"patches such as {reader.peek()}. Unpack the archives and give their folders, or convert them"
            )
        suffixes = [band_file("", band) for group in groups for band in group.bands]
        if named.dataset == "v1":
            suffixes.append(annotation_file(""))
        for patch in reader.gather(frozenset(suffixes)):
            if not patch.is_whole:
                raise SourceError(f"{path}: the files of {patch.name} lie too far apart; unpack it and give the folder")
            yield RawPatch(path / patch.folder, files=patch.files)


def draw_patches(path: Path, choose: Callable[[str], list[str]]) -> tuple[dict[str, RawPatch], Scan]:
    """Take some patches out of an archive file in one pass.

    Args:
        path: The archive.
        choose: Called with each name as it comes; returns those that are wanted no more.

    Returns:
        The patches that are still wanted at the end, with all their files that BigEarthNet has, and what else was seen.

    Raises:
        SourceError: The archive is damaged, or none.
    """
    suffixes = frozenset([annotation_file(""), *(band_file("", band) for band in PUBLISHED_BANDS)])
    wanted: dict[str, dict[str, bytes | OSError]] = {}
    refused: set[str] = set()

    def is_wanted(name: str) -> bool:
        if name not in wanted and name not in refused:
            wanted[name] = {}
            for other in choose(name):
                refused.add(other)
                del wanted[other]
        return name in wanted

    with closing(ArchiveReader(path)) as reader:
        for patch in reader.gather(suffixes, is_wanted):
            if patch.name in wanted:
                wanted[patch.name].update(patch.files)
        scan = reader.make_scan()
    return {name: RawPatch(path / scan.folder_of[name], files=files) for name, files in wanted.items()}, scan


def read_raw(
    patch: RawPatch,
    groups: Sequence[BandGroup],
    out: Mapping[str, NDArray[np.generic]],
    *,
    allow_no_place: bool = False,
) -> PatchFacts:
    """Read a patch as a conversion reads it; its own JSON, if it has one, makes it one of v1.0.

    Args:
        patch: Where it lies.
        groups: The bands to read.
        out: A (band, row, col) array for each group, by name; filled.
        allow_no_place: Take files that do not say where they lie.

    Raises:
        PatchError: As `bigearthnet.archive.patch.read_patch` says, or the patch lacks a partner that is needed.
    """
    name, note = patch.patch_id, annotation_file(patch.patch_id)
    here: Files = str(patch.path) if patch.files is None else patch.files
    has_note = (patch.path / note).exists() if patch.files is None else note in patch.files
    sensors = {group.sensor for group in groups}
    files_of: dict[Sensor, Files] = dict.fromkeys(sensors, here)
    source = Source(name)
    if sensors == {"s1"}:
        said = read_annotation(name, here, note).partner if has_note else None
        source = Source(said or name, s1_name=name)
    elif "s1" in sensors:
        if patch.partner is None:
            raise PatchError(
                name,
                "",
                "no Sentinel-1 partner; give its folder too, and for v2.0 metadata.parquet, which names the pairs",
            )
        files_of["s1"] = str(patch.partner)
        source = Source(name, s1_name=patch.partner.name)
    reader = PatchReader({}, "v1" if has_note else "v2", tuple(groups), allow_no_place=allow_no_place)
    readings = {
        sensor: read_sensor(reader, sensor, source.name_of(sensor), files_of[sensor], out) for sensor in reader.sensors
    }
    return join_readings(reader, source, readings)


def _find_sensor(folder: Path) -> Sensor:
    """Say what the files in a patch folder were made from: names tell it, but maps are named as Sentinel-2 patches."""
    named = parse_patch_name(folder.name)
    if named is None or (named.sensor == "s2" and _has_any(folder, REFERENCE_MAP.bands)):
        if any(_has_any(folder, group.bands) for group in S2_GROUPS):
            return "s2"
        return "s1" if _has_any(folder, S1_10M.bands) else "map"
    return named.sensor


def _has_any(folder: Path, bands: Iterable[str]) -> bool:
    return any((folder / band_file(folder.name, band)).exists() for band in bands)


def _find_partners(s2: Sequence[Path], s1: Iterable[Path], tables: Sequence[Path]) -> dict[str, Path]:
    """Find the Sentinel-1 folder of each Sentinel-2 patch that has one, by the name of the latter."""
    folder_of = {folder.name: folder for folder in s1}
    rows: dict[str, dict[str, Any]] = find_rows(tuple(dict.fromkeys(tables)), [folder.name for folder in s2])
    pairs = {name: folder_of[row["s1_name"]] for name, row in rows.items() if row["s1_name"] in folder_of}
    for name, folder in folder_of.items():
        note = annotation_file(name)
        if (folder / note).exists() and (partner := read_annotation(name, str(folder), note).partner):
            pairs[partner] = folder
    return pairs
