"""Exact symmetries of a square patch: quarter turns and flips move pixels and never change them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def turn_patch(patch: NDArray[Any], symmetry: int) -> NDArray[Any]:
    """View a patch turned and flipped; every resolution group of a patch takes the same symmetry.

    Args:
        patch: Array (..., row, col) of square images.
        symmetry: 0-3 are quarter turns as `np.rot90` counts them; 4-7 the same after a flip of the columns.

    Returns:
        A view of the same shape.
    """
    flipped = patch[..., ::-1] if symmetry >= 4 else patch
    return np.rot90(flipped, symmetry % 4, axes=(-2, -1))


def turn_patches(patches: NDArray[Any], symmetries: NDArray[np.uint8] | None) -> None:
    """Turn and flip patches in place.

    Args:
        patches: Array (patch, ..., row, col) of square images.
        symmetries: 0-7 for each patch, shape (patch,); None to leave all as they are.
    """
    if symmetries is None:
        return
    for patch, symmetry in zip(patches, symmetries.tolist(), strict=True):
        if symmetry:
            patch[...] = turn_patch(patch.copy(), symmetry)
