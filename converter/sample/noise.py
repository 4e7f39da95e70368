"""Random fields over a patch: smooth, rough and white noise, slopes, and the parcels of farmland.

No step goes through BLAS: a matrix product may round differently with another number of threads, and a patch must not
depend on who rendered it.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import S2_10M

Floats = NDArray[np.float32]

SIZE: Final = S2_10M.size
"""Rows, and columns, of a patch on the 10 m grid."""

_ROWS, _COLS = (axis.astype(np.float32) for axis in np.mgrid[:SIZE, :SIZE])


def draw_parcels(random: np.random.Generator, n: int, least_px: int, most_px: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Divide the patch into fields; returns `n` values that are constant in each, and the edges between them."""
    angle = random.uniform(0, np.pi)
    width, length = random.uniform(least_px, most_px, 2)
    bend = draw_smooth(random, 3, 2) * (0.4 * least_px)
    across = (np.cos(angle) * _COLS + np.sin(angle) * _ROWS + bend[0]) / width
    along = (np.cos(angle) * _ROWS - np.sin(angle) * _COLS + bend[1]) / length
    strip = np.floor(across).astype(np.intp) % 64
    stretch = random.uniform(0.4, 1.6, 64).astype(np.float32)[strip]
    plot = np.floor(along * stretch + strip * 0.37).astype(np.intp) % 64
    number = strip * 64 + plot
    edges = np.zeros((SIZE, SIZE), bool)
    edges[:, 1:] = number[:, 1:] != number[:, :-1]
    edges[1:] |= number[1:] != number[:-1]
    return random.standard_normal((n, 64 * 64), np.float32).take(number, axis=1), edges


def draw_slope(random: np.random.Generator) -> Floats:
    """Draw a plane that rises in some direction, bent: zero along a line through the patch."""
    angle = random.uniform(0, 2 * np.pi)
    middle = SIZE * random.uniform(0.25, 0.75, 2)
    rise = np.cos(angle) * (_COLS - middle[0]) + np.sin(angle) * (_ROWS - middle[1])
    return np.asarray(rise * (4 / SIZE) + 0.5 * draw_rough(random, 3), np.float32)


def draw_rough(random: np.random.Generator, cells: int) -> Floats:
    """Draw smooth noise with finer and fainter noise on it."""
    finer = 0.4 * draw_smooth(random, 3 * cells) + 0.2 * draw_smooth(random, 9 * cells)
    return np.asarray(draw_smooth(random, cells) + finer, np.float32)


def draw_smooth(random: np.random.Generator, cells: int, n: int | None = None) -> Floats:
    """Draw unit-variance noise that varies over a `cells`-th of the patch, as ([n,] row, col)."""
    weights = _spread(cells)
    grid = random.standard_normal((n or 1, weights.shape[1], weights.shape[1]), np.float32)
    field: Floats = np.einsum("nrj,cj->nrc", np.einsum("ri,nij->nrj", weights, grid), weights)
    return field if n else field[0]


@cache
def _spread(cells: int) -> Floats:
    """Weights (pixel, node) of a Gaussian interpolation whose rows have unit norm."""
    nodes = np.arange(-1, cells + 2)
    places = (np.arange(SIZE) + 0.5) * (cells / SIZE)
    weights = np.exp(-((places[:, np.newaxis] - nodes) ** 2))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), np.float32)


def draw_white(random: np.random.Generator, n: int | None = None) -> Floats:
    """Draw unit-variance noise that differs in every pixel; uniform, as that is three times as fast as normal."""
    shape = (SIZE, SIZE) if n is None else (n, SIZE, SIZE)
    return np.asarray((random.random(shape, np.float32) - 0.5) * 12**0.5, np.float32)
