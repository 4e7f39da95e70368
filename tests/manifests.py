"""Manifests for stores that a test has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bigearthnet.store.manifest import encode_manifest, identify_file, list_files, read_manifest
from bigearthnet.store.objects import LocalObjects


def seal_again(store: Path, **changes: Any) -> None:
    """Write the manifest of a store anew, for files that a test has changed or with other statements of its own."""
    manifest = read_manifest(LocalObjects(store))
    files = {name: identify_file((store / name).read_bytes()) for name in list_files(store, manifest.shards)}
    (store / "manifest.json").write_bytes(encode_manifest(replace(manifest, **{"files": files, **changes})))
