"""Open patches to look at, those of a store, of raw folders or of an archive file, and read some of their bands.

Raw patches are read by `bigearthnet.archive.folders`, as a conversion reads them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from bisect import insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.folders import RawPatch, draw_patches, read_raw
from bigearthnet.archive.metadata import find_metadata_above, find_rows
from bigearthnet.archive.records import is_archive_file
from bigearthnet.archive.scan import Scan, has_note, scan_folder
from bigearthnet.bands import PUBLISHED_BANDS, Sensor, choose_groups
from bigearthnet.errors import OptionError, SelectionError, SourceError
from bigearthnet.look.picture import name_planes
from bigearthnet.names import band_file, parse_patch_name
from bigearthnet.store.images import read_layout
from bigearthnet.store.layout import IMAGES, PROGRESS, TABLE
from bigearthnet.store.manifest import read_attributes
from bigearthnet.store.query import select_patches
from bigearthnet.store.shard import read_pixels


@dataclass(frozen=True)
class Choice:
    """Which patches to look at; all if nothing is said."""

    patch_ids: tuple[str, ...] = ()
    where: str | None = None
    """A condition in SQL over the table of a store."""
    n: int | None = None
    """So many of them at most, drawn at random."""
    seed: int = 0


@dataclass(frozen=True)
class View:
    """Some bands of a patch, and what is known of it."""

    name: str
    """Name of the patch, or of its folder."""
    planes: dict[str, NDArray[Any]]
    """Stored pixels by name of band, each of shape (row, col)."""
    labels: tuple[str, ...]
    """As the source gives them; empty where raw folders come without their metadata."""
    country: str | None
    split: str | None
    day_of: dict[Sensor, str]
    """When each sensor saw it, `YYYY-MM-DD`, as far as that is known."""


@dataclass(frozen=True)
class Album:
    """Chosen patches, in an order."""

    names: Sequence[str]
    """What the patches are called."""
    bands: tuple[str, ...]
    """Every band that they have."""
    is_synthetic: bool
    """`ben-convert sample` made them up."""
    read: Callable[[int, Collection[str]], View]
    """Reads bands of the patch at a position; BigEarthNetError if it cannot be read."""


def open_album(path: Path, choice: Choice) -> Album:
    """Open a finished store, an archive of one sensor or of reference maps, or a single patch folder.

    The archive may be a file, which is read from end to end; the chosen patches are kept in memory.

    Raises:
        StoreError: The store is not finished.
        SourceError: There is none of these.
        SelectionError: No patch is what the choice asks for.
        OptionError: The choice asks what only a store can tell.
    """
    if any((path / part).exists() for part in (IMAGES, TABLE, PROGRESS)):
        return _open_store(path, choice)
    if not path.is_dir() and not is_archive_file(path):
        raise SourceError(f"{path}: expected a store, an archive or a patch folder, found no such folder or file")
    if choice.where is not None:
        raise OptionError(
            f"{path}: a condition asks the table of a store, and these are raw patches; name the patches, or "
            "convert them first"
        )
    return _open_folders(path, choice) if path.is_dir() else _open_archive(path, choice)


def _open_store(store: Path, choice: Choice) -> Album:
    attributes = read_attributes(store)
    layout = read_layout(store, attributes)
    rows = select_patches(store, choice.patch_ids, where=choice.where, n=choice.n, seed=choice.seed)

    def read(position: int, bands: Collection[str]) -> View:
        row = rows[position]
        planes: dict[str, NDArray[Any]] = {}
        for group in layout.groups:
            if not set(bands).isdisjoint(group.bands):
                planes |= name_planes(group, read_pixels(store, layout, group, row["index"]))
        days = _find_days(row["s2_time"], row["s1_time"])
        return View(row["patch_id"], planes, tuple(row["labels"]), row["country"], row["split"], days)

    return Album([row["patch_id"] for row in rows], layout.bands, bool(attributes.get("synthetic")), read)


def _open_folders(root: Path, choice: Choice) -> Album:
    root = Path(os.path.abspath(root))  # not resolved: a link may have another name
    if parse_patch_name(root.name):
        scan = Scan(root.parent, {root.name: root.name}, 0, has_note(root.parent))
    else:
        scan = scan_folder(root)
    scan.dataset  # noqa: B018 - raises if the folder mixes kinds
    return _open_raw([RawPatch(scan.root / scan.folder_of[name]) for name in _choose(scan, choice)], scan)


def _open_archive(path: Path, choice: Choice) -> Album:
    """Take the chosen patches out of an archive file as they come by, the same that would be drawn from its folder."""
    drawn: list[tuple[str, str]] = []
    n = choice.n if choice.n is not None else len(choice.patch_ids) or sys.maxsize

    def choose(name: str) -> list[str]:
        if choice.patch_ids and name not in choice.patch_ids:
            return [name]
        insort(drawn, (_hash_name(name, choice), name))
        return [drawn.pop()[1]] if len(drawn) > n else []

    patches, scan = draw_patches(path, choose)
    names = _choose(scan, choice)
    return _open_raw([patches[name] for name in names], scan)


def _open_raw(patches: Sequence[RawPatch], scan: Scan) -> Album:
    first = patches[0]
    files = [(band, band_file(first.patch_id, band)) for band in PUBLISHED_BANDS]
    available = tuple(
        band for band, file in files if (first.locate(file).exists() if first.files is None else file in first.files)
    )
    names = [patch.patch_id for patch in patches]
    row_of = find_rows(find_metadata_above(scan.root), names)

    def read(position: int, bands: Collection[str]) -> View:
        groups = choose_groups(bands, PUBLISHED_BANDS)
        pixels: dict[str, NDArray[Any]] = {group.name: np.empty(group.patch_shape, group.dtype) for group in groups}
        facts = read_raw(patches[position], groups, pixels)
        row = row_of.get(names[position], {})
        planes = {band: plane for group in groups for band, plane in name_planes(group, pixels[group.name]).items()}
        labels = facts.labels or tuple(row.get("labels", ()))
        days = _find_days(facts.s2_time, facts.s1_time)
        return View(names[position], planes, labels, row.get("country"), row.get("split"), days)

    return Album(names, available, scan.is_synthetic, read)


def _choose(scan: Scan, choice: Choice) -> list[str]:
    """Choose patches of raw folders, by the same draw as from a store."""
    if unknown := [name for name in choice.patch_ids if name not in scan.folder_of]:
        raise SelectionError(f"{scan.root}: expected names of its patches, found {', '.join(unknown[:3])}")
    names = list(dict.fromkeys(choice.patch_ids)) or sorted(scan.folder_of)
    if choice.n is None or choice.n >= len(names):
        return names
    drawn = set(sorted(names, key=lambda name: _hash_name(name, choice))[: choice.n])
    return [name for name in names if name in drawn]


def _hash_name(name: str, choice: Choice) -> str:
    return hashlib.md5(f"{name}{choice.seed}".encode(), usedforsecurity=False).hexdigest()


def _find_days(s2_time: Any, s1_time: Any) -> dict[Sensor, str]:
    times: dict[Sensor, Any] = {"s2": s2_time, "s1": s1_time}
    return {sensor: str(time)[:10] for sensor, time in times.items() if time is not None}
