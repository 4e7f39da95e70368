"""Read a plain GeoTIFF: the forms in which BigEarthNet publishes its bands and its reference maps.

Opening a 7 kB band with GDAL costs a hundred times what reading its bytes costs, so a file that is exactly what the
archive holds is taken as it lies: little-endian classic TIFF, one directory, one band, north-up square pixels in a
projected CRS named by its EPSG code, and strips that stand one after another at the end of the file without compression
(bands) or are deflated one by one (reference maps). Every tag must be one that cannot change the meaning of the pixels.
Whatever else a legal GeoTIFF may be is for GDAL to read.

Sources: TIFF 6.0 and its Technical Note 2 (Adobe, 1992, 2002); OGC GeoTIFF 1.1 (OGC 19-008r4); GDAL_NODATA as in GDAL's
GTiff driver.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

MAX_HEADER_BYTES: Final = 4_096
"""Room for any plain header; real ones take 360 to 424 bytes."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_PLANAR, _PREDICTOR, _SAMPLE_FORMAT = 284, 317, 339
_PIXEL_SCALE, _TIEPOINT, _GEO_KEYS, _GEO_ASCII, _NODATA = 33550, 33922, 34735, 34737, 42113

_REQUIRED: Final = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES}
    | {_PLANAR, _SAMPLE_FORMAT, _PIXEL_SCALE, _TIEPOINT, _GEO_KEYS, _GEO_ASCII}
)
_KNOWN: Final = _REQUIRED | {_PREDICTOR, _NODATA}

_TYPES: Final = {2: "s", 3: "H", 4: "I", 12: "d"}
"""TIFF field types that a plain header uses (ASCII, SHORT, LONG, DOUBLE) as struct codes."""

_PROJECTED_CRS: Final = 3072
_UTM_NORTH: Final = 32_600
"""EPSG codes of UTM zones on WGS 84: this plus the zone in the north, plus 100 in the south."""

_DTYPES: Final = {(16, 1): "uint16", (32, 3): "float32"}
"""NumPy dtype of (bits per sample, sample format)."""


_Tags = dict[int, tuple[Any, ...]]
"""Values of each tag, always a tuple."""


class NotPlainError(Exception):
    """The file may be a legal GeoTIFF, but not of the plain form; never leaves the package."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a raster lies, and how large its square, north-up pixels are."""

    epsg: int
    """0, and corners NaN, if the file does not say where it lies."""
    x_ul: float
    """Easting of the upper-left corner of the upper-left pixel, in metres."""
    y_ul: float
    """Northing of the same corner."""
    pixel_m: float
    nodata: float | None
    """Value declared to mean that there is no measurement; such pixels are stored like all others."""


class Strip(NamedTuple):
    """Some rows of a raster."""

    offset: int
    """Byte of the file at which they begin."""
    n_bytes: int
    """Bytes that they take there."""
    row_bytes: int
    """Bytes that they are."""


@dataclass(frozen=True, slots=True)
class PlainHeader:
    """What the header of a plain GeoTIFF says."""

    width: int
    height: int
    dtype: str
    """`uint16` or `float32`."""
    place: Georeference
    strips: tuple[Strip, ...]
    """From the first row to the last. If they are not deflated, they follow one another without gaps."""
    is_deflated: bool
    is_differenced: bool
    """Rows hold the difference of each pixel to the one before it, modulo 65,536; only in deflated strips."""

    @property
    def data_offset(self) -> int:
        """Byte at which the first row begins."""
        return self.strips[0].offset


