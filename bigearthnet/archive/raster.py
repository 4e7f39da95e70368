"""Read one band of one patch from its GeoTIFF, bit-identical to rasterio, and check that it is what it must be.

Write one, too. Imports rasterio only to write, and to read a file that is not of the plain form
(`bigearthnet.archive.tiff`).
"""

from __future__ import annotations

import math
import os
import re
import stat
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.tiff import MAX_HEADER_BYTES, Georeference, NotPlainError, inflate_strips, parse_plain_header
from bigearthnet.bands import BandGroup
from bigearthnet.errors import PatchError

Files = str | Mapping[str, bytes | OSError]
"""The files of a patch: the folder that they lie in, or each by its name, with an error for one that cannot be read."""

_MAX_BYTES: Final = 2**24
"""More than any file of a band takes, however it is tiled and compressed; published ones take up to 58 kB."""

_SMALL_BYTES: Final = 2**16
"""More than a published file takes; buffers of twice that would be fetched from the system one by one."""

_IN_MEMORY: Final = re.compile(r"/vsimem/[^/]*/")
"""Where rasterio keeps a file in memory: a random name, while the reason of a reject must be the same in every run."""


def read_band(
    patch_id: str,
    files: Files,
    file: str,
    group: BandGroup,
    out: NDArray[np.generic],
    *,
    plain: bool = True,
    allow_no_place: bool = False,
) -> Georeference:
    """Read a band into its place.

    The file is opened and read once, whoever decodes it: a disk that returns other bytes the second time, or a file
    that is replaced meanwhile, cannot give pixels and place of two different ones.

    Args:
        patch_id: Name of the patch, for the error.
        files: The files of the patch.
        file: Name of the GeoTIFF among them.
        group: The group the band belongs to, which says what size and dtype it must have.
        out: Contiguous (row, col) array of the group's size and dtype; filled.
        plain: Take the fast path where the file allows it; False sends every file through rasterio.
        allow_no_place: Take a file that does not say where it lies.

    Raises:
        PatchError: The file is missing, damaged, or not of the expected size, dtype and pixel size.
    """
    try:
        n_bytes = group.plane_bytes + MAX_HEADER_BYTES
        if isinstance(files, str):
            descriptor = _open_file(f"{files}/{file}")
            try:
                data = os.read(descriptor, n_bytes)
                if plain and (plain_place := _take_plain(data, group, out)):
                    return plain_place
                data = _read_rest(descriptor, data)
            finally:
                os.close(descriptor)
        else:
            data = _take_file(files, file)
            if plain and (plain_place := _take_plain(data[:n_bytes], group, out)):
                return plain_place
        return _read_with_rasterio(data, group, out, allow_no_place)
    except FileNotFoundError as error:
        raise PatchError(patch_id, file, "the file is missing") from error
    except OSError as error:
        raise PatchError(patch_id, file, f"cannot be read: {error.strerror or error}") from error
    except _UnexpectedRasterError as error:
        raise PatchError(patch_id, file, str(error)) from error.__cause__


class _UnexpectedRasterError(Exception):
    """The raster is not what the band must be."""


def read_head(files: Files, file: str, n_bytes: int) -> bytes:
    """Read a file up to `n_bytes`, which is all of a plain one or of an annotation.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    if not isinstance(files, str):
        return _take_file(files, file)[:n_bytes]
    descriptor = _open_file(f"{files}/{file}")
    try:
        return os.read(descriptor, n_bytes)
    finally:
        os.close(descriptor)


def load_files(folder: str, files: Iterable[str]) -> Files:
    """Read files of a folder whole, or return the folder if one is not as small as all published ones are."""
    contents: dict[str, bytes | OSError] = {}
    for file in files:
        try:
            content = read_head(folder, file, _SMALL_BYTES)
        except OSError as error:
            contents[file] = error
            continue
        if not 0 < len(content) < _SMALL_BYTES:  # of a pipe nothing is read
            return folder
        contents[file] = content
    return contents


def _take_file(files: Mapping[str, bytes | OSError], file: str) -> bytes:
    content = files.get(file, FileNotFoundError(file))
    if isinstance(content, OSError):
        raise content
    return content


def _open_file(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # non-blocking: a FIFO must not hang the run


def _read_rest(descriptor: int, data: bytes) -> bytes:
    """Return what was read of a file, and all that follows."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _UnexpectedRasterError("expected a regular file")
    if status.st_size > _MAX_BYTES:
        raise _UnexpectedRasterError(f"expected at most {_MAX_BYTES:,} bytes, found {status.st_size:,}")
    parts = [data]
    while part := os.read(descriptor, _MAX_BYTES):
        parts.append(part)
    return b"".join(parts)


