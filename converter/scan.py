"""Find the patch folders of a raw archive, without opening or listing any of them: names determine the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converter.bigearthnet import S2_PATCH_V1
from converter.errors import SourceError

_PROGRESS_EVERY: Final = 10_000


@dataclass(frozen=True)
class Scan:
    """The patch folders of an archive, and what else lay between them."""

    root: Path
    folder_of: dict[str, str]
    """Folder of each patch, relative to the root, by patch name."""
    n_stray: int
    """Entries that are neither hidden, nor a patch folder, nor a folder that holds some."""


def scan_archive(root: Path, progress: Callable[[int], None] = lambda _: None) -> Scan:
    """Find the patch folders in a folder, and one level further down.

    Hidden entries are ignored, others that are no patch are counted. Links are followed, but never below the second
    level, so a loop of them is harmless.

    Args:
        root: The extracted archive, such as `BigEarthNet-v1.0`, or the folder around it.
        progress: Called now and then with the number of patch folders found so far.

    Raises:
        SourceError: The folder cannot be read, holds no patches, or holds one twice.
    """
    folder_of: dict[str, str] = {}
    n_stray = 0
    for name, is_folder in _list_folder(root):
        if is_folder and S2_PATCH_V1.fullmatch(name):
            found = {name: name}
        elif is_folder:
            inside = _list_folder(root / name)
            found = {
                child: f"{name}/{child}" for child, is_patch in inside if is_patch and S2_PATCH_V1.fullmatch(child)
            }
        else:
            found = {}
        n_stray += not found
        for patch_id, folder in found.items():
            if (other := folder_of.setdefault(patch_id, folder)) != folder:
                raise SourceError(f"{root}: the patch {patch_id} is there twice, as {other} and {folder}; remove one")
            if len(folder_of) % _PROGRESS_EVERY == 0:
                progress(len(folder_of))
    if not folder_of:
        raise SourceError(
            f"{root}: expected patch folders such as S2A_MSIL2A_20170613T101031_87_48, here or one level down; found "
            f"{n_stray:,} other entries and no patch. Give the folder that the BigEarthNet archive was extracted to"
        )
    progress(len(folder_of))
    return Scan(root, folder_of, n_stray)


def _list_folder(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each visible entry, and whether it is a folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry.name, _is_folder(entry)
    except FileNotFoundError as error:
        raise SourceError(f"{folder}: expected the extracted archive, found no such folder") from error
    except NotADirectoryError as error:
        raise SourceError(f"{folder}: expected a folder, found a file; extract the archive first") from error
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
