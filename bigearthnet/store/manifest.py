"""The manifest: everything that a store consists of, and how each part is recognised.

It is written last, so that a store is finished if and only if it is there, and every reader begins with it. A store may
come from a stranger: nothing that a manifest says is used before it is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from bigearthnet.errors import StoreError
from bigearthnet.files import decode_json
from bigearthnet.store.arrays import ArrayInfo, Count, describe_images
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

_PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
EntryPath = Annotated[str, Meta(pattern=rf"^{_PART}(/{_PART})*\Z")]
"""A plain path relative to the store: no part is empty, hidden, `.` or `..`."""


class Entry(NamedTuple):
    """What a file of a store must be; in the JSON a list of the same two."""

    n_bytes: Annotated[int, Meta(ge=0, lt=2**62)]
    checksum: Annotated[str, Meta(pattern=r"^[0-9a-f]+\Z")]
    """Of a shard, the hash of its chunks' checksums (`hash_chunks`); of any other file, the SHA-256 of its bytes."""


@dataclass(frozen=True)
class Manifest:
    """Everything that a store consists of."""

    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    """Identifies names, pixels and labels, in order."""
    counts: Mapping[str, Count]
    """Patches `expected`, `found`, `converted` and `rejected`."""
    files: Mapping[EntryPath, Entry]
    """Every file but the shards and the manifest, by its path relative to the store."""
    shards: Mapping[EntryPath, Entry]
    """Likewise, shard by shard, inside each in the order of the arrays."""

    def __post_init__(self) -> None:
        for entries, length in ((self.files, 64), (self.shards, 16)):
            if any(len(entry.checksum) != length for entry in entries.values()):
                raise ValueError(f"expected hashes of {length} hexadecimal digits")
        if missing := {GROUP, TABLE} - self.files.keys():
            raise ValueError(f"expected {', '.join(sorted(missing))} among the files")

    def describe_file(self, path: str) -> StoredObject:
        """Describe a file that is no shard; KeyError if there is none."""
        return StoredObject(path, *self.files[path], _hash_file)

    def describe_shard(self, path: str, shard_size: int) -> StoredObject:
        """Describe a shard; KeyError if there is none."""
        return StoredObject(path, *self.shards[path], partial(hash_shard, shard_size=shard_size))


class _Heading(msgspec.Struct):
    """What every manifest begins with."""

    format: str | int | None = None
    format_version: str | int | None = None


class _Group(msgspec.Struct):
    """What the images' metadata of every format have."""

    attributes: _Heading


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


def is_as_written(text: bytes) -> bool:
    """Tell whether the bytes of a manifest are those that its checksum was made of."""
    content, _, checksum = text.rpartition(b',"checksum":')
    return checksum == f'"{hashlib.sha256(content + b"}").hexdigest()}"}}'.encode()


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
    if not is_as_written(text):
        raise StoreError(f"{objects.name}/{MANIFEST}: its bytes are not those that were written; copy the store again")
    try:
        heading = decode_json(text, _Heading)
        if (heading.format, heading.format_version) == (FORMAT_NAME, FORMAT_VERSION):
            return decode_json(text, Manifest)
    except ValueError as error:
        raise StoreError(f"{objects.name}/{MANIFEST}: does not describe a store ({error})") from error
    raise _refuse_format(objects.name, heading)


def _explain_absence(objects: Objects) -> StoreError:
    """Say what is there instead of a finished store: one of format 1 has no manifest."""
    with suppress(OSError, ValueError):
        heading = decode_json(objects.read(GROUP), _Group).attributes
        if heading.format == FORMAT_NAME and heading.format_version != FORMAT_VERSION:
            return _refuse_format(objects.name, heading)
    what = "none"
    if isinstance(objects, LocalObjects) and not Path(objects.name).exists():
        what = "no such folder"
    elif isinstance(objects, LocalObjects) and Path(objects.name, IMAGES).exists():
        what = "an unfinished one"
    return StoreError(
        f"{objects.name}: expected a finished store ({MANIFEST}), found {what}; "
        "give the folder that `convert` wrote, or run `convert` again to finish it"
    )


def _refuse_format(name: str, heading: _Heading) -> StoreError:
    version = heading.format_version
    advice = "convert the archive again" if version == 1 else "use a version of this package that reads it"
    return StoreError(
        f"{name}: expected format {FORMAT_NAME} {FORMAT_VERSION}, found {heading.format} {version}; {advice}"
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
        attributes, arrays = describe_images(read_file(objects, manifest, GROUP))
    except ValueError as error:
        raise StoreError(f"{objects.name}/{GROUP}: does not describe a store ({error}); copy it again") from error
    return manifest, attributes, arrays


def read_attributes(store: Path) -> dict[str, Any]:
    """Read the root attributes of a finished store in a folder; see `open_images`."""
    _, attributes, _ = open_images(LocalObjects(store))
    return attributes
