"""The manifest: what is no finished store is refused, and nothing that a stranger wrote into one is trusted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from bigearthnet.errors import StoreError
from bigearthnet.store.manifest import read_attributes, read_manifest
from bigearthnet.store.objects import LocalObjects
from tests.archives import read_files

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    """What opening a store reads: everything but shards and coordinates."""
    for name in ("manifest.json", "patches.parquet", "images.zarr/zarr.json"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(store / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def edit_manifest(store: Path, edit: Edit) -> None:
    """Change what a manifest says, with a checksum that is true."""
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    edit(content)
    checksum = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content | {"checksum": checksum}, separators=(",", ":")))


def test_it_names_every_file_once_with_its_size_and_sha_256(store: Path) -> None:
    content = json.loads((store / "manifest.json").read_text())
    files = read_files(store)
    del files["manifest.json"]
    assert content["files"].keys() | content["shards"].keys() == files.keys()
    assert len(content["files"]) + len(content["shards"]) == len(files)
    for name, (n_bytes, sha256) in content["files"].items():
        assert (n_bytes, sha256) == (len(files[name]), hashlib.sha256(files[name]).hexdigest())
    assert {name: n_bytes for name, (n_bytes, _) in content["shards"].items()} == {
        name: len(files[name]) for name in content["shards"]
    }
    assert (content["format"], content["format_version"]) == ("bigearthnet-store", 2)
    assert content["fingerprint"] == read_attributes(store)["fingerprint"]
    assert content["counts"] == read_attributes(store)["counts"]


def test_the_hash_of_a_shard_is_that_of_the_checksums_of_its_chunks(store: Path) -> None:
    """Without the code under test: the index of a shard of 4 patches says where each chunk ends."""
    shards = json.loads((store / "manifest.json").read_text())["shards"]
    for name, (_, expected) in shards.items():
        content = (store / name).read_bytes()
        index = [int.from_bytes(content[at : at + 8], "little") for at in range(len(content) - 68, len(content) - 4, 8)]
        ends = [first + size for first, size in zip(index[::2], index[1::2], strict=True) if first < 2**63]
        checksums = b"".join(content[end - 4 : end] for end in ends)
        assert hashlib.blake2b(checksums, digest_size=8).hexdigest() == expected


# -- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found"), [("missing", "no such folder"), ("empty", "none"), ("unfinished", "an unfinished one")]
)
def test_what_is_no_finished_store_is_refused(kind: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    if kind != "missing":
        path.mkdir()
    if kind == "unfinished":
        (path / "images.zarr").mkdir()
    with pytest.raises(StoreError, match=rf"{path}: expected a finished store .*, found {found}; give the folder"):
        read_attributes(path)


def test_a_store_of_format_1_is_refused_and_may_be_converted_again(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "images.zarr", mode="w", attributes={"format": "bigearthnet-store", "format_version": 1})
    (tmp_path / "patches.parquet").touch()
    with pytest.raises(
        StoreError, match="expected format bigearthnet-store 2, found bigearthnet-store 1; convert the archive again"
    ):
        read_attributes(tmp_path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"format": "other"}, "other 2"), ({"format_version": 3}, "bigearthnet-store 3"), ({"format": None}, "None 2")],
)
def test_a_store_of_another_format_is_refused(changes: dict[str, Any], found: str, copy: Path) -> None:
    edit_manifest(copy, lambda content: content.update(changes))
    with pytest.raises(StoreError, match=f"expected format bigearthnet-store 2, found {found}; use a version"):
        read_attributes(copy)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"format": "bigearthnet-store"}', "[" * 100_000, "\0"]
)
def test_a_damaged_manifest_is_refused_by_name(content: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=rf"{copy}/manifest\.json: its bytes are not those that were written"):
        read_attributes(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"zarr_format": 3}'])
@pytest.mark.parametrize("sealed", [False, True])
def test_damaged_metadata_is_refused_by_name(content: str, sealed: bool, copy: Path) -> None:
    (copy / "images.zarr" / "zarr.json").write_text(content)
    if sealed:
        entry = [len(content), hashlib.sha256(content.encode()).hexdigest()]
        edit_manifest(copy, lambda found: found["files"].update({"images.zarr/zarr.json": entry}))
    with pytest.raises(StoreError, match=rf"{copy}/images\.zarr/zarr\.json: "):
        read_attributes(copy)


SHA256, HASH = "0" * 64, "0" * 16


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["files"].update({"../secrets": [1, SHA256]}),
        lambda content: content["files"].update({"images.zarr/../../secrets": [1, SHA256]}),
        lambda content: content["files"].update({"/etc/passwd": [1, SHA256]}),
        lambda content: content["files"].update({"": [1, SHA256]}),
        lambda content: content["files"].update({"images.zarr//zarr.json": [1, SHA256]}),
        lambda content: content["files"].update({"images.zarr/": [1, SHA256]}),
        lambda content: content["files"].update({".progress/lock": [1, SHA256]}),
        lambda content: content["files"].update({"..\\secrets": [1, SHA256]}),
        lambda content: content["files"].update({"C:secrets": [1, SHA256]}),
        lambda content: content["files"].update({"patches\n": [1, SHA256]}),
        lambda content: content["files"].update({"croissant.json": [-1, SHA256]}),
        lambda content: content["files"].update({"croissant.json": [1.0, SHA256]}),
        lambda content: content["files"].update({"croissant.json": [True, SHA256]}),
        lambda content: content["files"].update({"croissant.json": ["1", SHA256]}),
        lambda content: content["files"].update({"croissant.json": [1, "0" * 63]}),
        lambda content: content["files"].update({"croissant.json": [1, "A" * 64]}),
        lambda content: content["files"].update({"croissant.json": [1, 0]}),
        lambda content: content["files"].update({"croissant.json": [1]}),
        lambda content: content["files"].update({"croissant.json": None}),
        lambda content: content["shards"].update({"../c/0": [1, HASH]}),
        lambda content: content["shards"].update({"images.zarr/s2_10m/c/0": [1, SHA256]}),
        lambda content: content["counts"].update(found=-1),
        lambda content: content["counts"].update(found="22"),
        lambda content: content.update(counts=[]),
        lambda content: content.update(files=[]),
        lambda content: content.update(shards="x"),
        lambda content: content.update(fingerprint="../" * 10 + "aa"),
        lambda content: content.update(fingerprint="0" * 31),
        lambda content: content.update(fingerprint=None),
        lambda content: content["files"].pop("patches.parquet"),
        lambda content: content["files"].pop("images.zarr/zarr.json"),
        *(lambda content, key=key: content.pop(key) for key in ("fingerprint", "counts", "files", "shards")),
    ],
)
def test_a_manifest_that_no_store_can_have_is_refused(edit: Edit, copy: Path) -> None:
    edit_manifest(copy, edit)
    with pytest.raises(StoreError, match=rf"{copy}/manifest\.json: does not describe a store"):
        read_manifest(LocalObjects(copy))
