"""What the two Sentinels see of a made-up patch, and the reference map that agrees with its labels.

No step goes through BLAS: a matrix product may round differently with another number of threads, and a patch must not
depend on who painted it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import S1_10M, S2_10M, S2_GROUPS
from bigearthnet.labels import CORINE_CODES
from converter.sample.classes import BANDS, LOOKS, Texture

_Floats = NDArray[np.float32]

_SIZE: Final = S2_10M.size
_ROWS, _COLS = (axis.astype(np.float32) for axis in np.mgrid[:_SIZE, :_SIZE])

_LINES: Final = frozenset({122, 511})
"""Roads and rivers, which cross a patch as a band."""
_SHORE: Final = frozenset({123, 331, 421, 422, 423, 521, 522, 523})
"""Classes that lie side by side along a coast: the higher the code, the farther out."""
_FADING: Final = frozenset({211, 212, 213, 221, 222, 231, 241, 242, 243, 311, 313, 324, 411, 421})
"""Classes that turn into dry grass outside the growing season."""
_FADED: Final = {"Spring": 0.1, "Summer": 0.0, "Fall": 0.25, "Winter": 0.5}
_DRY_GRASS: Final = 321
_FORESTS: Final = frozenset({311, 312, 313})
_MIN_SHARE: Final = 0.06
"""Share of the ground that each label has at least."""
_SNOW: Final = np.array((830, 860, 840, 830, 810, 780, 760, 750, 710, 630, 80, 70), np.float32)
_CLOUD: Final = np.array((460, 470, 460, 470, 490, 510, 520, 530, 530, 260, 360, 270), np.float32)
"""Reflectance x 1,000 in each of `BANDS`."""
_SPECKLE_DB: Final = 2.2
"""Spread of the intensity of 4.4 looks, those of a GRD product in IW mode."""


@dataclass(frozen=True, eq=False)
class Painting:
    """The pixels of a patch."""

    reflectance: dict[str, NDArray[np.uint16]]
    """Sentinel-2, x 10,000, by name of band; each of its own size, (row, col)."""
    backscatter: dict[str, _Floats]
    """Sentinel-1, in dB, by name of band, (row, col)."""
    codes: NDArray[np.uint16]
    """CORINE code of each pixel, (row, col); every label has some."""


def paint_patch(
    labels: tuple[str, ...], season: str, random: np.random.Generator, *, snow: bool = False, cloud: bool = False
) -> Painting:
    """Paint a patch.

    Args:
        labels: 43-class names, at least one.
        season: When Sentinel-2 saw it.
        random: Decides all that is left open.
        snow: Snow lies on it.
        cloud: Clouds and their shadows hide some or most of it from Sentinel-2.
    """
    codes = tuple(CORINE_CODES[label] for label in labels)
    ground = _lay_out(codes, random)
    share, shade = _vary([LOOKS[code].texture for code in codes], ground, random)
    looks, echoes = _look_up("reflectance", codes), _look_up("echo", codes)
    faded = np.array([_FADED[season] * (code in _FADING) for code in codes], np.float32)[:, None, None]
    looks += faded * (np.array(LOOKS[_DRY_GRASS].reflectance, np.float32) - looks)
    # Soils, weather and the sun make one class look different from patch to patch.
    looks *= np.exp(0.1 * random.standard_normal() + 0.05 * random.standard_normal(looks.shape, np.float32))
    echoes += 0.7 * random.standard_normal(echoes.shape, np.float32)
    image = _mix(looks, ground, share) * (shade + 0.05 * _draw_smooth(random, 6))
    echo = _mix(echoes, ground, share)
    if snow:
        cover = np.clip(0.75 + 0.3 * _draw_rough(random, 4), 0.1, 1)
        cover *= np.array([0.35 if code in _FORESTS else 1 for code in codes], np.float32)[ground]
        image += cover * (_SNOW[:, None, None] - image)
        echo -= 2 * cover
    if cloud:
        thickness = np.clip(0.8 + 0.5 * random.random() + _draw_rough(random, 3), 0, 1)
        image *= 1 - 0.55 * np.roll(thickness, (-9, 12), (0, 1))
        image += thickness * (_CLOUD[:, None, None] - image)
    speckle = random.standard_normal((2, _SIZE + 1, _SIZE + 1), np.float32)
    # A pixel of 10 m shares most of its signal with its neighbours: the resolution is 20 m.
    echo += _SPECKLE_DB / 2 * (speckle[:, 1:, 1:] + speckle[:, 1:, :-1] + speckle[:, :-1, 1:] + speckle[:, :-1, :-1])
    return Painting(_sense(image, random), dict(zip(S1_10M.bands, echo, strict=True)), np.array(codes, "u2")[ground])


def _lay_out(codes: tuple[int, ...], random: np.random.Generator) -> NDArray[np.intp]:
    """Give each class its share of the ground: where a smooth field is highest; returns positions in `codes`."""
    shares = _MIN_SHARE + (1 - _MIN_SHARE * len(codes)) * random.dirichlet(np.full(len(codes), 1.5))
    coast = _draw_rough(random, 1)
    order = sorted(
        range(len(codes)), key=lambda i: (codes[i] not in _LINES, -codes[i] * (codes[i] in _SHORE), shares[i])
    )
    ground = np.full(_SIZE * _SIZE, order[-1])
    free = np.arange(_SIZE * _SIZE)
    for i in order[:-1]:
        field = coast if codes[i] in _SHORE else _draw_rough(random, 2)
        if codes[i] in _LINES:
            field, shares[i] = -np.abs(field), min(shares[i], 0.12)
        n_px = round(shares[i] * _SIZE * _SIZE)
        ranks = np.argpartition(field.ravel()[free], -n_px)
        ground[free[ranks[-n_px:]]] = i
        free = free[ranks[:-n_px]]
    return ground.reshape(_SIZE, _SIZE)


def _vary(textures: list[Texture], ground: NDArray[np.intp], random: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Draw the share of each pixel's companion, and its brightness."""
    means, plots, _, stands, grain, shade = np.array(textures, np.float32).T[:, ground]
    share = means + stands * _draw_smooth(random, 7) + grain * _draw_white(random)
    for width_px in sorted({texture.plot_px for texture in textures if texture.plots}):
        here = np.array([texture.plot_px == width_px for texture in textures])[ground]
        share += here * plots * _draw_plots(random, width_px)
    return np.clip(share, 0, 1), 1 + shade * _draw_white(random)


