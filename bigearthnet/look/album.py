"""Open patches to look at, those of a store or of raw folders, and read some of their bands.

Raw patches are read by `bigearthnet.archive.folders`, as a conversion reads them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bigearthnet.archive.folders import RawPatch, read_raw
from bigearthnet.archive.metadata import find_metadata_above, find_rows
from bigearthnet.archive.scan import Scan, has_note, scan_folder
from bigearthnet.bands import PUBLISHED_BANDS, Sensor, choose_groups
from bigearthnet.errors import OptionError, SelectionError, SourceError
from bigearthnet.look.picture import name_planes
from bigearthnet.names import band_file, parse_patch_name
from bigearthnet.store.images import read_layout, read_pixels
from bigearthnet.store.layout import IMAGES, PROGRESS, TABLE
from bigearthnet.store.manifest import read_attributes
from bigearthnet.store.query import select_patches


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


class Album(Protocol):
    """Chosen patches, in an order."""

    bands: tuple[str, ...]
    """Every band that they have."""
    is_synthetic: bool
    """`ben-convert sample` made them up."""

    @property
    def names(self) -> Sequence[str]:
        """What the patches are called."""

    def read(self, position: int, bands: Collection[str]) -> View:
        """Read bands of one of the patches.

        Raises:
            BigEarthNetError: It cannot be read.
        """


def open_album(path: Path, choice: Choice) -> Album:
    """Open a finished store, an archive of one sensor or of reference maps, or a single patch folder.

    Raises:
        StoreError: The store is not finished.
        SourceError: There is none of these.
        SelectionError: No patch is what the choice asks for.
        OptionError: The choice asks what only a store can tell.
    """
    if any((path / part).exists() for part in (IMAGES, TABLE, PROGRESS)):
        return _StoreAlbum(path, choice)
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise SourceError(f"{path}: expected a store, an archive or a patch folder, found {found}")
    return _RawAlbum(path, choice)


class _StoreAlbum:
    def __init__(self, store: Path, choice: Choice) -> None:
        attributes = read_attributes(store)
        layout = read_layout(store, attributes)
        self.bands = layout.bands
        self.is_synthetic = bool(attributes.get("synthetic"))
        self._store, self._groups = store, layout.groups
        self._rows = select_patches(store, choice.patch_ids, where=choice.where, n=choice.n, seed=choice.seed)

    @property
    def names(self) -> Sequence[str]:
        return [row["patch_id"] for row in self._rows]

    def read(self, position: int, bands: Collection[str]) -> View:
        row = self._rows[position]
        planes: dict[str, NDArray[Any]] = {}
        for group in self._groups:
            if not set(bands).isdisjoint(group.bands):
                planes |= name_planes(group, read_pixels(self._store, group, row["index"]))
        return View(
            row["patch_id"],
            planes,
            tuple(row["labels"]),
            row["country"],
            row["split"],
            _find_days(row["s2_time"], row["s1_time"]),
        )


class _RawAlbum:
    def __init__(self, root: Path, choice: Choice) -> None:
        if choice.where is not None:
            raise OptionError(
                f"{root}: a condition asks the table of a store, and these are raw folders; name the patches, or "
                "convert them first"
            )
        root = Path(os.path.abspath(root))  # not resolved: a link may have another name
        if parse_patch_name(root.name):
            scan = Scan(root.parent, {root.name: root.name}, 0, has_note(root.parent))
        else:
            scan = scan_folder(root)
        scan.dataset  # noqa: B018 - raises if the folder mixes kinds
        self.is_synthetic = scan.is_synthetic
        self.names: Sequence[str] = _choose(scan, choice)
        self._patches = [RawPatch(scan.root / scan.folder_of[name]) for name in self.names]
        first = self._patches[0].path
        self.bands = tuple(band for band in PUBLISHED_BANDS if (first / band_file(first.name, band)).exists())
        self._row_of = find_rows(find_metadata_above(root), self.names)

    def read(self, position: int, bands: Collection[str]) -> View:
        groups = choose_groups(bands, PUBLISHED_BANDS)
        pixels: dict[str, NDArray[Any]] = {group.name: np.empty(group.patch_shape, group.dtype) for group in groups}
        facts = read_raw(self._patches[position], groups, pixels)
        name = self.names[position]
        row = self._row_of.get(name, {})
        planes = [name_planes(group, pixels[group.name]) for group in groups]
        return View(
            name,
            {band: plane for group in planes for band, plane in group.items()},
            facts.labels or tuple(row.get("labels", ())),
            row.get("country"),
            row.get("split"),
            _find_days(facts.s2_time, facts.s1_time),
        )


def _choose(scan: Scan, choice: Choice) -> list[str]:
    """Choose patches of raw folders, by the same draw as from a store."""
    if unknown := [name for name in choice.patch_ids if name not in scan.folder_of]:
        raise SelectionError(f"{scan.root}: expected names of its patches, found {', '.join(unknown[:3])}")
    names = list(dict.fromkeys(choice.patch_ids)) or sorted(scan.folder_of)
    if choice.n is None or choice.n >= len(names):
        return names
    drawn = set(sorted(names, key=lambda name: _hash(name, choice.seed))[: choice.n])
    return [name for name in names if name in drawn]


def _hash(name: str, seed: int) -> str:
    return hashlib.md5(f"{name}{seed}".encode(), usedforsecurity=False).hexdigest()


def _find_days(s2_time: Any, s1_time: Any) -> dict[Sensor, str]:
    times: dict[Sensor, Any] = {"s2": s2_time, "s1": s1_time}
    return {sensor: str(time)[:10] for sensor, time in times.items() if time is not None}
