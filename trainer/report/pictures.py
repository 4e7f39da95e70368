"""Patches as pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bigearthnet.look.mark import mark_synthetic
from trainer.source.store import Store

_BRIGHTEST: Final = 1600
"""Stored value (reflectance x 10,000) that is drawn white: land is dark, and clouds may burn out."""


def draw_patches(store: Store, rows: NDArray[np.integer]) -> list[str] | None:
    """Draw patches in natural colours.

    Args:
        store: Where they are.
        rows: Positions in it, shape (patch,).

    Returns:
        A PNG for each as a data URI; None if the store lacks one of the bands B04, B03 and B02.

    Raises:
        ReadError: A patch cannot be read.
        RemoteError: A patch cannot be fetched.
    """
    if "rgb" not in store.band_sets:
        return None
    planes: list[NDArray[Any]] = []
    for name, bands in store.resolve_bands("rgb").items():
        info = store.describe(name)
        pixels = np.empty((len(rows), len(bands), info.n_rows, info.n_columns), info.dtype)
        store.open_reader(name, bands).read(np.asarray(rows), pixels, None)
        planes.append(pixels)
    synthetic = bool(store.attributes.get("synthetic"))
    return [_encode(picture, synthetic=synthetic) for picture in np.concatenate(planes, axis=1)]


def _encode(planes: NDArray[Any], *, synthetic: bool) -> str:
    """Encode stored values (band, row, col) as a PNG."""
    scaled = np.clip(planes / _BRIGHTEST, 0, 1) * 255
    picture = np.rint(scaled).astype(np.uint8).transpose(1, 2, 0).copy()
    file = io.BytesIO()
    Image.fromarray(mark_synthetic(picture) if synthetic else picture).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
