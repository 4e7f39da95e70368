"""An archive of all 590,326 patches of v1.0, or the first: official names with hard links to a real patch's files."""

from __future__ import annotations

import os
import shutil
import tarfile
from itertools import islice
from pathlib import Path
from typing import Final

from bigearthnet.archive.lists import packaged_example, read_lists

N_LINKS: Final = 60_000
"""To one file; ext4 allows 65,000."""
_OF_ARCHIVE: Final = (3_000_000_000, 600_000)
"""Bytes on the disk, and inodes: a folder a patch."""
_OF_WORK: Final = (3_000_000_000, 50_000)
"""The same of what the commands write."""


def find_shortage(folder: Path, *, is_built: bool) -> str | None:
    """Say what the disk of a folder has too little of for what is still to be written; None if there is room."""
    disk = os.statvfs(folder)
    n_bytes, n_inodes = _OF_WORK if is_built else map(sum, zip(_OF_WORK, _OF_ARCHIVE, strict=True))
    if (free := disk.f_bavail * disk.f_frsize) < n_bytes:
        return f"{folder}: {n_bytes / 1e9:.0f} GB are needed, {free / 1e9:.1f} GB are free"
    if disk.f_files and disk.f_favail < n_inodes:  # some file systems count none
        return f"{folder}: {n_inodes:,} inodes are needed, {disk.f_favail:,} are free"
    return None


def build_archive(root: Path, n_patches: int | None = None) -> None:
    """Build the archive in the new folder `root`, whole or not at all; all of its patches take minutes."""
    work = root.with_name(f"{root.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    sources = work / "sources"
    with tarfile.open(packaged_example("S2")) as archive:
        archive.extractall(sources, filter="data")
    patches = [path for path in sorted(sources.glob("*/*")) if path.is_dir()]
    n_linked = N_LINKS * len(patches)
    target = work / "patches"
    target.mkdir()
    for i, name in enumerate(islice(read_lists().pairing_of, n_patches)):
        if i % n_linked == 0:
            copies = [shutil.copytree(patch, sources / str(i) / patch.name) for patch in patches]
            files = [[(path, path.name.removeprefix(copy.name)) for path in copy.iterdir()] for copy in copies]
        folder = f"{target}/{name}"
        os.mkdir(folder)
        for path, end in files[i % len(files)]:
            os.link(path, f"{folder}/{name}{end}")
    shutil.rmtree(sources)
    target.rename(root)
    work.rmdir()
