"""The manifest: everything that a store consists of, and how each part is recognised.

It is written last, so that a store is finished if and only if it is there, and every reader begins with it. A store may
come from a stranger: nothing that a manifest says is used before it is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any, Final, NamedTuple

from bigearthnet.errors import StoreError
from bigearthnet.store.arrays import ArrayInfo, describe_arrays
from bigearthnet.store.layout import (
    CROISSANT,
    FORMAT_NAME,
    FORMAT_VERSION,
    IMAGES,
    MANIFEST,
    REJECTS,
    TABLE,
    is_litter,
)
from bigearthnet.store.objects import LocalObjects, StoredObject
from bigearthnet.store.remote import Objects
from bigearthnet.store.shard import DamagedError, hash_shard

GROUP: Final = f"{IMAGES}/zarr.json"
"""The metadata of the images, those of all arrays among them."""

_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
"""A plain relative path: no part is empty, hidden, `.` or `..`."""


class Entry(NamedTuple):
    """What a file of a store must be; in the JSON a list of the same two."""

    n_bytes: int
    checksum: str
    """Of a shard, the hash of its chunks' checksums (`hash_chunks`); of any other file, the SHA-256 of its bytes."""


@dataclass(frozen=True)
class Manifest:
    """Everything that a store consists of; building one raises ValueError if it is none that a store can have."""

    fingerprint: str
    """Identifies names, pixels and labels, in order."""
    counts: Mapping[str, int]
    """Patches `expected`, `found`, `converted` and `rejected`."""
    files: Mapping[str, Entry]
    """Every file but the shards and the manifest, by its path relative to the store."""
    shards: Mapping[str, Entry]
    """Likewise, shard by shard, inside each in the order of the arrays."""

    def __post_init__(self) -> None:
        _check_hash(self.fingerprint, 32)
        for n_patches in self.counts.values():
            _check_count(n_patches)
        for entries, length in ((self.files, 64), (self.shards, 16)):
            for path, entry in entries.items():
                if not _PATH.fullmatch(path):
                    raise ValueError(f"expected a relative path inside the store, found {path!r}")
                _check_count(entry.n_bytes)
                _check_hash(entry.checksum, length)
        if missing := {GROUP, TABLE} - self.files.keys():
            raise ValueError(f"expected {', '.join(sorted(missing))} among the files")

    def describe_file(self, path: str) -> StoredObject:
        """Describe a file that is no shard; KeyError if there is none."""
        return StoredObject(path, *self.files[path], _hash_file)

    def describe_shard(self, path: str, shard_size: int) -> StoredObject:
        """Describe a shard; KeyError if there is none."""
        return StoredObject(path, *self.shards[path], partial(hash_shard, shard_size=shard_size))


def _check_count(n: int) -> None:
    if type(n) is not int or n < 0:
        raise ValueError(f"expected a number of bytes or patches, found {n!r}")


def _check_hash(text: str, length: int) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{length}}}", text):
        raise ValueError(f"expected a hash of {length} hexadecimal digits, found {text!r}")


def identify_file(content: bytes) -> Entry:
    """Return how a file that is no shard is recognised."""
    return Entry(len(content), _hash_file(content))


def _hash_file(content: bytes | mmap) -> str:
    return hashlib.sha256(content).hexdigest()


def build_manifest(store: Path, fingerprint: str, counts: Mapping[str, int], shards: Mapping[str, Entry]) -> Manifest:
    """Make the manifest of a store whose files are all there; what desktops leave behind does not count.

    Args:
        store: The store's folder.
        fingerprint: Identifies its content.
        counts: Patches, as its root attributes have them.
        shards: Every shard, in order.
    """
    paths = [*sorted((store / IMAGES).rglob("*")), store / TABLE, store / REJECTS, store / CROISSANT]
    names = [path.relative_to(store).as_posix() for path in paths if path.is_file() and not is_litter(path.name)]
    files = {name: identify_file((store / name).read_bytes()) for name in names if name not in shards}
    return Manifest(fingerprint, counts, files, shards)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    content = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **vars(manifest)}
    return _encode(content | {"checksum": _hash(content)})


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _hash(content: Mapping[str, Any]) -> str:
    return _hash_file(_encode(content))


