"""What Sentinel-2 sees of a landscape: twelve bands of reflectance, under snow, clouds and the sun.

Materials mix linearly on the 10 m grid, so that the coarser bands are the area means of the very scene that the finer
ones show.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import S2_GROUPS
from converter.sample.landscape import Land, Scene
from converter.sample.noise import SIZE, Floats, draw_rough, draw_white
from converter.sample.surface import BANDS, SPECTRA

_SHADOW: Final = np.ix_(np.clip(np.arange(SIZE) + 9, 0, SIZE - 1), np.clip(np.arange(SIZE) - 12, 0, SIZE - 1))
"""Where the cloud is that shades a pixel."""
_HAZE: Final = np.array((330, 240, 150, 100, 60, 35, 25, 20, 15, 12, 4, 2), np.float32)
"""Path radiance of a thick haze in each of `BANDS`, as reflectance x 10,000."""
_BRIGHTNESS: Final = np.array((0.18, 0.18, 0.18, 0.18, 0.1, 0.06, 0.05, 0.05, 0.05, 0.05, 0.08, 0.08), np.float32)
"""Spread of one material's brightness from patch to patch in each of `BANDS`, relative; all bands move together."""
_COLOUR: Final = np.array((0.07, 0.06, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03, 0.03, 0.04, 0.05, 0.05), np.float32)
"""The same where each band moves on its own."""


def sense_reflectance(land: Land, scene: Scene, random: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
    """Render the twelve bands of a patch.

    Args:
        land: The ground.
        scene: Where and when it is seen.
        random: Decides light, weather and noise.

    Returns:
        Reflectance x 10,000 by band name, as (row, col) of the band's own size.
    """
    ground, materials = land.shares, land.materials
    light = 1 + scene.hilliness * land.relief
    light *= 1 + land.cover.strength("shade") * draw_white(random)
    light *= float(np.exp(0.1 * random.standard_normal()))
    np.clip(light, 0.3, 1.6, out=light)
    if scene.snow:
        depth = np.clip(0.75 + 0.3 * draw_rough(random, 4), 0.1, 1) * land.cover.strength("snow")
        ground, materials = _overlay(ground, depth), (*materials, "snow")
    ground = ground * light
    if scene.cloud:
        thickness = np.clip(0.6 + 0.5 * random.random() + 0.9 * draw_rough(random, 3), 0, 1)
        ground *= 1 - 0.55 * thickness[_SHADOW]
        ground, materials = _overlay(ground, thickness), (*materials, "cloud")
    return _observe(ground, _tint(materials, scene, random), random)


def _tint(materials: tuple[str, ...], scene: Scene, random: np.random.Generator) -> Floats:
    """Colour the materials as this patch's season and soils have them; returns (material, band)."""
    spectra = np.empty((len(materials), len(BANDS)), np.float32)
    for row, name in zip(spectra, materials, strict=True):
        dormant, share = scene.dormancy(name)
        row[:] = (1 - share) * np.array(SPECTRA[name]) + share * np.array(SPECTRA[dormant])
    spread = random.standard_normal((len(materials), 1), np.float32) * _BRIGHTNESS
    spread += random.standard_normal(spectra.shape, np.float32) * _COLOUR
    spread += random.standard_normal(len(BANDS), np.float32) * _COLOUR
    haze = _HAZE * np.float32(random.uniform(-0.2, 1))
    tinted: Floats = spectra * np.exp(np.clip(spread, -0.6, 0.6)) + haze
    return tinted


def _observe(ground: Floats, spectra: Floats, random: np.random.Generator) -> dict[str, NDArray[np.uint16]]:
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


def _overlay(ground: Floats, share: Floats) -> Floats:
    """Hide a share of each pixel under one more material, appended to the axis of materials."""
    return np.concatenate([ground * (1 - share), share[np.newaxis]])


def _average(ground: Floats, size: int) -> Floats:
    """Average square blocks of pixels down to `size` rows and columns."""
    step = ground.shape[1] // size
    if step == 1:
        return ground
    columns = sum((ground[:, :, start::step] for start in range(1, step)), ground[:, :, ::step])
    means = sum((columns[:, start::step] for start in range(1, step)), columns[:, ::step])
    return np.asarray(means / (step * step), np.float32)
