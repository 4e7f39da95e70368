"""What the Zarr metadata of a store say: root attributes, and of the arrays shapes, bands, codec chains.

Pure: JSON in, records out. A stranger may have written it, so all of it is of the right kind before any is used.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from bigearthnet.files import convert_values
from bigearthnet.store.layout import IMAGES, name_object
from bigearthnet.store.statistics import BandSummary

Chain = Literal["raw", "blosc", "other"]
"""How an array is encoded: as the converter does it, without or with compression, or in another legal way."""

Count = Annotated[int, Meta(ge=0, lt=2**31)]
"""Patches, or rows of the table, whose `index` is an int32."""
Size = Annotated[int, Meta(ge=1, lt=2**31)]
Classes = Annotated[tuple[str, ...], Meta(max_length=63)]
"""Class names; a label is one bit of an int64."""

_DATA_TYPES: Final = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""Of pixels; NumPy and Zarr name them alike."""

_MAX_BYTES: Final = 2**20
"""Of the metadata; ours take 0.05 MB."""

_MAX_PATCH_BYTES: Final = 16 * 2**20
"""Of one array, decoded; BigEarthNet's take 0.1 MB."""


class _Counts(msgspec.Struct):
    expected: Count
    found: Count
    converted: Count
    rejected: Count


class _Options(msgspec.Struct):
    codec: str
    shard_size: int
    bands: tuple[str, ...]


class PartOf(msgspec.Struct):
    """What a store is a part of, and which."""

    whole: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    """Fingerprint of the whole."""
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    """That of the store that it was copied from, which may be a part itself."""
    origin: str
    """Where that was."""
    bands: tuple[str, ...]
    splits: tuple[str, ...]
    where: tuple[str, ...]
    recommended: bool


class Attributes(msgspec.Struct):
    """The root attributes of a store, as docs/store-format.md describes them."""

    fingerprint: str
    dataset: str
    license: str
    citation: str
    converter_version: str
    format_version: int
    options: _Options
    counts: _Counts
    splits: dict[str, tuple[Count, Count]]
    labels_43: Classes
    labels_19: Classes
    statistics: dict[str, BandSummary]
    synthetic: bool = False
    part_of: PartOf | None = None

    def __post_init__(self) -> None:
        for names in (self.labels_43, self.labels_19):
            if len(set(names)) < len(names):
                raise ValueError("expected each class once")


class _NodeAttributes(msgspec.Struct):
    bands: tuple[str, ...] | None = None


class _Grid(msgspec.Struct):
    chunk_shape: tuple[Size, ...]


class _ChunkGrid(msgspec.Struct):
    configuration: _Grid


class _Node(msgspec.Struct):
    """One array."""

    shape: tuple[Count, ...]
    data_type: Any
    chunk_grid: _ChunkGrid
    chunk_key_encoding: Any
    codecs: list[Any]
    attributes: _NodeAttributes
    dimension_names: tuple[str | None, ...] | None = None


class _Sharding(msgspec.Struct):
    chunk_shape: list[int]
    codecs: list[dict[str, Any]]
    index_codecs: list[dict[str, Any]]
    index_location: str = "end"


class _ShardingCodec(msgspec.Struct):
    name: Literal["sharding_indexed"]
    configuration: _Sharding


class _Consolidated(msgspec.Struct):
    metadata: dict[str, _Node]


class _Group(msgspec.Struct):
    attributes: dict[str, Any]
    consolidated_metadata: _Consolidated


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


def describe_images(content: bytes) -> tuple[dict[str, Any], tuple[ArrayInfo, ...]]:
    """Describe the images of a store.

    Args:
        content: The metadata of their Zarr group, consolidated.

    Returns:
        The root attributes, which are as `Attributes` says, and the arrays that have bands, finest first.

    Raises:
        ValueError: They are not what the format says.
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES:,} bytes, found {len(content):,}")
    try:
        group = convert_values(json.loads(content), _Group)  # Zarr writes NaN, which is none of JSON, but of Python
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    convert_values(group.attributes, Attributes)
    nodes = group.consolidated_metadata.metadata
    arrays = [_describe_array(name, node) for name, node in nodes.items() if node.attributes.bands]
    if len(lengths := {info.n_patches for info in arrays}) != 1:
        raise ValueError(f"expected arrays of the same number of patches, found {sorted(lengths)}")
    arrays.sort(key=lambda info: (-info.n_rows, info.name != "s2_10m", info.name))
    return group.attributes, tuple(arrays)


def _describe_array(name: str, node: _Node) -> ArrayInfo:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):  # it becomes a path
        raise ValueError(f"expected a plain name of an array, found {name!r}")
    bands = node.attributes.bands or ()
    if len(node.shape) not in (3, 4) or len(bands) != (node.shape[1] if len(node.shape) == 4 else 1):
        raise ValueError(f"array {name} of shape {node.shape} has the names of {len(bands)} bands")
    if len(chunks := node.chunk_grid.configuration.chunk_shape) != len(node.shape):
        raise ValueError(f"array {name} of shape {node.shape} has chunks of shape {chunks}")
    if node.data_type not in _DATA_TYPES:
        raise ValueError(f"array {name}: expected pixels of {', '.join(_DATA_TYPES)}, found {node.data_type!r}")
    if not 0 < math.prod(node.shape[1:]) * np.dtype(node.data_type).itemsize <= _MAX_PATCH_BYTES:
        raise ValueError(f"array {name}: expected patches of at most {_MAX_PATCH_BYTES:,} bytes, found {node.shape}")
    return ArrayInfo(
        name=name,
        key=f"{IMAGES}/{name}",
        bands=bands,
        shape=node.shape,
        dimensions=tuple(axis or "" for axis in node.dimension_names or ()),
        dtype=node.data_type,
        shard_size=chunks[0],
        chain=_find_chain(node),
    )


def _find_chain(node: _Node) -> Chain:
    """Recognise the codec chains that our own path decodes; every detail must be as expected."""
    patch_shape = [1, *node.shape[1:]]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    crc32c = {"name": "crc32c"}
    try:
        (sharding,) = convert_values(node.codecs, tuple[_ShardingCodec])
    except ValueError:
        return "other"
    shard = sharding.configuration
    if (
        list(node.chunk_grid.configuration.chunk_shape[1:]) != patch_shape[1:]
        or node.chunk_key_encoding != {"name": "default", "configuration": {"separator": "/"}}
        or shard.chunk_shape != patch_shape
        or shard.index_codecs != [little, crc32c]
        or shard.index_location != "end"
    ):
        return "other"
    inner = shard.codecs
    if inner == [little, crc32c]:
        return "raw"
    if len(inner) == 3 and [inner[0], inner[2]] == [little, crc32c] and inner[1].get("name") == "blosc":
        return "blosc"
    return "other"
