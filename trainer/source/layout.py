"""What the Zarr metadata of a store say: format, arrays, codec chains, statistics. Pure: JSON in, records out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bigearthnet.errors import StoreError
from trainer.source.arrays import ArrayInfo, BandStatistics, Chain

FORMAT_NAME: Final = "bigearthnet-store"
FORMAT_VERSION: Final = 1

IMAGES: Final = "images.zarr"
"""The Zarr group inside a store."""
TABLE: Final = "patches.parquet"
"""The table inside a store."""


def check_format(name: str, attributes: Mapping[str, Any]) -> None:
    """Refuse what is not a store, or one of another version."""
    found = attributes.get("format"), attributes.get("format_version")
    if found != (FORMAT_NAME, FORMAT_VERSION):
        raise StoreError(
            f"{name}: expected format {FORMAT_NAME} {FORMAT_VERSION}, found {found[0]} {found[1]}; "
            "use a version of this package that reads it"
        )


def describe_arrays(metadata: Mapping[str, Any]) -> tuple[ArrayInfo, ...]:
    """Describe the arrays that have bands, finest first."""
    consolidated = metadata["consolidated_metadata"]["metadata"]
    found = [_describe_array(name, node) for name, node in consolidated.items() if "bands" in node["attributes"]]
    return tuple(sorted(found, key=lambda info: (-info.n_rows, info.name != "s2_10m", info.name)))


def _describe_array(name: str, node: Mapping[str, Any]) -> ArrayInfo:
    n_patches, *bands_axis, n_rows, n_columns = node["shape"]
    bands = tuple(node["attributes"]["bands"])
    if len(bands_axis) > 1 or len(bands) != sum(bands_axis or [1]):
        raise ValueError(f"array {name} of shape {node['shape']} has the names of {len(bands)} bands")
    grid = node["chunk_grid"]["configuration"]["chunk_shape"]
    return ArrayInfo(
        name=name,
        key=f"{IMAGES}/{name}",
        bands=bands,
        n_patches=n_patches,
        has_band_axis=bool(bands_axis),
        n_rows=n_rows,
        n_columns=n_columns,
        dtype=node["data_type"],
        shard_size=grid[0],
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


def count_patches(name: str, arrays: Sequence[ArrayInfo]) -> int:
    """Count the patches, which must be as many in every array."""
    counts = {info.n_patches for info in arrays}
    if len(counts) != 1:
        raise StoreError(f"{name}: expected arrays of the same number of patches, found {sorted(counts)}")
    return counts.pop()


def read_statistics(found: Mapping[str, Mapping[str, Any]]) -> dict[str, BandStatistics]:
    """Read the statistics of every band that has any."""
    return {
        band: BandStatistics(**{key: values[key] for key in ("mean", "std", "min", "max", "count")})
        for band, values in found.items()
        if values["count"]
    }