def _look_up(what: str, codes: tuple[int, ...]) -> _Floats:
    """Look up what a class and its companion look like; returns (class, own or companion's, band)."""
    pairs = [(LOOKS[code], LOOKS[LOOKS[code].companion]) for code in codes]
    return np.array([[getattr(look, what) for look in pair] for pair in pairs], np.float32)


def _mix(values: _Floats, ground: NDArray[np.intp], share: _Floats) -> _Floats:
    """Mix what `_look_up` returned over the ground; returns (band, row, col)."""
    own, other = (np.take(values[:, which].T, ground, axis=1) for which in (0, 1))
    return np.asarray(own + share * (other - own), np.float32)


def _sense(image: _Floats, random: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
    """Sense each band at its own resolution: as area means of the same scene, with noise."""
    seen: dict[str, NDArray[np.uint16]] = {}
    for group in S2_GROUPS:
        step = _SIZE // group.size
        fine = image[[BANDS.index(band) for band in group.bands]]
        blocks = [fine[:, row::step, col::step] for row in range(step) for col in range(step)]
        means = np.sum(blocks, axis=0) * (10 / step**2)
        means += (10 + 0.015 * means) * random.standard_normal(means.shape, np.float32)
        seen.update(zip(group.bands, np.clip(np.rint(means), 1, 20_000).astype(np.uint16), strict=True))
    return seen


def _draw_plots(random: np.random.Generator, width_px: int) -> _Floats:
    """Draw values that are constant in each plot of farmland, or block of a town."""
    angle = random.uniform(0, np.pi)
    bend = _draw_smooth(random, 3) * (0.3 * width_px)
    across = np.floor((np.cos(angle) * _COLS + np.sin(angle) * _ROWS + bend) / width_px).astype(np.intp)
    along = np.floor((np.cos(angle) * _ROWS - np.sin(angle) * _COLS + bend) / (1.6 * width_px) + 0.37 * across)
    values: _Floats = random.standard_normal((64, 64), np.float32)[across % 64, along.astype(np.intp) % 64]
    return values


def _draw_rough(random: np.random.Generator, cells: int) -> _Floats:
    """Draw smooth noise with finer and fainter noise on it."""
    finer = 0.4 * _draw_smooth(random, 3 * cells) + 0.2 * _draw_smooth(random, 9 * cells)
    return np.asarray(_draw_smooth(random, cells) + finer, np.float32)


def _draw_smooth(random: np.random.Generator, cells: int) -> _Floats:
    """Draw unit-variance noise that varies over a `cells`-th of the patch."""
    weights = _spread(cells)
    grid = random.standard_normal((len(weights), len(weights)), np.float32)
    field: _Floats = np.einsum("jr,jc->rc", np.einsum("ij,ir->jr", grid, weights), weights)
    return field


@cache
def _spread(cells: int) -> _Floats:
    """Weights (node, pixel) of a Gaussian interpolation, whose squares add up to one in each pixel."""
    places = (np.arange(_SIZE) + 0.5) * (cells / _SIZE)
    weights = np.exp(-((places - np.arange(-1, cells + 2)[:, None]) ** 2))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=0)), np.float32)


def _draw_white(random: np.random.Generator) -> _Floats:
    """Draw unit-variance noise that differs in every pixel; uniform, as that is three times as fast as normal."""
    return np.asarray((random.random((_SIZE, _SIZE), np.float32) - 0.5) * 12**0.5, np.float32)
