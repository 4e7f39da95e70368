"""Archives as they are downloaded, made with Python's own `tarfile`, which the code under test does not use."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import zstandard

COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".tar": bytes,
    ".tar.gz": lambda content: gzip.compress(content, 1, mtime=0),
    ".tar.bz2": lambda content: bz2.compress(content, 1),
    ".tar.zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}


def list_files(*folders: Path) -> list[tuple[str, bytes]]:
    """List the files of some folders as members of an archive, patch by patch."""
    return [
        (path.relative_to(folder.parent).as_posix(), path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def make_tar(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Make an archive of some files, and of members without content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def write_tarball(path: Path, members: Iterable[tuple[str, bytes] | tarfile.TarInfo], **options: int) -> Path:
    """Write an archive, compressed as its name says."""
    _, dot, suffix = path.name.partition(".")
    path.write_bytes(COMPRESSORS[dot + suffix](make_tar(members, **options)))
    return path