@lru_cache(maxsize=64)
def parse_plain_header(header: bytes) -> PlainHeader:
    """Parse the header of a plain GeoTIFF.

    The bands of one patch that share a resolution share their header to the byte, hence the cache.

    Args:
        header: The file up to its first pixel, or more of it; all of it if it is deflated.

    Raises:
        NotPlainError: The header is not of the plain form, says why.
    """
    tags = _read_tags(header)
    if missing := _REQUIRED - tags.keys():
        raise NotPlainError(f"tags {sorted(missing)} are missing")
    if not all(_one(tags, tag) == 1 for tag in (_PHOTOMETRIC, _SAMPLES, _PLANAR)):
        raise NotPlainError("not one band of plain grey")
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    dtype = _DTYPES.get((_one(tags, _BITS), _one(tags, _SAMPLE_FORMAT)))
    if dtype is None:
        raise NotPlainError("neither uint16 nor float32")
    coding = (_one(tags, _COMPRESSION), _one(tags, _PREDICTOR) if _PREDICTOR in tags else 1)
    if coding not in ((1, 1), (8, 1)) and (*coding, dtype) != (8, 2, "uint16"):
        raise NotPlainError(f"compressed or differenced in another way: {coding}")
    is_deflated = coding[0] == 8
    place = _read_georeference(tags)
    strips = _read_strips(tags, height, width * _one(tags, _BITS) // 8, is_deflated=is_deflated)
    return PlainHeader(width, height, dtype, place, strips, is_deflated, is_differenced=coding[1] == 2)


def inflate_strips(file: bytes, header: PlainHeader) -> bytes:
    """Inflate the strips of a file; returns its rows, one after another.

    Raises:
        NotPlainError: A strip is damaged, or does not hold the rows that it must.
    """
    rows = []
    for offset, n_bytes, row_bytes in header.strips:
        inflater = zlib.decompressobj()
        try:  # one byte more than is wanted, or the checksum at the end of the stream would not be looked at
            part = inflater.decompress(file[offset : offset + n_bytes], row_bytes + 1)
        except zlib.error as error:
            raise NotPlainError(str(error)) from error
        if len(part) != row_bytes or not inflater.eof:
            raise NotPlainError(f"a strip holds other than {row_bytes:,} bytes of rows")
        rows.append(part)
    return b"".join(rows)


def _read_tags(header: bytes) -> _Tags:
    """Read every tag of the one directory; values must lie inside the header."""
    if len(header) < 10 or header[:4] != b"II*\0":
        raise NotPlainError("not a little-endian classic TIFF")
    (directory,) = struct.unpack_from("<I", header, 4)
    if directory > len(header) - 6:
        raise NotPlainError("the directory lies beyond the header")
    (n_tags,) = struct.unpack_from("<H", header, directory)
    end = directory + 2 + 12 * n_tags
    if end + 4 > len(header):
        raise NotPlainError("the directory is cut short")
    if struct.unpack_from("<I", header, end) != (0,):
        raise NotPlainError("more than one directory")
    tags: _Tags = {}
    for tag, kind, count, offset in struct.iter_unpack("<HHII", header[directory + 2 : end]):
        code = _TYPES.get(kind)
        if tag not in _KNOWN or tag in tags or code is None:
            raise NotPlainError(f"tag {tag} of type {kind} is unknown or repeated")
        if not 0 < count <= MAX_HEADER_BYTES:
            raise NotPlainError(f"tag {tag} has {count} values")
        form = f"<{count}{code}"
        n_bytes = struct.calcsize(form)
        if n_bytes > 4 and offset + n_bytes > len(header):
            raise NotPlainError(f"the value of tag {tag} lies beyond the header")
        content, start = (header, offset) if n_bytes > 4 else (struct.pack("<I", offset), 0)
        tags[tag] = struct.unpack_from(form, content, start)
    return tags


def _read_nodata(tags: _Tags) -> float | None:
    if _NODATA not in tags:
        return None
    (text,) = tags[_NODATA]
    try:
        return float(text.rstrip(b"\0 ").decode("ascii"))
    except (AttributeError, ValueError) as error:
        raise NotPlainError(f"the nodata value is not a number: {text!r}") from error


def _one(tags: _Tags, tag: int) -> int:
    (value, *others) = tags[tag]
    if others or not isinstance(value, int):
        raise NotPlainError(f"tag {tag} is not one integer")
    return value


def _read_strips(tags: _Tags, height: int, row_bytes: int, *, is_deflated: bool) -> tuple[Strip, ...]:
    """Read where the strips are; without compression they must make one gapless block of rows."""
    offsets: tuple[int, ...]
    offsets, sizes, rows = tags[_STRIP_OFFSETS], tags[_STRIP_BYTES], _one(tags, _ROWS_PER_STRIP)
    if not all(isinstance(value, int) for value in (*offsets, *sizes)) or rows < 1:
        raise NotPlainError("the strip tags are not positive integers")
    n_strips = -(-height // rows)
    if (len(offsets), len(sizes)) != (n_strips, n_strips):  # before anything is made of their number
        raise NotPlainError(f"expected {n_strips:,} strips, found {len(offsets):,}")
    expected = [min(rows, height - rows * strip) * row_bytes for strip in range(n_strips)]
    if not is_deflated:
        if list(sizes) != expected:
            raise NotPlainError("the strips do not hold whole rows")
        if any(here + size != there for (here, there), size in zip(pairwise(offsets), sizes, strict=False)):
            raise NotPlainError("the strips do not follow one another")
    return tuple(map(Strip, offsets, sizes, expected))


def _read_georeference(tags: _Tags) -> Georeference:
    scale, tiepoint, keys = tags[_PIXEL_SCALE], tags[_TIEPOINT], tags[_GEO_KEYS]
    if not all(isinstance(value, float) for value in (*scale, *tiepoint)):
        raise NotPlainError("the georeference is not in floating point")
    if len(scale) != 3 or scale[0] != scale[1] or not 0 < scale[0] < math.inf:
        raise NotPlainError(f"pixels are not square and north-up: {scale}")
    if len(tiepoint) != 6 or tiepoint[:3] != (0.0, 0.0, 0.0) or not all(map(math.isfinite, tiepoint)):
        raise NotPlainError(f"the tie point is not the upper-left corner: {tiepoint}")
    epsg = next((value for key, _, _, value in zip(*[iter(keys)] * 4, strict=False) if key == _PROJECTED_CRS), 0)
    if (keys, tags[_GEO_ASCII]) != _describe_utm(epsg):
        raise NotPlainError(f"the CRS is not written as GDAL writes UTM zones: {keys}")
    return Georeference(epsg, tiepoint[3], tiepoint[4], scale[0], _read_nodata(tags))


@lru_cache(maxsize=128)
def _describe_utm(epsg: int) -> tuple[tuple[int, ...], tuple[bytes]] | None:
    """Return GeoKeys and text that GDAL writes for a UTM zone on WGS 84; None for another CRS.

    The whole directory is compared, since GDAL reads more from it than the code of the CRS.
    """
    south, zone = divmod(epsg - _UTM_NORTH, 100)
    if south not in (0, 1) or not 1 <= zone <= 60:
        return None
    citation, datum = f"WGS 84 / UTM zone {zone}{'NS'[south]}|", "WGS 84|"
    keys = (
        *(1, 1, 0, 7),  # version of the directory, and seven keys: code, tag of the value or 0, count, value or offset
        *(1024, 0, 1, 1),  # projected
        *(1025, 0, 1, 1),  # pixels are areas
        *(1026, _GEO_ASCII, len(citation), 0),
        *(2049, _GEO_ASCII, len(datum), len(citation)),
        *(2054, 0, 1, 9102),  # degrees
        *(_PROJECTED_CRS, 0, 1, epsg),
        *(3076, 0, 1, 9001),  # metres
    )
    return keys, (f"{citation}{datum}\0".encode(),)
