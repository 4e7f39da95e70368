"""Labels to ground: a made-up landscape that shows a patch's labels, before any sensor looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.labels import CORINE_CODES
from converter.sample.noise import (
    SIZE,
    Floats,
    draw_parcels,
    draw_rough,
    draw_slope,
    draw_smooth,
    draw_white,
)
from converter.sample.surface import DORMANCY, DORMANCY_SOUTH, DORMANT, SURFACES

_SHORE: Final = (
    *("Sea and ocean", "Estuaries", "Coastal lagoons", "Intertidal flats", "Beaches, dunes, sands"),
    *("Salt marshes", "Salines", "Port areas"),
)
"""Classes that lie side by side along a coast, in this order from the open sea."""
_LINES: Final = ("Road and rail networks and associated land", "Water courses")
"""Classes that cross a patch as a band."""
_ROAD: Final = ("tiles", "asphalt")
"""Materials of the houses along a road, and of the road."""
_MAX_LINE: Final = 0.12
_MIN_SHARE: Final = 0.06
_HILLY: Final = {"Austria": 0.12, "Switzerland": 0.12, "Kosovo": 0.12, "Serbia": 0.07, "Portugal": 0.08}
"""Strength of the shading of slopes; 0.03 elsewhere."""


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

    @property
    def hilliness(self) -> float:
        """Strength of the shading of slopes."""
        return _HILLY.get(self.country, 0.03)

    def dormancy(self, material: str) -> tuple[str, float]:
        """Name what a material turns into outside its growing season, and the share of it that has."""
        share = (DORMANCY_SOUTH if self.country == "Portugal" else DORMANCY)[self.season].get(material, 0)
        return DORMANT.get(material, material), share


@dataclass(frozen=True)
class Cover:
    """Which class each pixel belongs to."""

    labels: tuple[str, ...]
    """43-class names."""
    position: NDArray[np.intp]
    """Position of each pixel's class in `labels`, as (row, col)."""

    @property
    def codes(self) -> NDArray[np.uint16]:
        """CORINE code of each pixel: the reference map."""
        return np.array([CORINE_CODES[label] for label in self.labels], np.uint16)[self.position]

    def strength(self, name: str) -> Floats:
        """Look up how strong one field of `Texture` is in each pixel."""
        return np.array([getattr(SURFACES[label][0], name) for label in self.labels], np.float32)[self.position]


@dataclass(frozen=True)
class Land:
    """Bare ground, on the 10 m grid."""

    cover: Cover
    materials: tuple[str, ...]
    shares: Floats
    """Share of each material in each pixel, as (material, row, col)."""
    relief: Floats
    """Slope towards the light, of unit variance."""


def shape_land(scene: Scene, random: np.random.Generator) -> Land:
    """Make the ground of a patch.

    Args:
        scene: What to show.
        random: Decides all that the scene leaves open.
    """
    cover = _lay_out(scene.labels, random)
    with_road = random.random() < 0.6
    materials = sorted({"leaves"}.union(_ROAD if with_road else (), *(SURFACES[label][1] for label in scene.labels)))
    shares = _mix(cover, materials, random)
    if with_road:
        _draw_road(shares, materials, cover.strength("road"), random)
    return Land(cover, tuple(materials), shares, relief=draw_smooth(random, 6))


def _lay_out(labels: tuple[str, ...], random: np.random.Generator) -> Cover:
    """Give each label its share of the ground."""
    shares = _MIN_SHARE + (1 - _MIN_SHARE * len(labels)) * random.dirichlet(np.full(len(labels), 1.5))
    by_share = [labels[index] for index in np.argsort(-shares)]
    lines = [label for label in _LINES if label in labels]
    shore = [label for label in _SHORE if label in labels]
    blobs = [label for label in by_share if label not in lines and label not in shore]
    order = [*lines, *shore, *reversed(blobs)]
    coast = draw_slope(random) if shore else None
    cover = np.full(SIZE * SIZE, labels.index(order[-1]))
    free = np.ones(SIZE * SIZE, bool)
    for label in order[:-1]:
        share = shares[labels.index(label)]
        if label in lines:
            field, share = -np.abs(draw_slope(random)), min(share, _MAX_LINE)
        else:
            field = coast if coast is not None and label in shore else draw_rough(random, 3)
        n_px = round(share * SIZE * SIZE)
        taken = np.argpartition(np.where(free, field.ravel(), -np.inf), -n_px)[-n_px:]
        cover[taken] = labels.index(label)
        free[taken] = False
    return Cover(labels, cover.reshape(SIZE, SIZE))


def _mix(cover: Cover, materials: list[str], random: np.random.Generator) -> Floats:
    """Mix the materials of each pixel; returns shares that sum to one, as (material, row, col)."""
    recipes = np.array([[SURFACES[label][1].get(name, 0) for name in materials] for label in cover.labels], np.float32)
    n = len(materials)
    change = cover.strength("stands") * draw_smooth(random, 9, n)
    change += cover.strength("grain") * draw_white(random, n)
    hedges = np.zeros((SIZE, SIZE), np.float32)
    for name, least_px, most_px in (("parcels", 10, 30), ("plots", 4, 11)):
        strength = cover.strength(name)
        if strength.any():
            values, edges = draw_parcels(random, n, least_px, most_px)
            change += strength * values
            hedges += (strength > 0) * edges
    shares: Floats = np.moveaxis(recipes[cover.position], -1, 0) * np.exp(change)
    shares /= shares.sum(axis=0)
    _replace(shares, materials.index("leaves"), hedges * cover.strength("hedges"))
    return shares


def _draw_road(shares: Floats, materials: list[str], strength: Floats, random: np.random.Generator) -> None:
    """Lay a road with some houses over the ground, wherever it can bear them."""
    distance = np.abs(draw_slope(random)) * (SIZE / 4)
    houses = (distance < 4) & (random.random((SIZE, SIZE), np.float32) < 0.05)
    for name, share in zip(_ROAD, (houses * np.float32(0.8), (distance < 0.7) * np.float32(0.7)), strict=True):
        _replace(shares, materials.index(name), share * strength)


def _replace(shares: Floats, material: int, share: Floats) -> None:
    """Replace a share of each pixel by one of the materials that are mixed there already."""
    shares *= 1 - share
    shares[material] += share
