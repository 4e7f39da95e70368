"""What the Zarr metadata of a store say of its arrays: shapes, bands, codec chains. Pure: JSON in, records out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bigearthnet.store.layout import IMAGES, name_object

Chain = Literal["raw", "blosc", "other"]
"""How an array is encoded: as the converter does it, without or with compression, or in another legal way."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a store: the bands that share a pixel size."""

    name: str
    """Name of the array."""
    key: str
    """Where it lies in the store."""
    bands: tuple[str, ...]
    """Band names, in the order of the band axis."""
    shape: tuple[int, ...]
    """(patch, band, row, col), or (patch, row, col) of one band."""
    dimensions: tuple[str, ...]
    """Names of the axes; none if the array does not name them."""
    dtype: str
    """NumPy name of the stored type."""
    shard_size: int
    """Patches in a full shard."""
    chain: Chain
    """Decides which path reads it."""

    @property
    def n_patches(self) -> int:
        """Length of the patch axis."""
        return self.shape[0]

    @property
    def has_band_axis(self) -> bool:
        """False if the array is (patch, row, col) with one band; a batch has the axis all the same."""
        return len(self.shape) == 4

    @property
    def n_rows(self) -> int:
        """Pixel rows of a patch."""
        return self.shape[-2]

    @property
    def n_columns(self) -> int:
        """Pixel columns of a patch."""
        return self.shape[-1]

    @cached_property
    def plane_bytes(self) -> int:
        """Bytes of one band of one patch."""
        return self.n_rows * self.n_columns * np.dtype(self.dtype).itemsize

    @property
    def raw_bytes(self) -> int:
        """Bytes of all patches, decoded."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def shard_key(self, number: int) -> str:
        """Name the object of a shard."""
        return name_object(self.key, len(self.shape) - 1, number)


def describe_arrays(metadata: Mapping[str, Any]) -> tuple[ArrayInfo, ...]:
    """Describe the arrays that have bands, finest first.

    Args:
        metadata: The Zarr group's own, consolidated.

    Raises:
        KeyError, TypeError, ValueError: They are not what the format says.
    """
    consolidated = metadata["consolidated_metadata"]["metadata"]
    arrays = [_describe_array(name, node) for name, node in consolidated.items() if "bands" in node["attributes"]]
    return tuple(sorted(arrays, key=lambda info: (-info.n_rows, info.name != "s2_10m", info.name)))


def _describe_array(name: str, node: Mapping[str, Any]) -> ArrayInfo:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):  # it becomes a path, and may be a stranger's
        raise ValueError(f"expected a plain name of an array, found {name!r}")
    n_patches, *bands_axis, n_rows, n_columns = node["shape"]
    bands = tuple(node["attributes"]["bands"])
    if len(bands_axis) > 1 or len(bands) != sum(bands_axis or [1]):
        raise ValueError(f"array {name} of shape {node['shape']} has the names of {len(bands)} bands")
    return ArrayInfo(
        name=name,
        key=f"{IMAGES}/{name}",
        bands=bands,
        shape=(n_patches, *bands_axis, n_rows, n_columns),
        dimensions=tuple(node.get("dimension_names") or ()),
        dtype=node["data_type"],
        shard_size=node["chunk_grid"]["configuration"]["chunk_shape"][0],
        chain=_find_chain(node, [1, *bands_axis, n_rows, n_columns]),
    )


def _find_chain(node: Mapping[str, Any], patch_shape: list[int]) -> Chain:
    """Recognise the codec chains that our own path decodes; every detail must be as expected."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    crc32c = {"name": "crc32c"}
    if (
        node["chunk_grid"]["configuration"]["chunk_shape"][1:] != patch_shape[1:]
        or node["chunk_key_encoding"] != {"name": "default", "configuration": {"separator": "/"}}
        or len(node["codecs"]) != 1
        or node["codecs"][0]["name"] != "sharding_indexed"
    ):
        return "other"
    shard = node["codecs"][0]["configuration"]
    if (
        shard["chunk_shape"] != patch_shape
        or shard["index_codecs"] != [little, crc32c]
        or shard.get("index_location", "end") != "end"
    ):
        return "other"
    inner = shard["codecs"]
    if inner == [little, crc32c]:
        return "raw"
    if len(inner) == 3 and [inner[0], inner[2]] == [little, crc32c] and inner[1]["name"] == "blosc":
        return "blosc"
    return "other"
