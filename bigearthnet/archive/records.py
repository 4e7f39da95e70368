"""The frozen records that say where a patch lies, what is known of it, and what reading it taught."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from bigearthnet.bands import Sensor
from bigearthnet.errors import OptionError

OnBad = Literal["stop", "skip"]
"""What to do about patches that cannot be read: fail, or go on without them."""

ON_BAD: Final[tuple[OnBad, ...]] = get_args(OnBad)


STDIN: Final = Path("-")
"""Stands for the stream on standard input where an archive file may be named."""


def is_archive_file(path: Path) -> bool:
    """Tell an archive that is a file or a stream from one that was extracted to a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:  # which whoever reads it tells
        return path == STDIN
    return path == STDIN or stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


@dataclass(frozen=True)
class Sources:
    """The folders of an archive, or its tar files as they were downloaded, in any combination that has pixels."""

    s2: Path | None = None
    """Sentinel-2: `BigEarthNet-v1.0`, `BigEarthNet-S2`."""
    s1: Path | None = None
    """Sentinel-1: `BigEarthNet-S1-v1.0`, `BigEarthNet-S1`."""
    reference_maps: Path | None = None
    """`Reference_Maps` (v2.0)."""

    def __post_init__(self) -> None:
        if self.s2 is None and self.s1 is None:
            raise OptionError("expected an archive of Sentinel-2 or Sentinel-1 patches, found none")
        if list(self.roots.values()).count(STDIN) > 1:
            raise OptionError("standard input has one archive: name a file or folder for each of the others")

    @property
    def roots(self) -> dict[Sensor, Path]:
        """The absolute path of each folder or file that was given, or `STDIN`."""
        given: dict[Sensor, Path | None] = {"s2": self.s2, "s1": self.s1, "map": self.reference_maps}
        return {
            sensor: path if path == STDIN else path.absolute() for sensor, path in given.items() if path is not None
        }

    @property
    def archive_files(self) -> list[Sensor]:
        """The sensors that were given as an archive file or a stream."""
        return [sensor for sensor, root in self.roots.items() if is_archive_file(root)]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of a patch lie; all that a task must know of it."""

    patch_id: str
    """Name of the Sentinel-2 patch, never rewritten."""
    s1_name: str | None = None
    """Name of the paired Sentinel-1 patch."""
    s2: str | None = None
    """Its folder below the Sentinel-2 archive, with forward slashes; None if it is not there."""
    s1: str | None = None
    """Its folder below the Sentinel-1 archive."""
    map: str | None = None
    """Its folder below the reference maps."""

    def name_of(self, sensor: Sensor) -> str:
        """Return the name of the patch as a sensor has it."""
        return self.s1_name or self.patch_id if sensor == "s1" else self.patch_id


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of the archive, with what the official lists or metadata say of it."""

    source: Source
    split: str | None = None
    """Official split; None where no list names the patch."""
    recommended: bool = False
    """In a split, free of snow, cloud and shadow, and with a 19-class label."""
    country: str | None = None
    season: str | None = None
    contains_seasonal_snow: bool = False
    contains_cloud_or_shadow: bool = False
    labels: tuple[str, ...] | None = None
    """Labels, where the metadata and not the patch's own JSON gives them (v2.0)."""
    s2v1_name: str | None = None
    """Name of the same patch in v1.0 (v2.0)."""

    @property
    def patch_id(self) -> str:
        """Name of the Sentinel-2 patch."""
        return self.source.patch_id


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the JSON of a v1.0 patch says, of either sensor."""

    labels: tuple[str, ...]
    """43-class names as the source lists them."""
    epsg: int
    x_ul: float
    """Easting of the upper-left corner in metres."""
    y_ul: float
    """Northing of the upper-left corner in metres."""
    time: str
    """Sensing time in UTC, `YYYY-MM-DD HH:MM:SS`."""
    tile: str | None
    """MGRS tile of the source product, such as `33UUP` (Sentinel-2)."""
    partner: str | None
    """The Sentinel-2 patch that a Sentinel-1 patch is paired with."""


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """What reading a patch taught: a row of the table, less what the lists know."""

    labels: tuple[str, ...] | None
    """Labels of the patch's own JSON; None where the metadata has them (v2.0)."""
    epsg: int
    """0, and corners NaN, if no file says where the patch lies and it was taken all the same."""
    x_ul: float
    y_ul: float
    s2_time: str | None
    """Sensing time in UTC, `YYYY-MM-DD HH:MM:SS`; None where the sensor was not converted."""
    s1_time: str | None
    tile: str | None
    zero_pixels: int | None
    """Pixels of the Sentinel-2 10 m bands that are zero, summed over bands; None without such bands."""
    has_s1: bool
    """The patch has Sentinel-1 pixels; if not, they are NaN."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A patch that could not be converted, and why."""

    patch_id: str
    file: str
    reason: str