def decode_manifest(text: bytes) -> dict[str, Any] | None:
    """Return what a manifest says, unchecked; None if its bytes are not those that were written."""
    try:
        content: dict[str, Any] = json.loads(text)
        return content if content.pop("checksum") == _hash(content) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_manifest(objects: Objects) -> Manifest:
    """Read the manifest of a finished store.

    Raises:
        StoreError: There is no finished store of a format that this version reads, or the manifest is damaged.
    """
    try:
        text = objects.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _explain_absence(objects) from error
    except OSError as error:
        raise StoreError(f"{objects.name}/{MANIFEST}: cannot be read ({error.strerror})") from error
    content = decode_manifest(text)
    if content is None:
        raise StoreError(f"{objects.name}/{MANIFEST}: its bytes are not those that were written; copy the store again")
    if (content.get("format"), content.get("format_version")) != (FORMAT_NAME, FORMAT_VERSION):
        raise _refuse_format(objects.name, content)
    try:
        files, shards = ({path: Entry(*entry) for path, entry in content[kind].items()} for kind in ("files", "shards"))
        return Manifest(content["fingerprint"], content["counts"], files, shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{objects.name}/{MANIFEST}: does not describe a store ({error!r})") from error


def _explain_absence(objects: Objects) -> StoreError:
    """Say what is there instead of a finished store: one of format 1 has no manifest."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        attributes = json.loads(objects.read(GROUP))["attributes"]
        if attributes["format"] == FORMAT_NAME and attributes["format_version"] != FORMAT_VERSION:
            return _refuse_format(objects.name, attributes)
    what = "none"
    if isinstance(objects, LocalObjects) and not Path(objects.name).exists():
        what = "no such folder"
    elif isinstance(objects, LocalObjects) and Path(objects.name, IMAGES).exists():
        what = "an unfinished one"
    return StoreError(
        f"{objects.name}: expected a finished store ({MANIFEST}), found {what}; "
        "give the folder that `convert` wrote, or run `convert` again to finish it"
    )


def _refuse_format(name: str, content: Mapping[str, Any]) -> StoreError:
    version = content.get("format_version")
    advice = "convert the archive again" if version == 1 else "use a version of this package that reads it"
    return StoreError(
        f"{name}: expected format {FORMAT_NAME} {FORMAT_VERSION}, found {content.get('format')} {version}; {advice}"
    )


def read_file(objects: Objects, manifest: Manifest, path: str) -> bytes:
    """Read a file of a store that is no shard.

    Raises:
        StoreError: It is not the one that was written, or is gone.
    """
    try:
        return objects.load(manifest.describe_file(path))
    except OSError as error:
        raise StoreError(
            f"{objects.name}/{path}: expected a file of a finished store, cannot be read ({error.strerror or error}); "
            "copy the store again"
        ) from error
    except DamagedError as error:
        raise StoreError(f"{objects.name}/{path}: {error}; copy the store again, or convert again") from error


def open_images(objects: Objects) -> tuple[Manifest, dict[str, Any], tuple[ArrayInfo, ...]]:
    """Open a finished store: make sure that table and metadata are those that were written.

    Returns:
        Its manifest, the root attributes, and the arrays of pixels.

    Raises:
        StoreError: There is no finished store of a format that this version reads, or it is damaged.
    """
    manifest = read_manifest(objects)
    objects.bind(manifest.fingerprint)
    read_file(objects, manifest, TABLE)
    try:
        metadata = json.loads(read_file(objects, manifest, GROUP))
        return manifest, dict(metadata["attributes"]), describe_arrays(metadata)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{objects.name}/{GROUP}: does not describe a store ({error!r}); copy it again") from error


def read_attributes(store: Path) -> dict[str, Any]:
    """Read the root attributes of a finished store in a folder; see `open_images`."""
    _, attributes, _ = open_images(LocalObjects(store))
    return attributes
