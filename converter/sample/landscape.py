"""Labels to pixels: a made-up landscape that shows a patch's labels in all twelve bands.

Every stage before the last one mixes materials linearly on the 10 m grid, so that the coarser bands are
the area means of the very scene that the finer ones show. No step goes through BLAS: a matrix product may
round differently with another number of threads, and a patch must not depend on who rendered it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.bigearthnet import S2_10M, S2_GROUPS
from converter.sample.surface import BANDS, DORMANCY, DORMANCY_SOUTH, DORMANT, SPECTRA, SURFACES, Texture

_Floats = NDArray[np.float32]

_SIZE: Final = S2_10M.size
_ROWS, _COLS = (axis.astype(np.float32) for axis in np.mgrid[:_SIZE, :_SIZE])
_SHORE: Final = (
    *("Sea and ocean", "Estuaries", "Coastal lagoons", "Intertidal flats", "Beaches, dunes, sands"),
    *("Salt marshes", "Salines", "Port areas"),
)
"""Classes that lie side by side along a coast, in this order from the open sea."""
_LINES: Final = ("Road and rail networks and associated land", "Water courses")
"""Classes that cross a patch as a band."""
_ROAD: Final = ("tiles", "asphalt")
"""Materials of the houses along a road, and of the road."""
_SHADOW: Final = np.ix_(np.clip(np.arange(_SIZE) + 9, 0, _SIZE - 1), np.clip(np.arange(_SIZE) - 12, 0, _SIZE - 1))
"""Where the cloud is that shades a pixel."""
_MAX_LINE: Final = 0.12
_MIN_SHARE: Final = 0.06
_HILLY: Final = {"Austria": 0.12, "Switzerland": 0.12, "Kosovo": 0.12, "Serbia": 0.07, "Portugal": 0.08}
"""Strength of the shading of slopes; 0.03 elsewhere."""
_HAZE: Final = np.array((330, 240, 150, 100, 60, 35, 25, 20, 15, 12, 4, 2), np.float32)
"""Path radiance of a thick haze in each of `BANDS`, as reflectance x 10,000."""
_BRIGHTNESS: Final = np.array((0.18, 0.18, 0.18, 0.18, 0.1, 0.06, 0.05, 0.05, 0.05, 0.05, 0.08, 0.08), np.float32)
"""Spread of one material's brightness from patch to patch in each of `BANDS`, relative; all bands move together."""
_COLOUR: Final = np.array((0.07, 0.06, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03, 0.03, 0.04, 0.05, 0.05), np.float32)
"""The same where each band moves on its own."""


@dataclass(frozen=True)
class Scene:
    """What a patch must show."""

    labels: tuple[str, ...]
    """43-class names, at least one."""
    country: str
    season: str
    snow: bool = False
    """Snow lies on the ground."""
    cloud: bool = False
    """Clouds and their shadows hide some or most of it."""


