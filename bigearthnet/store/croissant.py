"""A description of a store in Croissant, which catalogues, search engines and data loaders read.

Source: Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bigearthnet.bands import SENSORS, BandGroup
from bigearthnet.names import SYNTHETIC_NOTE, TITLES
from bigearthnet.store.layout import IMAGES, REJECTS, TABLE, Layout
from bigearthnet.store.manifest import identify_file
from bigearthnet.store.table import COLUMNS

_CREATORS: Final = (
    "Remote Sensing Image Analysis (RSiM) Group, Technische Universität Berlin",
    "Database Systems and Information Management (DIMA) Group, Technische Universität Berlin",
)
_VERSIONS: Final = {"v1": "1.0.0", "v2": "2.0.0"}
_PUBLISHED: Final = {"v1": "2019", "v2": "2024"}
"""Years of the papers that `CITATIONS` names."""
_KEYWORDS: Final = (
    *("BigEarthNet", "remote sensing", "Earth observation", "land cover", "multi-label classification"),
    *("CORINE Land Cover", "Zarr", "GeoParquet"),
)

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
"""What the names of the properties mean, as the specification prescribes."""

_TYPES: Final = {
    "int16": "cr:Int16",
    "int32": "cr:Int32",
    "double": "cr:Float64",
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "timestamp[ms, tz=UTC]": "sc:DateTime",
}
"""Croissant types of those in the table; for WKB there is none."""


def describe_dataset(store: Path, layout: Layout, attributes: Mapping[str, Any]) -> str:
    """Describe a store that is finished but for this description and the manifest.

    Args:
        store: The store's folder.
        layout: The store's arrays.
        attributes: Root attributes of the images.

    Returns:
        JSON-LD, the same for the same store.
    """
    title = TITLES[layout.dataset]
    sensors = [name for sensor, name in SENSORS.items() if sensor in layout.sensors]
    counts = attributes["counts"]
    synthetic = bool(attributes.get("synthetic"))
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"Synthetic sample in the form of {title}" if synthetic else title,
        "description": (f"{SYNTHETIC_NOTE} " if synthetic else "")
        + (
            f"{counts['converted']:,} of the {counts['expected']:,} patches of {title} ({', '.join(sensors)}, "
            "1,200 m x 1,200 m, Europe) with land-cover classes, as a store that "
            f"bigearthnet-store {attributes['converter_version']} made: pixels at native resolution in {IMAGES}, "
            f"everything else in {TABLE}. Row i of the table is index i of every array."
        ),
        "identifier": attributes["fingerprint"],
        "url": "https://bigearth.net",
        "version": _VERSIONS[layout.dataset],
        "datePublished": _PUBLISHED[layout.dataset],
        "license": "https://cdla.dev/permissive-1-0/",
        "citeAs": attributes["citation"],
        "creator": [{"@type": "sc:Organization", "name": name} for name in _CREATORS],
        "keywords": [*(["synthetic"] if synthetic else []), *_KEYWORDS, *sensors],
        "distribution": [*_describe_files(store), _describe_images(layout.groups)],
        "recordSet": [_describe_splits(), _describe_table()],
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _describe_files(store: Path) -> list[dict[str, Any]]:
    files = {TABLE: "One row a patch (GeoParquet 1.1).", REJECTS: "Patches that could not be converted, and why."}
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "description": description,
            "contentUrl": name,
            "contentSize": f"{entry.n_bytes} B",
            "encodingFormat": "application/x-parquet",
            "sha256": entry.checksum,
        }
        for name, description in files.items()
        if (store / name).is_file()
        for entry in [identify_file((store / name).read_bytes())]
    ]


def _describe_images(groups: Sequence[BandGroup]) -> dict[str, Any]:
    arrays = "; ".join(
        f"{group.name} (patch, {', '.join(group.dimensions)}) {group.dtype}: {' '.join(group.bands)}"
        for group in groups
    )
    return {
        "@type": "cr:FileSet",
        "@id": IMAGES,
        "name": IMAGES,
        "description": f"One sharded Zarr v3 group with the arrays {arrays}.",
        "encodingFormat": "https://zarr-specs.readthedocs.io/en/latest/v3/core/",
        "includes": f"{IMAGES}/**",
    }


def _describe_splits() -> dict[str, Any]:
    roles = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The official splits.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            _describe_field("splits", "name", "sc:Text", "Name of the split."),
            _describe_field("splits", "url", "sc:URL", "What it is for.") | {"equivalentProperty": "sc:url"},
        ],
        "data": [{"splits/name": name, "splits/url": role} for name, role in roles.items()],
    }


def _describe_table() -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "labels": {"repeated": True},
        "labels_19": {"repeated": True},
        "split": {"references": {"field": {"@id": "splits/name"}}},
    }
    fields = [
        _describe_field("patches", name, _TYPES[str(getattr(kind, "value_type", kind))], description)
        | _extract(name)
        | more.get(name, {})
        for name, (kind, description) in COLUMNS.items()
        if name not in ("geometry", "bbox")
    ]
    kind, description = COLUMNS["bbox"]
    corners = [
        _describe_field("patches/bbox", corner.name, _TYPES[str(corner.type)], f"{corner.name} of the bounds.")
        | _extract("bbox", corner.name)
        for corner in kind
    ]
    bounds = _describe_field("patches", "bbox", None, description) | {"subField": corners}
    return {
        "@type": "cr:RecordSet",
        "@id": "patches",
        "name": "patches",
        "description": "The patches, in the order of the arrays. The footprints (`geometry`, WKB) are not described.",
        "key": {"@id": "patches/patch_id"},
        "field": [*fields, bounds],
    }


def _describe_field(parent: str, name: str, kind: str | None, description: str) -> dict[str, Any]:
    described = {"@type": "cr:Field", "@id": f"{parent}/{name}", "name": name, "description": description}
    return described if kind is None else described | {"dataType": kind}


def _extract(column: str, member: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": TABLE}, "extract": {"column": column}}
    if member is not None:
        source["transform"] = {"jsonPath": member}
    return {"source": source}
