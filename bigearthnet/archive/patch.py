"""Read all files of one patch, and check that they speak of the same place."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.annotation import read_annotation
from bigearthnet.archive.raster import Files, load_files, read_band
from bigearthnet.archive.records import Annotation, PatchFacts, Source
from bigearthnet.bands import S2_10M, BandGroup, Sensor
from bigearthnet.errors import PatchError
from bigearthnet.names import Dataset, annotation_file, band_file, parse_patch_name

ReaderName = Literal["auto", "rasterio"]
"""`auto` takes plain GeoTIFFs as they lie and gives others to rasterio; `rasterio` gives it all of them."""

_N_LOADERS: Final = 32
"""Threads that read files ahead: at a millisecond for each of 13 opens they still bring 2,400 patches a second."""

_SLOW_S: Final = 0.002
"""For the files of a patch, on average over the last fifty; from memory they take a tenth of that."""

_MAX_SLOW_S: Final = 10 * _SLOW_S
"""What one patch counts at most: a process that a busy machine did not let run has not waited for a disk."""

N_AHEAD: Final = 2 * _N_LOADERS
"""Patches whose files are in memory before they are worked on."""

_NO_FILES: Final[Mapping[Sensor, Files]] = MappingProxyType({})


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

    def list_suffixes(self, sensor: Sensor) -> list[str]:
        """List what follows the name of a patch in the names of the files that are read of a sensor."""
        notes = [annotation_file("")] if self.dataset == "v1" and sensor != "map" else []
        return notes + [band_file("", band) for group in self.groups if group.sensor == sensor for band in group.bands]


class Place(NamedTuple):
    """Where a file says that its patch lies."""

    file: str
    epsg: int
    x_ul: float
    y_ul: float


@dataclass(frozen=True)
class SensorReading:
    """What the files of one sensor of a patch say beside the pixels, before it is held against the other sensors."""

    name: str
    """Name of the patch as the sensor has it, with which its files begin."""
    note: Annotation | None = None
    """Its JSON (v1.0)."""
    places: tuple[Place, ...] = ()
    """What its GeoTIFFs say of the place, in the order of the bands; one that repeats what the one before it says is
    left out."""
    fault: tuple[str, str] | None = None
    """The first file that is bad, and why; what stands after it was not read."""
    zero_pixels: int | None = None
    """Zeros in the 10 m bands of Sentinel-2."""


def load_ahead(reader: PatchReader, sources: Iterable[Source]) -> Iterator[Mapping[Sensor, Files]]:
    """Yield the files of each patch in turn; if that takes long, threads read them while those before are worked on.

    So a disk that is cold or far away is waited for by many threads at once. Where there is nothing to wait for, they
    would only take turns, which costs a tenth of the time that a patch takes.

    Args:
        reader: What will be read of them.
        sources: Where the patches lie.
    """
    pace, upcoming = _find_pace(*reader.roots.values()), iter(sources)
    while not pace.is_slow and (source := next(upcoming, None)):
        start = time.perf_counter()
        files = _load_files(reader, source)
        pace.note(time.perf_counter() - start)
        yield files
    with ThreadPoolExecutor(_N_LOADERS) as threads:
        loading: deque[Future[Mapping[Sensor, Files]]] = deque()
        try:
            loading.extend(threads.submit(_load_files, reader, source) for source in islice(upcoming, N_AHEAD))
            while loading:
                files = loading.popleft().result()
                loading.extend(threads.submit(_load_files, reader, source) for source in islice(upcoming, 1))
                yield files
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Pace:
    """How long this process has lately waited for the files of a patch."""

    seconds: float = 0.0
    is_slow: bool = False
    """Once true, it stays so: a disk that was slow is not asked without threads again."""

    def note(self, seconds: float) -> None:
        self.seconds += 0.02 * (min(seconds, _MAX_SLOW_S) - self.seconds)
        self.is_slow = self.seconds > _SLOW_S


@cache
def _find_pace(*_: str) -> _Pace:
    """Return the pace of an archive, by its folders."""
    return _Pace()


def _load_files(reader: PatchReader, source: Source) -> Mapping[Sensor, Files]:
    try:
        folders = locate_sensors(reader, source)
    except PatchError:
        return _NO_FILES  # `read_patch` says so
    return {
        sensor: load_files(
            f"{reader.roots[sensor]}/{folder}",
            [f"{source.name_of(sensor)}{suffix}" for suffix in reader.list_suffixes(sensor)],
        )
        for sensor, folder in folders.items()
    }


def read_patch(
    reader: PatchReader,
    source: Source,
    out: Mapping[str, NDArray[np.generic]],
    loaded: Mapping[Sensor, Files] = _NO_FILES,
) -> PatchFacts:
    """Read a patch from its folders.

    Args:
        reader: What to read, and how.
        source: Where the patch lies.
        out: A (band, row, col) array for each of the reader's groups, by name; filled.
        loaded: Its files of each sensor, as far as they were read before; see `load_ahead`.

    Returns:
        What the files say beside the pixels.

    Raises:
        PatchError: A file is missing, damaged, not what it must be, or disagrees with another one of the patch.
    """
    readings: dict[Sensor, SensorReading] = {}
    for sensor, folder in locate_sensors(reader, source).items():
        files = loaded.get(sensor, f"{reader.roots[sensor]}/{folder}")
        readings[sensor] = read_sensor(reader, sensor, source.name_of(sensor), files, out)
    for group in reader.groups:
        if group.sensor not in readings:
            out[group.name].fill(np.nan)
    return join_readings(reader, source, readings)


def locate_sensors(reader: PatchReader, source: Source) -> dict[Sensor, str]:
    """Return the folder of each sensor of a patch; of all that the reader takes, but for what is allowed to be missing.

    Raises:
        PatchError: One is missing.
    """
    folders: dict[Sensor, str] = {}
    for sensor in reader.sensors:
        folder = {"s2": source.s2, "s1": source.s1, "map": source.map}[sensor]
        if folder is not None:
            folders[sensor] = folder
        elif sensor != "s1" or not reader.allow_missing_s1:
            raise _miss_folder(reader, source, sensor)
    return folders


def _miss_folder(reader: PatchReader, source: Source, sensor: Sensor) -> PatchError:
    if sensor == "s1" and source.s1_name is None:
        return PatchError(source.patch_id, "", "expected a Sentinel-1 partner, no official list names one")
    what = "its Sentinel-1 partner" if sensor == "s1" else "its reference map"
    reason = f"expected the folder of {what} in {reader.roots[sensor]}, found none"
    return PatchError(source.patch_id, source.name_of(sensor), reason)


def read_sensor(
    reader: PatchReader, sensor: Sensor, name: str, files: Files, out: Mapping[str, NDArray[np.generic]]
) -> SensorReading:
    """Read the files that a patch has of one sensor.

    Args:
        reader: What to read, and how.
        sensor: Of which files.
        name: Name of the patch as the sensor has it.
        files: Where they are.
        out: A (band, row, col) array for each of the sensor's groups, by name; filled, unless a file is bad.
    """
    note: Annotation | None = None
    places: list[Place] = []
    fine = out.get(S2_10M.name) if sensor == "s2" else None
    try:
        if reader.dataset == "v1" and sensor != "map":
            note = read_annotation(name, files, annotation_file(name))
        for group in reader.groups:
            for band, plane in zip(group.bands, out[group.name], strict=True) if group.sensor == sensor else ():
                file = band_file(name, band)
                raster = read_band(
                    name, files, file, group, plane, plain=reader.name == "auto", allow_no_place=reader.allow_no_place
                )
                _check_nodata(name, file, group, raster.nodata)
                place = Place(file, raster.epsg, raster.x_ul, raster.y_ul)
                if raster.epsg and (not places or place[1:] != places[-1][1:]):
                    places.append(place)
    except PatchError as error:
        return SensorReading(name, note, tuple(places), (error.file, error.reason))
    zero_pixels = None if fine is None else fine.size - int(np.count_nonzero(fine))
    return SensorReading(name, note, tuple(places), zero_pixels=zero_pixels)


def join_readings(reader: PatchReader, source: Source, readings: Mapping[Sensor, SensorReading]) -> PatchFacts:
    """Hold what all sensors of a patch say against one another.

    Args:
        reader: What was read, and how.
        source: Which patch it is.
        readings: What was read of each sensor that is there, in the order of the reader's.

    Raises:
        PatchError: A file was bad, or disagrees with another one of the patch. If there are several faults, the one
            that comes first when notes are read before bands, and both sensor by sensor.
    """
    patch_id = source.patch_id
    place: Place | None = None
    for reading in readings.values():
        if reading.note:
            place = _agree(patch_id, place, _place_note(patch_id, reading, reading.note))
        elif reading.fault and reading.fault[0] == annotation_file(reading.name):
            raise PatchError(patch_id, *reading.fault)
    for reading in readings.values():
        for said in reading.places:
            place = _agree(patch_id, place, said)
        if reading.fault:
            raise PatchError(patch_id, *reading.fault)
    if place is None:
        if not reader.allow_no_place:
            raise PatchError(patch_id, "", "no file of the patch is there")
        place = Place("", 0, math.nan, math.nan)
    first = next((reading.note for reading in readings.values() if reading.note), None)
    return PatchFacts(
        labels=first.labels if first else None,
        epsg=place.epsg,
        x_ul=place.x_ul,
        y_ul=place.y_ul,
        s2_time=_sensed(readings.get("s2")),
        s1_time=_sensed(readings.get("s1")),
        tile=_find_tile(patch_id, readings),
        zero_pixels=readings["s2"].zero_pixels if "s2" in readings else None,
        has_s1="s1" in readings,
    )


def _place_note(patch_id: str, reading: SensorReading, note: Annotation) -> Place:
    file = annotation_file(reading.name)
    if note.partner is not None and reading.name == patch_id:
        raise PatchError(
            patch_id, file, f"expected a patch of the official list of pairs; its partner is {note.partner!r:.80}"
        )
    if note.partner is not None and note.partner != patch_id:
        raise PatchError(patch_id, file, f"expected it to be paired with this patch, found {note.partner!r:.80}")
    return Place(file, note.epsg, note.x_ul, note.y_ul)


def _agree(patch_id: str, place: Place | None, other: Place) -> Place:
    """Return the place that all files of a patch have said so far."""
    if place is None:
        return other
    if other[1:] != place[1:]:
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


def _find_tile(patch_id: str, readings: Mapping[Sensor, SensorReading]) -> str | None:
    """Return the MGRS tile: the Sentinel-2 JSON has it (v1.0), or else a name; pairs lie in the same tile."""
    if "s2" in readings and (note := readings["s2"].note):
        return note.tile
    names = [patch_id, *(reading.name for reading in readings.values())]
    return next((named.tile for named in map(parse_patch_name, names) if named and named.tile), None)


def _sensed(reading: SensorReading | None) -> str | None:
    """Return when a sensor saw the patch: as its JSON says (v1.0), else as its name does (v2.0)."""
    if reading is None:
        return None
    named = parse_patch_name(reading.name)
    return reading.note.time if reading.note else named.time if named else None
