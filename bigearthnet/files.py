"""Write a file or folder whole or not at all, and over what is there only if that is asked for."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bigearthnet.errors import OutputError


@contextmanager
def replace_file(path: Path, *, temporary_in: Path | None = None, flushed: bool = True) -> Iterator[Path]:
    """Give a name beside `path` to write to; what stands there at the end becomes `path`, and nothing if that failed.

    A file is on disk before it gets its name, so that not even a power cut leaves part of one. It may be a folder too,
    if there is none yet.

    Args:
        path: What to write; its folder is made if needed.
        temporary_in: Folder on the same file system for the temporary name, where what a killed process leaves does
            no harm; that of `path` if None.
        flushed: Whether it is on disk at the end. Without it, a power cut may leave part of it, until the caller has
            flushed the file and its folder.

    Raises:
        OSError: It cannot be written.
    """
    _make_missing(path.parent)
    # Hidden, with the suffix by which writers go; no process id, since two hosts may share a folder and a number.
    temporary = (temporary_in or path.parent) / f".{path.stem}.{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        if flushed:
            flush(temporary)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
    if flushed:
        flush(path.parent)


def find_leftovers(path: Path) -> list[Path]:
    """Find what killed processes that were writing a file have left beside it."""
    return list(path.parent.glob(f".{glob.escape(path.stem)}.{'[0-9a-f]' * 8}{glob.escape(path.suffix)}"))


def check_new(paths: Iterable[Path]) -> None:
    """Make sure that none of some paths is there yet.

    Raises:
        OutputError: One is.
    """
    if there := [path for path in paths if os.path.lexists(path)]:
        others = f", nor {len(there) - 1:,} others like it" if len(there) > 1 else ""
        raise OutputError(f"{there[0]}: it is already there, and is not overwritten{others}; remove it or name another")


@contextmanager
def write_new(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Do what `replace_file` does, with errors for people.

    Raises:
        OutputError: `path` is already there and `overwrite` is not set, or it cannot be written.
    """
    try:
        with replace_file(path) as temporary:
            yield temporary
            if not overwrite:
                check_new([path])
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error


def write_json(path: Path, values: Any) -> None:
    """Write JSON values for people to read, in place of what is there.

    Raises:
        OutputError: It cannot be written.
        ValueError: A number is infinite or not a number, which JSON does not have.
    """
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    with write_new(path, overwrite=True) as temporary:
        temporary.write_text(text, "utf-8")


def write_durably(path: str, parts: Sequence[bytes], *, temporary_in: Path | None = None) -> int:
    """Write the parts of a file one after another, in place of what is there.

    Args:
        path: Where the file goes; its folder is made if needed.
        parts: Its content.
        temporary_in: As in `replace_file`.

    Returns:
        Bytes written.

    Raises:
        OSError: It cannot be written.
    """
    with replace_file(Path(path), temporary_in=temporary_in) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)  # a shard of 28 MB need not be joined to be written
        return file.tell()


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are not there, so that they survive a power cut.

    If the folder is there, its name is flushed all the same: whoever made it may have been killed before that.

    Raises:
        OSError: It cannot be made.
    """
    if not path.exists():
        _make_missing(path)
    else:
        with suppress(PermissionError):  # where nothing may be listed, nothing was made
            flush(path.parent)


def _make_missing(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if missing:
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush(folder.parent)


def flush(path: str | os.PathLike[str]) -> None:
    """Flush a file, or the names in a folder: only then does a renamed file survive a power cut under its new name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
