"""Find the patch folders of a raw archive, without opening or listing any of them: names determine the files."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from bigearthnet.bands import BAND_SETS
from bigearthnet.errors import SourceError
from bigearthnet.names import SYNTHETIC_FILE, Dataset, band_file, parse_patch_name

_MAX_DEPTH: Final = 2
"""Folders that may stand around a patch: one per scene (v2.0), and one that the archive was extracted into."""


@dataclass(frozen=True)
class Scan:
    """The patch folders below a folder, and what else lay between them."""

    root: Path
    folder_of: dict[str, str]
    """Folder of each patch, relative to the root, by patch name."""
    n_stray: int
    """Entries that are neither hidden, nor a patch folder, nor a folder that holds some, nor the note of a sample."""
    is_synthetic: bool
    """The note of a sample lies in the folder, beside it, or between the patch folders."""

    @cached_property
    def dataset(self) -> Dataset | None:
        """The version of BigEarthNet whose names these are; None for Sentinel-1, whose names are the same in both.

        Raises:
            SourceError: The folder mixes both versions, or both sensors.
        """
        kinds = Counter((name.sensor, name.dataset) for name in map(parse_patch_name, self.folder_of) if name)
        if len(kinds) > 1:
            mixture = " and ".join(
                f"{n:,} of {sensor.upper()} {version or ''}".strip()
                for sensor, version, n in sorted((sensor, version or "", n) for (sensor, version), n in kinds.items())
            )
            raise SourceError(
                f"{self.root}: expected patches of one kind, found {mixture}; give each a folder of its own"
            )
        return next(iter(kinds))[1]


def scan_folder(root: Path, progress: Callable[[int], None] = lambda _: None) -> Scan:
    """Find the patch folders in a folder, and up to two levels further down.

    Hidden entries are ignored, others that hold no patch are counted. A folder that is reached twice through links is
    taken once, so a loop of them is harmless.

    Args:
        root: An extracted archive, such as `BigEarthNet-v1.0` or `BigEarthNet-S2`, or the folder around it.
        progress: Called now and then with the number of patch folders found so far.

    Raises:
        SourceError: The folder cannot be read, holds no patches, or holds one twice.
    """
    folder_of: dict[str, str] = {}
    walk = _Walk(root, lambda name, _: parse_patch_name(name) is not None, _MAX_DEPTH)
    for patch_id, folder in walk.find_patches():
        if (other := folder_of.setdefault(patch_id, folder)) != folder:
            raise SourceError(f"{root}: the patch {patch_id} is there twice, as {other} and {folder}; remove one")
        if len(folder_of) % 10_000 == 0:
            progress(len(folder_of))
    if not folder_of:
        raise SourceError(
            f"{root}: expected patch folders such as S2A_MSIL2A_20170613T101031_87_48, here or up to two levels down; "
            f"found {walk.n_stray:,} other entries and no patch. Give the folder that BigEarthNet was extracted to"
        )
    progress(len(folder_of))
    return Scan(root, folder_of, walk.n_stray, walk.n_notes > 0 or has_note(root))


def has_note(root: Path) -> bool:
    """Tell whether a folder, or the one around it, says that `ben-convert sample` made it."""
    root = Path(os.path.abspath(root))  # not resolved: a link may lie elsewhere than what it points to
    return any((folder / SYNTHETIC_FILE).is_file() for folder in (root, root.parent))


def list_patch_folders(root: Path) -> Iterator[Path]:
    """Find the folders of patches of any name, at any depth; the root may be one itself.

    Raises:
        SourceError: A folder cannot be listed.
    """
    if _is_patch(root.name, str(root)):
        yield root
        return
    for _, folder in _Walk(root, _is_patch, sys.maxsize).find_patches():
        yield root / folder


def _is_patch(name: str, path: str) -> bool:
    """Tell a patch folder by its name or, if it has another one, by the files that bear it."""
    return bool(parse_patch_name(name)) or any(
        os.path.exists(f"{path}/{band_file(name, band)}") for band in BAND_SETS["all"]
    )


class _Walk:
    """One walk over a tree of folders, which counts what it passes by.

    Args:
        root: Where it begins.
        is_patch: Tells a patch folder by its name and path.
        max_depth: How many folders may stand around a patch.
    """

    def __init__(self, root: Path, is_patch: Callable[[str, str], bool], max_depth: int) -> None:
        self._root, self._is_patch, self._max_depth = root, is_patch, max_depth
        self._seen: set[tuple[int, int]] = set()
        self.n_stray = self.n_notes = 0

    def find_patches(self, below: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
        """Yield the name of each patch below a folder, and its folder relative to the root."""
        here = self._root / below
        with suppress(OSError):  # listing it tells what is wrong
            status = here.stat()
            if (status.st_dev, status.st_ino) in self._seen:
                return
            self._seen.add((status.st_dev, status.st_ino))
        for name, is_folder in _list_folder(here):
            path = f"{below}/{name}" if below else name
            if is_folder and self._is_patch(name, f"{here}/{name}"):
                yield name, path
            elif is_folder and depth < self._max_depth:
                n_found = 0
                for patch in self.find_patches(path, depth + 1):
                    n_found += 1
                    yield patch
                self.n_stray += depth == 0 and not n_found
            elif name == SYNTHETIC_FILE:
                self.n_notes += 1
            elif depth == 0:
                self.n_stray += 1


def _list_folder(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each visible entry, and whether it is a folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry.name, _is_folder(entry)
    except FileNotFoundError as error:
        raise SourceError(
            f"{folder}: expected the archive, extracted or as downloaded (.tar.zst, .tar.gz), found neither"
        ) from error
    except NotADirectoryError as error:
        raise SourceError(f"{folder}: expected a folder, found a file; extract the archive first") from error
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False
