"""The folders of one made-up patch: its pixels and what stands beside them, in the form of v1.0 or v2.0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.records import Annotation
from bigearthnet.bands import REFERENCE_MAP, S1_10M, S2_GROUPS
from bigearthnet.names import Dataset, annotation_file, band_file
from converter.sample import encoding
from converter.sample.encoding import encode_annotation, encode_geotiff
from converter.sample.landscape import Scene, shape_land
from converter.sample.mgrs import locate_patch
from converter.sample.optics import sense_reflectance
from converter.sample.order import Order, hash_text
from converter.sample.radar import sense_backscatter

Files = dict[str, bytes]
"""Content of each file of a folder, by name."""

_BASELINE_0206: Final = datetime(2017, 10, 23)
"""From here on Sentinel-2 products were made with processing baseline 02.06, before with 02.05."""
_S1_EPOCH: Final = datetime(2017, 1, 1)
_S1_ORBITS_PER_DAY: Final = 175 / 12
_S1_ORBIT: Final = {"S1A": 14_630.85, "S1B": 3_647.35}
"""Absolute orbit at the epoch; fitted to the real patches of S1A, and to its place beside S1A for S1B."""
_S1_SCENE_LENGTH: Final = timedelta(seconds=25)


@dataclass(frozen=True)
class SampleForm:
    """What a sample consists of, and where its folders lie."""

    dataset: Dataset = "v1"
    with_s1: bool = False
    """Write Sentinel-1 too."""

    def s2_folder(self, name: str) -> str:
        """Name the folder of a Sentinel-2 patch, below the sample's: alone, v1.0 needs no folder around it."""
        if self.dataset == "v2":
            return f"BigEarthNet-S2/{name.rsplit('_', 2)[0]}/{name}"
        return f"BigEarthNet-v1.0/{name}" if self.with_s1 else name

    def s1_folder(self, name: str) -> str:
        """Name the folder of a Sentinel-1 patch."""
        if self.dataset == "v2":
            return f"BigEarthNet-S1/{name.rsplit('_', 3)[0]}/{name}"
        return f"BigEarthNet-S1-v1.0/{name}"

    def map_folder(self, name: str) -> str:
        """Name the folder of a reference map (v2.0)."""
        return f"Reference_Maps/{name.rsplit('_', 2)[0]}/{name}"


def make_patch(order: Order, form: SampleForm) -> Iterator[tuple[str, Files]]:
    """Make up a patch.

    Yields:
        Each of its folders, relative to the sample's, and the files in it.
    """
    labels, delay = order.draw_details()
    note = _annotate(order, labels)
    scene = Scene(labels, order.country, order.season, order.snow, order.cloud)
    random = _stream(order, "pixels")
    land = shape_land(scene, random)
    name, tiff = (order.name, encoding.S2_V1) if form.dataset == "v1" else (order.v2_name, encoding.S2_V2)
    pixels = sense_reflectance(land, scene, random)
    files = {
        band_file(name, band): encode_geotiff(pixels[band], note, group.pixel_m, tiff)
        for group in S2_GROUPS
        for band in group.bands
    }
    if form.dataset == "v1":
        files[annotation_file(name)] = encode_annotation(note, _name_s2_product(order, delay))
    yield form.s2_folder(name), files
    if form.with_s1:
        yield (
            form.s1_folder(order.s1_name),
            _make_s1(order, note, sense_backscatter(land, scene, _stream(order, "radar")), form),
        )
    if form.dataset == "v2":
        content = encode_geotiff(land.cover.codes, note, REFERENCE_MAP.pixel_m, encoding.REFERENCE_MAP)
        yield form.map_folder(name), {band_file(name, REFERENCE_MAP.name): content}


def _stream(order: Order, purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(hash_text(order.seed, purpose, order.name)))


def _annotate(order: Order, labels: tuple[str, ...]) -> Annotation:
    corner = locate_patch(order.tile, order.parsed.column, order.parsed.row)
    return Annotation(labels, *corner, time=f"{order.sensed:%Y-%m-%d %H:%M:%S}", tile=order.tile, partner=None)


def _make_s1(order: Order, note: Annotation, pixels: dict[str, NDArray[np.float32]], form: SampleForm) -> Files:
    files = {
        band_file(order.s1_name, band): encode_geotiff(pixels[band], note, S1_10M.pixel_m, encoding.S1)
        for band in S1_10M.bands
    }
    if form.dataset == "v1":
        s1_note = replace(note, time=f"{order.s1_sensed:%Y-%m-%d %H:%M:%S}", tile=None, partner=order.name)
        files[annotation_file(order.s1_name)] = encode_annotation(s1_note, _name_s1_product(order))
    return files


def _name_s2_product(order: Order, delay: timedelta) -> str:
    baseline = "N0206" if order.sensed >= _BASELINE_0206 else "N0205"
    return (
        f"{order.parsed.satellite}_MSIL1C_{order.name.split('_')[2]}_{baseline}_R{order.orbit:03}_T{order.tile}"
        f"_{order.sensed + delay:%Y%m%dT%H%M%S}.SAFE"
    )


def _name_s1_product(order: Order) -> str:
    """Name the product; its last two numbers, data take and checksum, are made up and the same for all its patches."""
    scene = order.s1_name.rsplit("_", 3)[0]
    days = (order.s1_sensed - _S1_EPOCH) / timedelta(days=1)
    orbit = int(_S1_ORBIT[scene[:3]] + days * _S1_ORBITS_PER_DAY)
    number = hash_text(order.seed, "product", scene)
    return (
        f"{scene}_{order.s1_sensed + _S1_SCENE_LENGTH:%Y%m%dT%H%M%S}_{orbit:06}"
        f"_{number >> 16 & 0xFFFFF:06X}_{number & 0xFFFF:04X}"
    )
