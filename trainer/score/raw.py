"""Read patches that are in no store, from the folders of GeoTIFFs that BigEarthNet consists of.

The only importer of rasterio, and only when files are read. A patch is a folder that holds `<folder>_B04.tif` and so
on; folders may lie in others at any depth, as those of v2.0 do in one for each scene.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bigearthnet.errors import ReadError, SelectionError

Sensor = Literal["s1", "s2"]
OnBad = Literal["stop", "skip"]
"""What to do about a patch that cannot be read: end, or go on without it."""

ON_BAD: Final[tuple[OnBad, ...]] = get_args(OnBad)

_FILES: Final = {"s2": re.compile(r"_B(\d\d|8A)\.tif$"), "s1": re.compile(r"_V[VH]\.tif$")}
"""Ends of the names of a sensor's files."""
_FOLDERS: Final = {"s2": re.compile(r"S2[A-Z]_"), "s1": re.compile(r"S1[A-Z]_")}
"""Starts of the names of a sensor's folders."""
_NOTE: Final = "_labels_metadata.json"
"""End of the name of a file that v1.0 has in each folder; that of Sentinel-1 names the partner."""
_METADATA: Final = re.compile(r"metadata.*\.parquet$")
"""Tables of v2.0, which name the Sentinel-1 partners."""
_BATCHES_AHEAD: Final = 2


@dataclass(frozen=True)
class RawPatch:
    """A patch in one folder for each sensor."""

    patch_id: str
    """Name of the folder; of Sentinel-2 if there are two."""
    folders: Mapping[Sensor, Path | None]
    """None if the partner was not found."""

    @property
    def path(self) -> Path:
        """The folder that it is named after."""
        folder = self.folders.get("s2") or self.folders["s1"]
        assert folder is not None
        return folder


@dataclass(frozen=True)
class BandFiles:
    """What the files of some bands must be, to become one input of a model."""

    array: str
    """Name of the input."""
    bands: tuple[str, ...]
    n_rows: int
    n_columns: int
    dtype: str

    @property
    def sensor(self) -> Sensor:
        """The sensor whose folder holds the files."""
        return "s1" if self.array.startswith("s1") else "s2"


@dataclass(frozen=True)
class RawBatch:
    """Patches that were read, and those that could not be."""

    patches: tuple[RawPatch, ...]
    pixels: dict[str, NDArray[Any]]
    """For each input, (patch, band, row, col)."""
    bad: tuple[tuple[RawPatch, str], ...]
    """With the reason."""


