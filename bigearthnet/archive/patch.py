"""Read all files of one patch, and check that they speak of the same place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.annotation import read_annotation
from bigearthnet.archive.raster import read_band
from bigearthnet.archive.records import Annotation, PatchFacts, Source
from bigearthnet.bands import S2_10M, BandGroup, Sensor
from bigearthnet.errors import PatchError
from bigearthnet.names import Dataset, annotation_file, band_file, parse_patch_name

ReaderName = Literal["auto", "rasterio"]
"""`auto` takes plain GeoTIFFs as they lie and gives others to rasterio; `rasterio` gives it all of them."""


@dataclass(frozen=True)
class PatchReader:
    """What to read of patches, from which folders, and how strictly."""

    roots: Mapping[Sensor, str]
    """Folder of each sensor."""
    dataset: Dataset
    groups: tuple[BandGroup, ...]
    """The bands to read, by the arrays that they become."""
    name: ReaderName = "auto"
    allow_missing_s1: bool = False
    """Fill the pixels of a missing Sentinel-1 partner with NaN instead of rejecting the patch."""
    allow_no_place: bool = False
    """Take files that do not say where they lie; those that do must agree all the same."""

    @cached_property
    def sensors(self) -> tuple[Sensor, ...]:
        """Sensors of which anything is read, Sentinel-2 first."""
        return tuple(dict.fromkeys(group.sensor for group in self.groups))


class _Place(NamedTuple):
    """Where a file says that its patch lies."""

    file: str
    epsg: int
    x_ul: float
    y_ul: float


class _Files(NamedTuple):
    """The files of one sensor of one patch."""

    folder: str
    name: str
    """What their names begin with."""


def read_patch(reader: PatchReader, source: Source, out: Mapping[str, NDArray[np.generic]]) -> PatchFacts:
    """Read a patch.

    Args:
        reader: What to read, and how.
        source: Where the patch lies.
        out: A (band, row, col) array for each of the reader's groups, by name; filled.

    Returns:
        What the files say beside the pixels.

    Raises:
        PatchError: A file is missing, damaged, not what it must be, or disagrees with another one of the patch.
    """
    patch_id = source.patch_id
    files = {sensor: _find_files(reader, source, sensor) for sensor in reader.sensors}
    notes: dict[Sensor, Annotation] = {}
    place: _Place | None = None
    if reader.dataset == "v1":
        for sensor, sensor_files in files.items():
            if sensor_files and sensor != "map":
                notes[sensor], said = _read_note(patch_id, sensor_files)
                place = _agree(patch_id, place, said)
    for group in reader.groups:
        sensor_files = files[group.sensor]
        if sensor_files is None:
            out[group.name].fill(np.nan)
            continue
        for band, plane in zip(group.bands, out[group.name], strict=True):
            file = band_file(sensor_files.name, band)
            raster = read_band(
                patch_id,
                sensor_files.folder,
                file,
                group,
                plane,
                plain=reader.name == "auto",
                allow_no_place=reader.allow_no_place,
            )
            _check_nodata(patch_id, file, group, raster.nodata)
            if raster.epsg:
                place = _agree(patch_id, place, _Place(file, raster.epsg, raster.x_ul, raster.y_ul))
    if place is None:
        if not reader.allow_no_place:
            raise PatchError(patch_id, "", "no file of the patch is there")
        place = _Place("", 0, math.nan, math.nan)
    fine = out.get(S2_10M.name)
    first = notes.get("s2") or notes.get("s1")
    return PatchFacts(
        labels=first.labels if first else None,
        epsg=place.epsg,
        x_ul=place.x_ul,
        y_ul=place.y_ul,
        s2_time=_sensed("s2", files, notes),
        s1_time=_sensed("s1", files, notes),
        tile=_find_tile(patch_id, files, notes),
        zero_pixels=None if fine is None else fine.size - int(np.count_nonzero(fine)),
        has_s1=files.get("s1") is not None,
    )


def _find_files(reader: PatchReader, source: Source, sensor: Sensor) -> _Files | None:
    """Locate the files of a sensor; None for Sentinel-1 that is allowed to be missing."""
    folder, name = {
        "s2": (source.s2, source.patch_id),
        "s1": (source.s1, source.s1_name or source.patch_id),
        "map": (source.map, source.patch_id),
    }[sensor]
    if folder is not None:
        return _Files(f"{reader.roots[sensor]}/{folder}", name)
    if sensor == "s1" and reader.allow_missing_s1:
        return None
    if sensor == "s1" and source.s1_name is None:
        raise PatchError(source.patch_id, "", "expected a Sentinel-1 partner, no official list names one")
    what = "its Sentinel-1 partner" if sensor == "s1" else "its reference map"
    raise PatchError(source.patch_id, name, f"expected the folder of {what} in {reader.roots[sensor]}, found none")


def _read_note(patch_id: str, files: _Files) -> tuple[Annotation, _Place]:
    file = annotation_file(files.name)
    note = read_annotation(patch_id, files.folder, file)
    if note.partner is not None and files.name == patch_id:
        raise PatchError(
            patch_id, file, f"expected a patch of the official list of pairs; its partner is {note.partner!r:.80}"
        )
    if note.partner is not None and note.partner != patch_id:
        raise PatchError(patch_id, file, f"expected it to be paired with this patch, found {note.partner!r:.80}")
    return note, _Place(file, note.epsg, note.x_ul, note.y_ul)


def _agree(patch_id: str, place: _Place | None, other: _Place) -> _Place:
    """Return the place that all files of a patch have said so far."""
    if place is None:
        return other
    if (other.epsg, other.x_ul, other.y_ul) != (place.epsg, place.x_ul, place.y_ul):
        raise PatchError(
            patch_id,
            other.file,
            f"expected the upper-left corner ({place.x_ul:.10g}, {place.y_ul:.10g}) in EPSG:{place.epsg} that "
            f"{place.file} gives, found ({other.x_ul:.10g}, {other.y_ul:.10g}) in EPSG:{other.epsg}",
        )
    return place


def _check_nodata(patch_id: str, file: str, group: BandGroup, nodata: float | None) -> None:
    """Refuse a nodata value that BigEarthNet does not use: 0 is right for integers, none or NaN for decibels."""
    if nodata is None or (math.isnan(nodata) if group.sensor == "s1" else nodata == 0):
        return
    expected = "no nodata value" if group.sensor == "s1" else "nodata 0, or none"
    raise PatchError(patch_id, file, f"expected {expected}, found {nodata:g}")


def _find_tile(patch_id: str, files: Mapping[Sensor, _Files | None], notes: Mapping[Sensor, Annotation]) -> str | None:
    """Return the MGRS tile: the Sentinel-2 JSON has it (v1.0), or else a name; pairs lie in the same tile."""
    if "s2" in notes:
        return notes["s2"].tile
    names = [patch_id, *(sensor_files.name for sensor_files in files.values() if sensor_files)]
    return next((named.tile for named in map(parse_patch_name, names) if named and named.tile), None)


def _sensed(sensor: Sensor, files: Mapping[Sensor, _Files | None], notes: Mapping[Sensor, Annotation]) -> str | None:
    """Return when a sensor saw the patch: as its JSON says (v1.0), else as its name does (v2.0)."""
    sensor_files = files.get(sensor)
    if sensor_files is None:
        return None
    named = parse_patch_name(sensor_files.name)
    return notes[sensor].time if sensor in notes else named.time if named else None
