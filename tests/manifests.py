"""Manifests for stores that a test has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bigearthnet.store.manifest import build_manifest, encode_manifest, read_manifest
from bigearthnet.store.objects import LocalObjects


def seal_again(store: Path, **changes: Any) -> None:
    """Write the manifest of a store anew, for files that a test has changed or with other statements of its own."""
    was = read_manifest(LocalObjects(store))
    manifest = build_manifest(store, was.fingerprint, was.counts, was.shards)
    (store / "manifest.json").write_bytes(encode_manifest(replace(manifest, **changes)))
