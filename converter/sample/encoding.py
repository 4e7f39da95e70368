"""The bytes of a patch's files, exactly as BigEarthNet v1.0 and v2.0 were published.

Sources: the real patches in the package `bigearthnet-common`, for v1.0; the tests encode the content of their 84
GeoTIFFs and 12 JSON files anew and expect not one byte to differ. One patch of each kind of v2.0
(https://doi.org/10.5281/zenodo.10891137), whose headers these are to the byte; only what deflate makes of a reference
map depends on the library. Tag numbers: TIFF 6.0 (Adobe, 1992) and OGC GeoTIFF 1.1 (OGC 19-008r4); their order and that
of the values are GDAL's.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.records import Annotation
from bigearthnet.bands import PATCH_M

_SHORT: Final = 3
_LONG: Final = 4
_ASCII: Final = 2
_DOUBLE: Final = 12
_FORMATS: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_STRIP_BYTES: Final = 8_192
"""GDAL fills a strip with as many whole rows as fit into this."""
_NONE: Final = 1
_DEFLATE: Final = 8
_DIFFERENCES: Final = 2
_SAMPLE_FORMATS: Final = {"u": 1, "f": 3}
_ENTRY_BYTES: Final = 12
_STRIP_OFFSETS: Final = 273
_STRIP_BYTE_COUNTS: Final = 279
_IFD_START: Final = 8

_PROJECTION: Final = (
    'PROJCS["WGS 84 / UTM zone {zone}N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563,'
    'AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0,AUTHORITY["EPSG","8901"]],'
    'UNIT["degree",0.0174532925199433,AUTHORITY["EPSG","9122"]],AXIS["Latitude",NORTH],AXIS["Longitude",EAST],'
    'AUTHORITY["EPSG","4326"]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
    'PARAMETER["central_meridian",{meridian}],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],'
    'AXIS["Northing",NORTH],AUTHORITY["EPSG","{epsg}"]]'
)

_Value = bytes | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class TiffForm:
    """Where the kinds of GeoTIFF in the archives differ."""

    nodata: int | None = None
    short_counts: bool = False
    """The sizes of several strips take 16 bits each, as newer versions of libtiff write them."""
    deflate: bool = False
    """Strips are compressed, after taking differences along their rows."""


S2_V1: Final = TiffForm()
S2_V2: Final = TiffForm(nodata=0, short_counts=True)
S1_V1: Final = TiffForm()
"""Sentinel-1, which v2.0 did not write anew."""
MAP_V2: Final = TiffForm(nodata=0, deflate=True)


def encode_geotiff(pixels: NDArray[Any], annotation: Annotation, pixel_m: int, form: TiffForm) -> bytes:
    """Encode one band of a patch: one header, then the rows.

    Args:
        pixels: uint16 or float32, as (row, col).
        annotation: Gives the projection and the upper-left corner.
        pixel_m: Side of a pixel in metres.
        form: Which kind of file to write.
    """
    n_rows, n_cols = pixels.shape
    rows_per_strip = min(n_rows, _STRIP_BYTES // (n_cols * pixels.itemsize))
    strips = [_encode_strip(pixels[row : row + rows_per_strip], form) for row in range(0, n_rows, rows_per_strip)]
    counts = tuple(map(len, strips))
    citation = f"WGS 84 / UTM zone {annotation.epsg - 32_600}N|"
    geographic = "WGS 84|"
    keys = (
        *(1, 1, 0, 7),
        *(1024, 0, 1, 1),
        *(1025, 0, 1, 1),
        *(1026, 34737, len(citation), 0),
        *(2049, 34737, len(geographic), len(citation)),
        *(2054, 0, 1, 9102),
        *(3072, 0, 1, annotation.epsg),
        *(3076, 0, 1, 9001),
    )
    entries: list[tuple[int, int, _Value]] = [
        (256, _SHORT, (n_cols,)),
        (257, _SHORT, (n_rows,)),
        (258, _SHORT, (8 * pixels.itemsize,)),
        (259, _SHORT, (_DEFLATE if form.deflate else _NONE,)),
        (262, _SHORT, (1,)),
        (_STRIP_OFFSETS, _LONG, counts),
        (277, _SHORT, (1,)),
        (278, _SHORT, (rows_per_strip,)),
        (_STRIP_BYTE_COUNTS, _SHORT if form.short_counts and len(counts) > 1 else _LONG, counts),
        (284, _SHORT, (1,)),
        *([(317, _SHORT, (_DIFFERENCES,))] if form.deflate else []),
        (339, _SHORT, (_SAMPLE_FORMATS[pixels.dtype.kind],)),
        (33550, _DOUBLE, (float(pixel_m), float(pixel_m), 0.0)),
        (33922, _DOUBLE, (0.0, 0.0, 0.0, annotation.x_ul, annotation.y_ul, 0.0)),
        (34735, _SHORT, keys),
        (34737, _ASCII, (citation + geographic).encode("ascii") + b"\0"),
        *([] if form.nodata is None else [(42113, _ASCII, b"%d\0" % form.nodata)]),
    ]
    return _encode_header(entries, counts) + b"".join(strips)


def encode_annotation(annotation: Annotation, source: str) -> bytes:
    """Encode a patch's labels and metadata as its JSON (v1.0).

    Args:
        annotation: All that the JSON says, but for the name of the source product. With a partner, it is that of a
            Sentinel-1 patch.
        source: The product that the patch was cut out of: Sentinel-2 L1C, or Sentinel-1 GRD.
    """
    x_ul, y_ul, zone = int(annotation.x_ul), int(annotation.y_ul), annotation.epsg - 32_600
    lower = "lry" if annotation.partner is None else "lly"
    content = {
        "labels": list(annotation.labels),
        "coordinates": {"ulx": x_ul, "uly": y_ul, "lrx": x_ul + PATCH_M, lower: y_ul - PATCH_M},
        "projection": _PROJECTION.format(zone=zone, meridian=zone * 6 - 183, epsg=annotation.epsg),
    }
    if annotation.partner is None:
        content |= {"tile_source": source, "acquisition_date": annotation.time}
    else:
        content |= {
            "corresponding_s2_patch": annotation.partner,
            "scene_source": source,
            "acquisition_time": annotation.time.replace(" ", "T"),
        }
    return json.dumps(content).encode("ascii")


def _encode_strip(rows: NDArray[Any], form: TiffForm) -> bytes:
    if not form.deflate:
        return rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
    return zlib.compress(np.diff(rows, axis=1, prepend=rows.dtype.type(0)).astype("<u2", copy=False).tobytes())


def _encode_header(entries: list[tuple[int, int, _Value]], counts: tuple[int, ...]) -> bytes:
    """Lay out the directory and the values too long for it; GDAL puts the strip offsets behind their lengths."""
    packed = {tag: _pack(kind, value) for tag, kind, value in entries}
    outside = [tag for tag, value in packed.items() if len(value) > 4]
    if _STRIP_OFFSETS in outside:
        outside.remove(_STRIP_OFFSETS)
        outside.insert(outside.index(_STRIP_BYTE_COUNTS) + 1, _STRIP_OFFSETS)
    directory_end = _IFD_START + 2 + _ENTRY_BYTES * len(entries) + 4
    *starts, header_end = accumulate((len(packed[tag]) for tag in outside), initial=directory_end)
    start_of = dict(zip(outside, starts, strict=True))
    packed[_STRIP_OFFSETS] = _pack(_LONG, tuple(accumulate(counts[:-1], initial=header_end)))
    directory = struct.pack("<2sHIH", b"II", 42, _IFD_START, len(entries))
    for tag, kind, value in entries:
        field = struct.pack("<I", start_of[tag]) if tag in start_of else packed[tag].ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, len(value)) + field
    return directory + struct.pack("<I", 0) + b"".join(packed[tag] for tag in outside)


def _pack(kind: int, value: _Value) -> bytes:
    return value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{_FORMATS[kind]}", *value)
