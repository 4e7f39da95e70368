"""The Zarr side of a store: describe the shards, read what it says of itself. The only importer of zarr.

The pixels themselves are written by `bigearthnet.store.shard`, one object at a time.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.common import JSON
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning

from bigearthnet.bands import PUBLISHED_BANDS, QUANTIFICATION_VALUE, BandGroup, choose_groups
from bigearthnet.errors import OptionError, StoreError
from bigearthnet.files import flush
from bigearthnet.names import TITLES
from bigearthnet.store.layout import IMAGES, Layout
from bigearthnet.store.shard import CLEVEL

_COORDINATE_ATTRIBUTES: Final[dict[str, dict[str, str]]] = {
    "patch_id": {"long_name": "name of the patch"},
    "epsg": {"long_name": "EPSG code of the projected coordinate system of the patch"},
    "x_ul": {"long_name": "easting of the upper-left corner", "units": "m"},
    "y_ul": {"long_name": "northing of the upper-left corner", "units": "m"},
}
"""Per-patch coordinates."""


def write_metadata(
    store: Path,
    layout: Layout,
    coordinates: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
) -> None:
    """Describe the shards that lie in a store, which makes them a Zarr group.

    It is done when they are all there, so that no reader takes an unfinished store for a whole one.

    Args:
        store: The store's folder.
        layout: Its arrays.
        coordinates: `patch_id` (str), `epsg`, `x_ul` and `y_ul`, each of shape (patch,).
        attributes: Root attributes, JSON values.
    """
    try:
        with warnings.catch_warnings():
            # Zarr's string dtype and consolidated metadata await ratification; both are what every reader expects.
            warnings.simplefilter("ignore", UnstableSpecificationWarning)
            warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
            _write_group(store / IMAGES, layout, coordinates, attributes)
    except OSError:
        # Zarr writes several files at once; of others that fail too, its event loop would log a traceback at its end.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise


def _write_group(
    folder: Path, layout: Layout, coordinates: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
) -> None:
    group = zarr.open_group(folder, mode="a", zarr_format=3, use_consolidated=False)
    for bands in layout.groups:
        _describe_group(group, bands, layout, len(coordinates["patch_id"]))
    for name, values in coordinates.items():
        _write_coordinate(group, name, values, "patch", _COORDINATE_ATTRIBUTES[name])
    group.update_attributes(dict(attributes))
    zarr.consolidate_metadata(group.store)


def _describe_group(group: zarr.Group, bands: BandGroup, layout: Layout, n_patches: int) -> None:
    group.create_array(
        bands.name,
        shape=(n_patches, *bands.stored_shape),
        shards=(layout.shard_size, *bands.stored_shape),
        chunks=(1, *bands.stored_shape),
        dtype=bands.dtype,
        serializer=BytesCodec(endian="little"),
        compressors=_bytes_codecs(bands, layout),
        fill_value=float("nan") if bands.dtype == "float32" else 0,
        dimension_names=("patch", *bands.dimensions),
        attributes={
            **_describe_pixels(bands),
            "bands": list(bands.bands),
            "pixel_size_m": bands.pixel_m,
            "coordinates": " ".join(_COORDINATE_ATTRIBUTES),  # xarray and CF find them by it
        },
    )
    centres = (np.arange(bands.size, dtype=np.float32) + np.float32(0.5)) * np.float32(bands.pixel_m)
    for name, direction in zip(bands.dimensions[-2:], ("south", "east"), strict=True):
        text = f"distance of the pixel centre from the upper-left corner of the patch, towards {direction}"
        _write_coordinate(group, name, centres, name, {"long_name": text, "units": "m"})
    if bands.band_axis is not None:
        names = np.array(bands.bands, dtype=object)
        _write_coordinate(group, bands.band_axis, names, bands.band_axis, {"long_name": "band"})


def _describe_pixels(bands: BandGroup) -> dict[str, JSON]:
    match bands.sensor:
        case "s2":
            return {
                "long_name": f"Sentinel-2 L2A surface reflectance, bands of {bands.pixel_m} m",
                "units": "1",
                "quantification_value": QUANTIFICATION_VALUE,
            }
        case "s1":
            return {"long_name": "Sentinel-1 GRD backscatter, IW mode", "units": "dB"}
        case "map":
            return {"long_name": "CORINE Land Cover 2018 class code", "units": "1"}


def _bytes_codecs(bands: BandGroup, layout: Layout) -> list[BloscCodec | Crc32cCodec]:
    if layout.codec == "none":
        return [Crc32cCodec()]
    blosc = BloscCodec(
        typesize=bands.itemsize,
        cname=layout.codec,
        clevel=CLEVEL[layout.codec],
        shuffle="bitshuffle",
        blocksize=bands.plane_bytes,
    )
    return [blosc, Crc32cCodec()]


def _write_coordinate(
    group: zarr.Group, name: str, values: NDArray[Any], dimension: str, attributes: Mapping[str, str]
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=str if values.dtype == object else values.dtype,
        dimension_names=(dimension,),
        attributes={**attributes},
        overwrite=True,
    )
    array[:] = values


def remove_other_shards(store: Path, keep: Collection[str]) -> None:
    """Remove what lies in the images' folder and is not one of these objects, given relative to the store, for good.

    Links go, not what they lead to.
    """
    kept = {store / name for name in keep}
    changed: set[Path] = set()
    for path in sorted((store / IMAGES).rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            if any(path.iterdir()):
                continue
            path.rmdir()
        elif path in kept:
            continue
        else:
            path.unlink()
        changed = changed - {path} | {path.parent}
    for folder in changed:
        flush(folder)


def read_layout(store: Path, attributes: Mapping[str, Any]) -> Layout:
    """Read the layout of a finished store from its root attributes.

    Raises:
        StoreError: The attributes do not describe a store.
    """
    try:
        dataset = next(version for version, title in TITLES.items() if title == attributes["dataset"])
        options = attributes["options"]
        groups = choose_groups(options["bands"], PUBLISHED_BANDS)
        return Layout(dataset, groups, options["codec"], options["shard_size"])
    except (KeyError, StopIteration, OptionError) as error:
        raise StoreError(f"{store / IMAGES}: the root attributes do not describe a store ({error!r})") from error


def read_coordinates(store: Path) -> dict[str, list[Any]]:
    """Read the per-patch coordinates of a finished store.

    Raises:
        StoreError: They cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=UnstableSpecificationWarning):
            group = zarr.open_group(store / IMAGES, mode="r")
            return {
                name: np.asarray(array[:]).tolist() for name, array in group.arrays() if name in _COORDINATE_ATTRIBUTES
            }
    except Exception as error:  # zarr promises nothing about what it raises
        raise StoreError(
            f"{store / IMAGES}: its coordinates cannot be read ({error!r}); copy the store again"
        ) from error
