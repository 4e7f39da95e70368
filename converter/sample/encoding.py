"""The bytes of a patch's files, exactly as BigEarthNet v1.0 was published.

Source: the real patches in the package `bigearthnet-common`. The tests encode the content of their 72
GeoTIFFs and 6 JSON files anew and expect not one byte to differ. Tag numbers: TIFF 6.0 (Adobe, 1992) and
OGC GeoTIFF 1.1 (OGC 19-008r4); their order and that of the values are GDAL's.
"""

from __future__ import annotations

import json
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.bigearthnet import PATCH_M
from converter.model import Annotation

_SHORT: Final = 3
_LONG: Final = 4
_ASCII: Final = 2
_DOUBLE: Final = 12
_FORMATS: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_STRIP_BYTES: Final = 8_192
"""GDAL fills a strip with as many whole rows as fit into this."""
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


def encode_geotiff(pixels: NDArray[np.uint16], annotation: Annotation, pixel_m: int) -> bytes:
    """Encode one band of a patch: one header, then the rows, uncompressed.

    Args:
        pixels: Digital numbers as (row, col), uint16.
        annotation: Gives the projection and the upper-left corner.
        pixel_m: Side of a pixel in metres.
    """
    n_rows, n_cols = pixels.shape
    rows_per_strip = min(n_rows, _STRIP_BYTES // (n_cols * 2))
    counts = tuple(min(rows_per_strip, n_rows - row) * n_cols * 2 for row in range(0, n_rows, rows_per_strip))
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
        (258, _SHORT, (16,)),
        (259, _SHORT, (1,)),
        (262, _SHORT, (1,)),
        (_STRIP_OFFSETS, _LONG, counts),
        (277, _SHORT, (1,)),
        (278, _SHORT, (rows_per_strip,)),
        (_STRIP_BYTE_COUNTS, _LONG, counts),
        (284, _SHORT, (1,)),
        (339, _SHORT, (1,)),
        (33550, _DOUBLE, (float(pixel_m), float(pixel_m), 0.0)),
        (33922, _DOUBLE, (0.0, 0.0, 0.0, annotation.x_ul, annotation.y_ul, 0.0)),
        (34735, _SHORT, keys),
        (34737, _ASCII, (citation + geographic).encode("ascii") + b"\0"),
    ]
    return _encode_header(entries, counts) + pixels.astype("<u2", copy=False).tobytes()


def encode_annotation(annotation: Annotation, tile_source: str) -> bytes:
    """Encode a patch's labels and metadata as its JSON.

    Args:
        annotation: All that the JSON says, but for the name of the source product.
        tile_source: The Sentinel-2 L1C product that the patch was cut out of.
    """
    x_ul, y_ul, zone = int(annotation.x_ul), int(annotation.y_ul), annotation.epsg - 32_600
    content = {
        "labels": list(annotation.labels),
        "coordinates": {"ulx": x_ul, "uly": y_ul, "lrx": x_ul + PATCH_M, "lry": y_ul - PATCH_M},
        "projection": _PROJECTION.format(zone=zone, meridian=zone * 6 - 183, epsg=annotation.epsg),
        "tile_source": tile_source,
        "acquisition_date": annotation.time,
    }
    return json.dumps(content).encode("ascii")


def _encode_header(entries: list[tuple[int, int, _Value]], counts: tuple[int, ...]) -> bytes:
    """Lay out the directory and the values too long for it; GDAL puts the strip offsets behind their lengths."""
    packed = {tag: _pack(kind, value) for tag, kind, value in entries}
    outside = [tag for tag, value in packed.items() if len(value) > 4]
    if _STRIP_OFFSETS in outside:
        outside.remove(_STRIP_OFFSETS)
        outside.insert(outside.index(_STRIP_BYTE_COUNTS) + 1, _STRIP_OFFSETS)
    position = _IFD_START + 2 + _ENTRY_BYTES * len(entries) + 4
    start_of: dict[int, int] = {}
    for tag in outside:
        start_of[tag] = position
        position += len(packed[tag])
    packed[_STRIP_OFFSETS] = _pack(_LONG, tuple(position + sum(counts[:strip]) for strip in range(len(counts))))
    directory = struct.pack("<2sHIH", b"II", 42, _IFD_START, len(entries))
    for tag, kind, value in entries:
        field = struct.pack("<I", start_of[tag]) if tag in start_of else packed[tag].ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, kind, len(value)) + field
    return directory + struct.pack("<I", 0) + b"".join(packed[tag] for tag in outside)


def _pack(kind: int, value: _Value) -> bytes:
    return value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{_FORMATS[kind]}", *value)
