"""A description of a store in Croissant, which catalogues, search engines and data loaders read.

Source: Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bigearthnet.bands import BandGroup
from bigearthnet.names import SYNTHETIC_NOTE, TITLES
from bigearthnet.store.layout import IMAGES, REJECTS, TABLE, Layout
from bigearthnet.store.manifest import identify_file

_URL: Final = "https://bigearth.net"
_LICENSE_URL: Final = "https://cdla.dev/permissive-1-0/"
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
_SENSORS: Final = {"s2": "Sentinel-2", "s1": "Sentinel-1", "map": "reference maps"}

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

_COLUMNS: Final = {
    "index": ("cr:Int32", "Position in every array of the images; equals the row number."),
    "patch_id": ("sc:Text", "Name of the Sentinel-2 patch."),
    "labels": ("sc:Text", "Classes of the patch, as the source gives them: of 43 in v1.0, of 19 in v2.0."),
    "labels_19": ("sc:Text", "Classes of the patch in the 19-class nomenclature; may be none."),
    "split": ("sc:Text", "Official split; none where no list names the patch."),
    "recommended": ("sc:Boolean", "In a split, free of snow, cloud and shadow, with a 19-class label."),
    "country": ("sc:Text", "Country of the patch."),
    "season": ("sc:Text", "Season in which the patch was sensed."),
    "contains_seasonal_snow": ("sc:Boolean", "Covered by seasonal snow, by the official list."),
    "contains_cloud_or_shadow": ("sc:Boolean", "Under cloud or its shadow, by the official list."),
    "s1_name": ("sc:Text", "Name of the paired Sentinel-1 patch."),
    "s2v1_name": ("sc:Text", "Name of the same patch in BigEarthNet v1.0; none in v1.0 itself."),
    "has_s1": ("sc:Boolean", "The images hold Sentinel-1 pixels of the patch."),
    "s2_time": ("sc:DateTime", "Start of Sentinel-2 sensing, UTC."),
    "s1_time": ("sc:DateTime", "Start of Sentinel-1 sensing, UTC; none without Sentinel-1."),
    "satellite": ("sc:Text", "Sentinel-2 satellite."),
    "tile": ("sc:Text", "MGRS tile."),
    "column": ("cr:Int16", "Position in the tile, in patches from the west."),
    "row": ("cr:Int16", "Position in the tile, in patches from the north."),
    "epsg": ("cr:Int32", "EPSG code of the projected coordinate system."),
    "x_ul": ("cr:Float64", "Easting of the upper-left corner in metres."),
    "y_ul": ("cr:Float64", "Northing of the upper-left corner in metres."),
    "zero_pixels": ("cr:Int32", "Zeros in the stored 10 m bands of Sentinel-2, over all bands."),
}
"""Columns of the table with their Croissant types. Bounds are described apart; for WKB there is no type."""

_LISTS: Final = frozenset({"labels", "labels_19"})


def describe_dataset(store: Path, layout: Layout, attributes: Mapping[str, Any]) -> str:
    """Describe a store that is finished but for this description and the manifest.

    Args:
        store: The store's folder.
        layout: The store's arrays.
        attributes: Root attributes of the images.

    Returns:
        JSON-LD, the same for the same store.
    """
    sensors = ", ".join(name for sensor, name in _SENSORS.items() if sensor in layout.sensors)
    counts = attributes["counts"]
    synthetic = bool(attributes.get("synthetic"))
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"Synthetic sample in the form of {TITLES[layout.dataset]}" if synthetic else TITLES[layout.dataset],
        "description": (f"{SYNTHETIC_NOTE} " if synthetic else "")
        + (
            f"{counts['converted']:,} of the {counts['expected']:,} patches of {TITLES[layout.dataset]} ({sensors}, "
            "1,200 m x 1,200 m, Europe) with land-cover classes, as a store that "
            f"bigearthnet-store {attributes['converter_version']} made: pixels at native resolution in {IMAGES}, "
            f"everything else in {TABLE}. Row i of the table is index i of every array."
        ),
        "identifier": attributes["fingerprint"],
        "url": _URL,
        "version": _VERSIONS[layout.dataset],
        "datePublished": _PUBLISHED[layout.dataset],
        "license": _LICENSE_URL,
        "citeAs": attributes["citation"],
        "creator": [{"@type": "sc:Organization", "name": name} for name in _CREATORS],
        "keywords": [
            *(["synthetic"] if synthetic else []),
            *_KEYWORDS,
            *(name for sensor, name in _SENSORS.items() if sensor in layout.sensors),
        ],
        "distribution": [*_describe_files(store), _describe_images(layout.groups)],
        "recordSet": [_describe_splits(), _describe_table()],
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _describe_files(store: Path) -> list[dict[str, Any]]:
    files = {
        TABLE: "One row a patch (GeoParquet 1.1).",
        REJECTS: "Patches that could not be converted, and why.",
    }
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
    fields = []
    for name, (kind, description) in _COLUMNS.items():
        field = _describe_field("patches", name, kind, description) | _extract(name)
        if name in _LISTS:
            field["repeated"] = True
        if name == "split":
            field["references"] = {"field": {"@id": "splits/name"}}
        fields.append(field)
    corners = [
        _describe_field("patches/bbox", corner, "cr:Float64", f"{corner} of the bounds.") | _extract("bbox", corner)
        for corner in ("xmin", "ymin", "xmax", "ymax")
    ]
    bounds = _describe_field("patches", "bbox", None, "Bounds of the footprint in longitude and latitude.")
    return {
        "@type": "cr:RecordSet",
        "@id": "patches",
        "name": "patches",
        "description": "The patches, in the order of the arrays. The footprints (`geometry`, WKB) are not described.",
        "key": {"@id": "patches/patch_id"},
        "field": [*fields, bounds | {"subField": corners}],
    }


def _describe_field(parent: str, name: str, kind: str | None, description: str) -> dict[str, Any]:
    described = {"@type": "cr:Field", "@id": f"{parent}/{name}", "name": name, "description": description}
    return described if kind is None else described | {"dataType": kind}


def _extract(column: str, member: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": TABLE}, "extract": {"column": column}}
    if member is not None:
        source["transform"] = {"jsonPath": member}
    return {"source": source}
