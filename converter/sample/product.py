"""The folders of one made-up patch: its pixels and what stands beside them, in the form of v1.0 or v2.0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.records import Annotation
from bigearthnet.bands import REFERENCE_MAP, S1_10M, S2_GROUPS, Sensor
from bigearthnet.names import Dataset, annotation_file, band_file
from converter.sample import encoding
from converter.sample.brief import Brief, hash_text
from converter.sample.encoding import encode_annotation, encode_geotiff
from converter.sample.mgrs import locate_patch
from converter.sample.painting import paint_patch

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

    @property
    def root_of(self) -> dict[Sensor, str]:
        """Folder of each sensor in the sample, as a conversion is given it; Sentinel-2 of v1.0 alone needs none."""
        if self.dataset == "v1":
            return {"s2": "BigEarthNet-v1.0", "s1": "BigEarthNet-S1-v1.0"} if self.with_s1 else {"s2": ""}
        return {"s2": "BigEarthNet-S2", **({"s1": "BigEarthNet-S1"} if self.with_s1 else {}), "map": "Reference_Maps"}

    def name_folder(self, sensor: Sensor, name: str) -> str:
        """Name the folder of a patch, below the sample's: v2.0 puts those of a scene into one folder."""
        scene = name.rsplit("_", 3 if sensor == "s1" else 2)[0] if self.dataset == "v2" else ""
        return str(PurePosixPath(self.root_of[sensor], scene, name))


def list_folders(brief: Brief, form: SampleForm) -> list[str]:
    """List the folders of a patch, relative to the sample's."""
    name = brief.name if form.dataset == "v1" else brief.v2_name
    names: dict[Sensor, str] = {"s2": name, "s1": brief.s1_name, "map": name}
    return [form.name_folder(sensor, names[sensor]) for sensor in form.root_of]


def make_patch(brief: Brief, form: SampleForm) -> Iterator[tuple[str, Files]]:
    """Make up a patch.

    Yields:
        Each of its folders, relative to the sample's, and the files in it.
    """
    labels, delay = brief.draw_details()
    corner = locate_patch(brief.tile, brief.parsed.column, brief.parsed.row)
    note = Annotation(labels, *corner, time=f"{brief.sensed:%Y-%m-%d %H:%M:%S}", tile=brief.tile, partner=None)
    random = np.random.Generator(np.random.PCG64(hash_text(brief.seed, "pixels", brief.name)))
    painting = paint_patch(labels, brief.season, random, snow=brief.snow, cloud=brief.cloud)
    name, tiff = (brief.name, encoding.S2_V1) if form.dataset == "v1" else (brief.v2_name, encoding.S2_V2)
    files = {
        band_file(name, band): encode_geotiff(painting.reflectance[band], note, group.pixel_m, tiff)
        for group in S2_GROUPS
        for band in group.bands
    }
    if form.dataset == "v1":
        files[annotation_file(name)] = encode_annotation(note, _name_s2_product(brief, delay))
    yield form.name_folder("s2", name), files
    if form.with_s1:
        yield form.name_folder("s1", brief.s1_name), _make_s1(brief, note, painting.backscatter, form)
    if form.dataset == "v2":
        content = encode_geotiff(painting.codes, note, REFERENCE_MAP.pixel_m, encoding.MAP_V2)
        yield form.name_folder("map", name), {band_file(name, REFERENCE_MAP.name): content}


def _make_s1(brief: Brief, note: Annotation, pixels: dict[str, NDArray[np.float32]], form: SampleForm) -> Files:
    files = {
        band_file(brief.s1_name, band): encode_geotiff(pixels[band], note, S1_10M.pixel_m, encoding.S1_V1)
        for band in S1_10M.bands
    }
    if form.dataset == "v1":
        s1_note = replace(note, time=f"{brief.s1_sensed:%Y-%m-%d %H:%M:%S}", tile=None, partner=brief.name)
        files[annotation_file(brief.s1_name)] = encode_annotation(s1_note, _name_s1_product(brief))
    return files


def _name_s2_product(brief: Brief, delay: timedelta) -> str:
    baseline = "N0206" if brief.sensed >= _BASELINE_0206 else "N0205"
    return (
        f"{brief.parsed.satellite}_MSIL1C_{brief.name.split('_')[2]}_{baseline}_R{brief.orbit:03}_T{brief.tile}"
        f"_{brief.sensed + delay:%Y%m%dT%H%M%S}.SAFE"
    )


def _name_s1_product(brief: Brief) -> str:
    """Name the product; its last two numbers, data take and checksum, are made up and the same for all its patches."""
    scene = brief.s1_name.rsplit("_", 3)[0]
    days = (brief.s1_sensed - _S1_EPOCH) / timedelta(days=1)
    orbit = int(_S1_ORBIT[scene[:3]] + days * _S1_ORBITS_PER_DAY)
    number = hash_text(brief.seed, "product", scene)
    return (
        f"{scene}_{brief.s1_sensed + _S1_SCENE_LENGTH:%Y%m%dT%H%M%S}_{orbit:06}"
        f"_{number >> 16 & 0xFFFFF:06X}_{number & 0xFFFF:04X}"
    )