@dataclass
class _Found:
    """What a walk through folders finds."""

    folders: dict[Sensor, list[Path]] = field(default_factory=lambda: {"s1": [], "s2": []})
    tables: list[Path] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of each folder: one may be reached twice, or for ever, through links."""


def find_patches(paths: Iterable[Path], sensors: set[Sensor]) -> list[RawPatch]:
    """Find the patches in some folders, sorted by path.

    Args:
        paths: Patch folders, or folders of them; the partners of v2.0 need its `metadata.parquet`, in such a folder or
            as a path of its own.
        sensors: Those that are needed. Each Sentinel-2 patch gets its Sentinel-1 partner if both are.

    Raises:
        SelectionError: A path does not exist, or there is no patch.
        ReadError: What names the partners cannot be read.
    """
    found = _Found()
    for path in paths:
        path = Path(os.path.abspath(path))  # the name of `.` is needed
        if path.is_dir():
            _walk(path, found)
        elif path.is_file() and _METADATA.search(path.name):
            found.tables.append(path)
        else:
            raise SelectionError(f"{path}: expected a folder of patches, or metadata.parquet; found no such thing")
    main: Sensor = "s2" if "s2" in sensors else "s1"
    partners = _find_partners(found) if len(sensors) > 1 else {}
    patches = [
        RawPatch(folder.name, {main: folder} | ({"s1": partners.get(folder.name)} if len(sensors) > 1 else {}))
        for folder in sorted(found.folders[main])
    ]
    if not patches:
        files = "<patch>_B04.tif" if main == "s2" else "<patch>_VV.tif"
        given = ", ".join(map(str, paths))
        raise SelectionError(f"{given}: no patch; expected folders <patch> with files such as {files}, here or below")
    return patches


def read_batches(
    patches: Sequence[RawPatch], groups: Sequence[BandFiles], *, batch_size: int, threads: int, on_bad: OnBad
) -> Iterator[RawBatch]:
    """Read patches on threads, some batches ahead of whoever takes them.

    Args:
        patches: In the order wanted.
        groups: What to read of each.
        batch_size: Patches of a batch, bad ones included.
        threads: How many read.
        on_bad: Raise an error at the first patch that cannot be read, or leave it out.

    Raises:
        ReadError: A file is missing, damaged, or of another size or type than the model takes.
    """
    from rasterio.errors import NotGeoreferencedWarning  # noqa: PLC0415 - loaded only when files are read

    # Once for all threads, which share their filters. A model does not ask where a patch lies.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    with ThreadPoolExecutor(threads, thread_name_prefix="trainer-read") as executor:
        waiting = iter(patches)
        ahead: deque[tuple[RawPatch, Future[dict[str, NDArray[Any]]]]] = deque()

        def start(n_patches: int) -> None:
            ahead.extend((patch, executor.submit(_read_patch, patch, groups)) for patch in islice(waiting, n_patches))

        start(batch_size * _BATCHES_AHEAD)
        try:
            while ahead:
                taken = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
                start(batch_size)
                yield _collect(taken, groups, on_bad)
        finally:
            executor.shutdown(cancel_futures=True)


def _collect(
    taken: Sequence[tuple[RawPatch, Future[dict[str, NDArray[Any]]]]], groups: Sequence[BandFiles], on_bad: OnBad
) -> RawBatch:
    """Wait for patches, and make a batch of them."""
    good, bad = [], []
    for patch, future in taken:
        try:
            good.append((patch, future.result()))
        except ReadError as error:
            if on_bad == "stop":
                raise
            bad.append((patch, str(error)))
    pixels = {group.array: np.stack([read[group.array] for _, read in good]) for group in groups} if good else {}
    return RawBatch(tuple(patch for patch, _ in good), pixels, tuple(bad))


def _read_patch(patch: RawPatch, groups: Sequence[BandFiles]) -> dict[str, NDArray[Any]]:
    from rasterio import Env  # noqa: PLC0415 - see above

    pixels = {}
    with Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # no listing of the folder for each file
        for group in groups:
            folder = patch.folders[group.sensor]
            if folder is None:
                raise ReadError(
                    f"{patch.patch_id}: no Sentinel-1 partner; give its folder too, and for v2.0 metadata.parquet, "
                    "which says what belongs together"
                )
            pixels[group.array] = np.empty((len(group.bands), group.n_rows, group.n_columns), group.dtype)
            for band, plane in zip(group.bands, pixels[group.array], strict=True):
                _read_band(folder / f"{folder.name}_{band}.tif", group, plane)
    return pixels


def _read_band(path: Path, group: BandFiles, out: NDArray[Any]) -> None:
    import rasterio  # noqa: PLC0415 - see above
    from rasterio.errors import RasterioError  # noqa: PLC0415

    if not path.exists():
        raise ReadError(f"{path}: the file is missing, and the model takes its band")
    expected = f"expected a GeoTIFF of {group.n_columns} x {group.n_rows} {group.dtype}"
    try:
        with rasterio.open(path, driver="GTiff") as source:
            if (source.count, source.height, source.width, *source.dtypes) != (1, *out.shape, group.dtype):
                raise ReadError(
                    f"{path}: {expected}, found {source.count} band(s) of {source.width} x {source.height} "
                    f"{'/'.join(dict.fromkeys(source.dtypes))}"
                )
            source.read(1, out=out)
    except (RasterioError, OSError, ValueError, MemoryError) as error:
        raise ReadError(f"{path}: {expected}, but it cannot be read ({error}); copy it again") from error


def _walk(folder: Path, found: _Found) -> None:
    """Look through a folder and those in it; links to folders are followed, links to files are files."""
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ReadError(f"{folder}: cannot be listed ({error.strerror})") from error
    if (status.st_dev, status.st_ino) in found.seen:
        return
    found.seen.add((status.st_dev, status.st_ino))
    inner = sorted(entry.name for entry in visible if entry.is_dir())
    files = [entry.name for entry in visible if not entry.is_dir()]
    bands = [file.removeprefix(folder.name) for file in files if file.startswith(folder.name)]
    is_empty = not inner and not any(file.endswith(".tif") for file in files)
    for sensor, folders in found.folders.items():
        if any(_FILES[sensor].fullmatch(band) for band in bands) or (is_empty and _FOLDERS[sensor].match(folder.name)):
            folders.append(folder)
            return
    found.tables += [folder / file for file in sorted(files) if _METADATA.search(file)]
    for below in inner:
        _walk(folder / below, found)


def _find_partners(found: _Found) -> dict[str, Path]:
    """Find the Sentinel-1 folder of each Sentinel-2 patch that has one, by the latter's name."""
    by_name = {folder.name: folder for folder in found.folders["s1"]}
    pairs: dict[str, Path] = {}
    for table in found.tables:
        try:
            columns = pq.read_table(table, columns=["patch_id", "s1_name"])
        except (OSError, ValueError, KeyError) as error:
            raise ReadError(f"{table}: cannot be read as the metadata of v2.0 ({error})") from error
        names = zip(columns["patch_id"].to_pylist(), columns["s1_name"].to_pylist(), strict=True)
        pairs |= {patch_id: by_name[s1_name] for patch_id, s1_name in names if s1_name in by_name}
    for name, folder in by_name.items():
        note = folder / f"{name}{_NOTE}"
        if note.exists():
            try:
                pairs[json.loads(note.read_bytes())["corresponding_s2_patch"]] = folder
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ReadError(f"{note}: does not say which patch it belongs to ({error!r})") from error
    return pairs