def render_scene(scene: Scene, random: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
    """Render the twelve bands of a patch.

    Args:
        scene: What to show.
        random: Decides all that the scene leaves open.

    Returns:
        Reflectance x 10,000 by band name, as (row, col) of the band's own size.
    """
    cover = _lay_out(scene.labels, random)
    textures = [SURFACES[label][0] for label in scene.labels]
    with_road = random.random() < 0.6
    materials = sorted({"leaves"}.union(_ROAD if with_road else (), *(SURFACES[label][1] for label in scene.labels)))
    ground = _mix(scene.labels, materials, cover, random)
    if with_road:
        _draw_road(ground, materials, _by_class(textures, "road")[cover], random)
    light = 1 + _HILLY.get(scene.country, 0.03) * _smooth(random, 6)
    light *= 1 + _by_class(textures, "shade")[cover] * _white(random)
    light *= float(np.exp(0.1 * random.standard_normal()))
    np.clip(light, 0.3, 1.6, out=light)
    if scene.snow:
        depth = np.clip(0.75 + 0.3 * _rough(random, 4), 0.1, 1) * _by_class(textures, "snow")[cover]
        ground, materials = _overlay(ground, depth), [*materials, "snow"]
    ground *= light
    if scene.cloud:
        thickness = np.clip(0.6 + 0.5 * random.random() + 0.9 * _rough(random, 3), 0, 1)
        ground *= 1 - 0.55 * thickness[_SHADOW]
        ground, materials = _overlay(ground, thickness), [*materials, "cloud"]
    return _observe(ground, _tint(materials, scene, random), random)


def _lay_out(labels: tuple[str, ...], random: np.random.Generator) -> NDArray[np.intp]:
    """Give each label its share of the ground; returns positions in `labels` as (row, col)."""
    shares = _MIN_SHARE + (1 - _MIN_SHARE * len(labels)) * random.dirichlet(np.full(len(labels), 1.5))
    by_share = [labels[index] for index in np.argsort(-shares)]
    lines = [label for label in _LINES if label in labels]
    shore = [label for label in _SHORE if label in labels]
    blobs = [label for label in by_share if label not in lines and label not in shore]
    order = [*lines, *shore, *reversed(blobs)]
    coast = _slope(random) if shore else None
    cover = np.full(_SIZE * _SIZE, labels.index(order[-1]))
    free = np.ones(_SIZE * _SIZE, bool)
    for label in order[:-1]:
        share = shares[labels.index(label)]
        if label in lines:
            field, share = -np.abs(_slope(random)), min(share, _MAX_LINE)
        else:
            field = coast if coast is not None and label in shore else _rough(random, 3)
        n_px = round(share * _SIZE * _SIZE)
        taken = np.argpartition(np.where(free, field.ravel(), -np.inf), -n_px)[-n_px:]
        cover[taken] = labels.index(label)
        free[taken] = False
    return cover.reshape(_SIZE, _SIZE)


def _mix(
    labels: tuple[str, ...], materials: list[str], cover: NDArray[np.intp], random: np.random.Generator
) -> _Floats:
    """Mix the materials of each pixel; returns shares that sum to one, as (material, row, col)."""
    textures = [SURFACES[label][0] for label in labels]
    recipes = np.array([[SURFACES[label][1].get(name, 0) for name in materials] for label in labels], np.float32)
    n = len(materials)
    change = _by_class(textures, "stands")[cover] * _smooth(random, 9, n)
    change += _by_class(textures, "grain")[cover] * _white(random, n)
    hedges = np.zeros((_SIZE, _SIZE), np.float32)
    for name, least_px, most_px in (("parcels", 10, 30), ("plots", 4, 11)):
        strength = _by_class(textures, name)[cover]
        if strength.any():
            values, edges = _parcels(random, n, least_px, most_px)
            change += strength * values
            hedges += (strength > 0) * edges
    shares: _Floats = np.moveaxis(recipes[cover], -1, 0) * np.exp(change)
    shares /= shares.sum(axis=0)
    _replace(shares, materials.index("leaves"), hedges * _by_class(textures, "hedges")[cover])
    return shares


def _draw_road(shares: _Floats, materials: list[str], strength: _Floats, random: np.random.Generator) -> None:
    """Lay a road with some houses over the ground, wherever it can bear them."""
    distance = np.abs(_slope(random)) * (_SIZE / 4)
    houses = (distance < 4) & (random.random((_SIZE, _SIZE), np.float32) < 0.05)
    for name, share in zip(_ROAD, (houses * np.float32(0.8), (distance < 0.7) * np.float32(0.7)), strict=True):
        _replace(shares, materials.index(name), share * strength)


def _tint(materials: list[str], scene: Scene, random: np.random.Generator) -> _Floats:
    """Colour the materials as this patch's season and soils have them; returns (material, band)."""
    dormancy = (DORMANCY_SOUTH if scene.country == "Portugal" else DORMANCY)[scene.season]
    spectra = np.empty((len(materials), len(BANDS)), np.float32)
    for row, name in zip(spectra, materials, strict=True):
        asleep = dormancy.get(name, 0)
        row[:] = (1 - asleep) * np.array(SPECTRA[name]) + asleep * np.array(SPECTRA[DORMANT.get(name, name)])
    spread = random.standard_normal((len(materials), 1), np.float32) * _BRIGHTNESS
    spread += random.standard_normal(spectra.shape, np.float32) * _COLOUR
    spread += random.standard_normal(len(BANDS), np.float32) * _COLOUR
    haze = _HAZE * np.float32(random.uniform(-0.2, 1))
    tinted: _Floats = spectra * np.exp(np.clip(spread, -0.6, 0.6)) + haze
    return tinted


def _observe(ground: _Floats, spectra: _Floats, random: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
    """Sense each band at its own resolution, with noise."""
    seen: dict[str, NDArray[np.uint16]] = {}
    for group in S2_GROUPS:
        ground = _average(ground, group.size)
        columns = [BANDS.index(band) for band in group.bands]
        image = np.einsum("mb,myx->byx", spectra[:, columns], ground)
        image += (10 + 0.015 * image) * random.standard_normal(image.shape, np.float32)
        np.clip(np.rint(image, out=image), 1, 20_000, out=image)
        seen.update(zip(group.bands, image.astype(np.uint16), strict=True))
    return seen


def _overlay(ground: _Floats, share: _Floats) -> _Floats:
    """Hide a share of each pixel under one more material, appended to the axis of materials."""
    return np.concatenate([ground * (1 - share), share[np.newaxis]])


def _replace(shares: _Floats, material: int, share: _Floats) -> None:
    """Replace a share of each pixel by one of the materials that are mixed there already."""
    shares *= 1 - share
    shares[material] += share


def _average(ground: _Floats, size: int) -> _Floats:
    """Average square blocks of pixels down to `size` rows and columns."""
    step = ground.shape[1] // size
    if step == 1:
        return ground
    columns = sum((ground[:, :, start::step] for start in range(1, step)), ground[:, :, ::step])
    means = sum((columns[:, start::step] for start in range(1, step)), columns[:, ::step])
    return np.asarray(means / (step * step), np.float32)


def _by_class(textures: list[Texture], name: str) -> _Floats:
    return np.array([getattr(texture, name) for texture in textures], np.float32)


def _parcels(random: np.random.Generator, n: int, least_px: int, most_px: int) -> tuple[_Floats, NDArray[np.bool_]]:
    """Divide the patch into fields; returns `n` values that are constant in each, and the edges between them."""
    angle = random.uniform(0, np.pi)
    width, length = random.uniform(least_px, most_px, 2)
    bend = _smooth(random, 3, 2) * (0.4 * least_px)
    across = (np.cos(angle) * _COLS + np.sin(angle) * _ROWS + bend[0]) / width
    along = (np.cos(angle) * _ROWS - np.sin(angle) * _COLS + bend[1]) / length
    strip = np.floor(across).astype(np.intp) % 64
    stretch = random.uniform(0.4, 1.6, 64).astype(np.float32)[strip]
    plot = np.floor(along * stretch + strip * 0.37).astype(np.intp) % 64
    number = strip * 64 + plot
    edges = np.zeros((_SIZE, _SIZE), bool)
    edges[:, 1:] = number[:, 1:] != number[:, :-1]
    edges[1:] |= number[1:] != number[:-1]
    return random.standard_normal((n, 64 * 64), np.float32).take(number, axis=1), edges


def _slope(random: np.random.Generator) -> _Floats:
    """A plane that rises in some direction, bent: zero along a line through the patch."""
    angle = random.uniform(0, 2 * np.pi)
    middle = _SIZE * random.uniform(0.25, 0.75, 2)
    rise = np.cos(angle) * (_COLS - middle[0]) + np.sin(angle) * (_ROWS - middle[1])
    return np.asarray(rise * (4 / _SIZE) + 0.5 * _rough(random, 3), np.float32)


def _rough(random: np.random.Generator, cells: int) -> _Floats:
    """Smooth noise with finer and fainter noise on it."""
    finer = 0.4 * _smooth(random, 3 * cells) + 0.2 * _smooth(random, 9 * cells)
    return np.asarray(_smooth(random, cells) + finer, np.float32)


def _smooth(random: np.random.Generator, cells: int, n: int | None = None) -> _Floats:
    """Unit-variance noise that varies over a `cells`-th of the patch, as ([n,] row, col)."""
    weights = _spread(cells)
    grid = random.standard_normal((n or 1, weights.shape[1], weights.shape[1]), np.float32)
    field: _Floats = np.einsum("nrj,cj->nrc", np.einsum("ri,nij->nrj", weights, grid), weights)
    return field if n else field[0]


@cache
def _spread(cells: int) -> _Floats:
    """Weights (pixel, node) of a Gaussian interpolation whose rows have unit norm."""
    nodes = np.arange(-1, cells + 2)
    places = (np.arange(_SIZE) + 0.5) * (cells / _SIZE)
    weights = np.exp(-((places[:, np.newaxis] - nodes) ** 2))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), np.float32)


def _white(random: np.random.Generator, n: int | None = None) -> _Floats:
    """Unit-variance noise that differs in every pixel; uniform, as that is three times as fast as normal."""
    shape = (_SIZE, _SIZE) if n is None else (n, _SIZE, _SIZE)
    return np.asarray((random.random(shape, np.float32) - 0.5) * 12**0.5, np.float32)
