"""Read the JSON of labels and metadata that stands in each v1.0 patch folder, of Sentinel-2 or Sentinel-1.

The two differ: Sentinel-1 has `lly` for `lry`, `acquisition_time` with a `T` for `acquisition_date`, and names its
Sentinel-2 partner.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn

from bigearthnet.archive.raster import Files, read_head
from bigearthnet.archive.records import Annotation
from bigearthnet.bands import PATCH_M
from bigearthnet.errors import PatchError
from bigearthnet.labels import LABEL_19_OF_43

_MAX_BYTES: Final = 65_536
"""Real annotations take about 1,200 bytes."""

_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}", re.ASCII)
_TILE: Final = re.compile(r"_T(\d{2}[A-Z]{3})_", re.ASCII)
_EPSG: Final = re.compile(r'AUTHORITY\["EPSG",\s*"(\d{4,5})"\]\]\s*$', re.ASCII)
"""The authority of the outermost element of a WKT 1 string: the CRS itself."""


def read_annotation(patch_id: str, files: Files, file: str) -> Annotation:
    """Read what a patch's own JSON says of it. Keys that are not needed are tolerated.

    Args:
        patch_id: Name of the patch, for the error.
        files: The files of the patch.
        file: Name of the JSON among them.

    Raises:
        PatchError: The file is missing, is not the JSON expected, or names a class that is not one of the 43.
    """
    try:
        return _describe(_decode(read_head(files, file, _MAX_BYTES + 1)))
    except FileNotFoundError as error:
        raise PatchError(patch_id, file, "the file is missing") from error
    except OSError as error:
        raise PatchError(patch_id, file, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise PatchError(patch_id, file, str(error)) from error


def _describe(content: Mapping[str, Any]) -> Annotation:
    labels = content.get("labels")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"expected 'labels' to be a list of class names, found {labels!r:.80}")
    if unknown := [label for label in labels if label not in LABEL_19_OF_43]:
        raise ValueError(f"expected labels of the 43-class nomenclature, found {unknown!r:.200}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"expected each label once, found {labels!r:.200}")
    x_ul, y_ul = _read_corner(content.get("coordinates"))
    projection, tile_source = content.get("projection"), content.get("tile_source")
    epsg = _find_epsg(projection) if isinstance(projection, str) else None
    if epsg is None:
        raise ValueError(f"expected 'projection' to be WKT with an EPSG code, found {projection!r:.80}")
    time = content.get("acquisition_date", content.get("acquisition_time"))
    if not isinstance(time, str) or not _is_time(time):
        raise ValueError(
            f"expected 'acquisition_date' or 'acquisition_time' to be YYYY-MM-DD HH:MM:SS, found {time!r:.80}"
        )
    partner = content.get("corresponding_s2_patch")
    if not isinstance(partner, str | None):
        raise ValueError(f"expected 'corresponding_s2_patch' to be a name, found {partner!r:.80}")
    tile = _TILE.search(tile_source) if isinstance(tile_source, str) else None
    return Annotation(tuple(labels), epsg, x_ul, y_ul, time.replace("T", " "), tile[1] if tile else None, partner)


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > _MAX_BYTES:
        raise ValueError(f"expected about 1,200 bytes of JSON, found more than {_MAX_BYTES:,}")
    try:
        content: Any = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, found {len(data):,} bytes that are not ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found a {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _read_corner(corners: Any) -> tuple[float, float]:
    if not isinstance(corners, dict):
        raise ValueError(f"expected 'coordinates' to be an object, found {corners!r:.80}")
    values: list[Any] = [*map(corners.get, ("ulx", "uly", "lrx")), corners.get("lry", corners.get("lly"))]
    if not all(type(value) in (int, float) and abs(value) < 1e8 and math.isfinite(value) for value in values):
        raise ValueError(f"expected 'coordinates' to hold ulx, uly, lrx and lry in metres, found {corners!r:.120}")
    x_ul, y_ul, x_lr, y_lr = values
    if (x_lr - x_ul, y_ul - y_lr) != (PATCH_M, PATCH_M):
        raise ValueError(f"expected corners {PATCH_M:,} m apart, found {x_lr - x_ul:,} by {y_ul - y_lr:,}")
    return float(x_ul), float(y_ul)


@lru_cache(maxsize=64)
def _find_epsg(wkt: str) -> int | None:
    match = _EPSG.search(wkt)
    return int(match[1]) if match else None


@lru_cache(maxsize=4096)
def _is_time(text: str) -> bool:
    with suppress(ValueError):
        return bool(_TIME.fullmatch(text) and datetime.fromisoformat(text))
    return False