def _take_plain(data: bytes, group: BandGroup, out: NDArray[np.generic]) -> Georeference | None:
    """Copy the pixels out of a plain file that is exactly what the band must be; None for any other."""
    offset = len(data) - group.plane_bytes
    try:
        header = parse_plain_header(data[:offset] if offset > 0 else data)
        place = header.place
        if (header.width, header.height, header.dtype, place.pixel_m) != (
            *(group.size, group.size),
            *(group.dtype, group.pixel_m),
        ):
            return None
        whole = len(data) < group.plane_bytes + MAX_HEADER_BYTES if header.is_deflated else header.data_offset == offset
        if not whole:
            return None
        rows = inflate_strips(data, header) if header.is_deflated else memoryview(data)[offset:]
    except NotPlainError:
        return None
    out[...] = np.frombuffer(rows, group.dtype).reshape(out.shape)
    if header.is_differenced:
        np.add.accumulate(out, axis=-1, out=out)
    return place


def _read_with_rasterio(data: bytes, group: BandGroup, out: NDArray[np.generic], allow_no_place: bool) -> Georeference:
    import rasterio  # noqa: PLC0415 - takes 0.3 s a worker, and plain archives never need it
    from rasterio.errors import NotGeoreferencedWarning, RasterioError  # noqa: PLC0415

    # From now on: `warnings.catch_warnings` is not for threads, which share their filters.
    if ("ignore", None, NotGeoreferencedWarning, None, 0) not in warnings.filters:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
    expected = f"a GeoTIFF of {group.size} x {group.size} {group.dtype} pixels of {group.pixel_m} m"
    try:
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            rasterio.MemoryFile(data, filename="file.tif") as file,
            rasterio.open(file.name, driver="GTiff") as source,
        ):
            shape = (source.count, source.height, source.width, *source.dtypes)
            if shape != (1, group.size, group.size, group.dtype):
                raise _UnexpectedRasterError(
                    f"expected {expected}, found {source.count} band(s) of {source.width} x {source.height} "
                    f"{'/'.join(dict.fromkeys(source.dtypes))}"
                )
            # Blocks are decoded whole: a small image may declare blocks of gigabytes.
            if max(map(max, source.block_shapes)) > 4_096:
                raise _UnexpectedRasterError(f"expected {expected}, found blocks of {source.block_shapes[0]}")
            transform = source.transform
            if allow_no_place and transform.is_identity:
                source.read(1, out=out)
                return Georeference(0, math.nan, math.nan, group.pixel_m, source.nodata)
            if (transform.a, transform.b, transform.d, transform.e) != (group.pixel_m, 0, 0, -group.pixel_m):
                raise _UnexpectedRasterError(f"expected {expected}, north up; found the transform {transform[:6]}")
            epsg = source.crs.to_epsg() if source.crs else None
            if epsg is None:
                raise _UnexpectedRasterError(f"expected {expected} in a CRS with an EPSG code, found {source.crs}")
            source.read(1, out=out)
            return Georeference(epsg, transform.c, transform.f, transform.a, source.nodata)
    except (RasterioError, ValueError, ArithmeticError, MemoryError) as error:  # rasterio lets others through
        why = _IN_MEMORY.sub("", str(error))
        raise _UnexpectedRasterError(
            f"expected {expected}, found {len(data):,} bytes that cannot be read as one ({why}); "
            "the file may be truncated, extract it again"
        ) from error


def write_raster(path: Path, pixels: NDArray[np.generic], place: Georeference, names: Sequence[str] = ()) -> None:
    """Write a GeoTIFF, uncompressed, as the bands of BigEarthNet are.

    Args:
        path: A new file.
        pixels: Stored pixels, shape (band, row, col); they are not cast.
        place: Where they lie.
        names: Description of each band, for files of several.

    Raises:
        OSError: The file cannot be written.
    """
    import rasterio  # noqa: PLC0415 - as above

    n_bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=n_bands,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=rasterio.CRS.from_epsg(place.epsg),
        transform=rasterio.Affine(place.pixel_m, 0, place.x_ul, 0, -place.pixel_m, place.y_ul),
        nodata=place.nodata,
        interleave="band",
        photometric="MINISBLACK",
    ) as target:
        target.write(pixels)
        for number, name in enumerate(names, 1):
            target.set_band_description(number, name)
