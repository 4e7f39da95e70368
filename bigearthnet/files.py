"""Write a file or folder whole or not at all, and over what is there only if asked to; read what strangers wrote."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bigearthnet.errors import OutputError

T = TypeVar("T")

_MAX_JSON_BYTES: Final = 16 * 2**20
"""Of a file that describes a store, an array or a training: a hundred times what any of ours takes."""


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


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file for reading and return the descriptor: a pipe would keep a reader waiting for ever.

    Raises:
        OSError: It cannot be opened, or is another kind of file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def read_regular(path: str | os.PathLike[str], max_bytes: int | None = None) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: It cannot be read, is another kind of file, or is larger than `max_bytes`.
    """
    with open(open_regular(path), "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if max_bytes is not None and n_bytes > max_bytes:
            raise OSError(errno.EFBIG, f"it has {n_bytes:,} bytes, at most {max_bytes:,} are read", os.fspath(path))
        return file.read()


def hash_file(path: str | os.PathLike[str]) -> str:
    """Identify the content of a regular file of any size.

    Raises:
        OSError: It cannot be read, or is another kind of file.
    """
    with open(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_json(path: Path, kind: type[T]) -> T:
    """Read JSON values that must be of a kind; see `decode_json`.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its values are of another kind.
    """
    return decode_json(read_regular(path, _MAX_JSON_BYTES), kind)


def decode_json(content: bytes, kind: type[T]) -> T:
    """Decode JSON values that a stranger may have written; nothing of them is used before all are of the right kind.

    Args:
        content: The JSON.
        kind: A class with annotations; fields that it does not have are passed over.

    Raises:
        ValueError: It is no JSON, or of another kind; says where.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


def convert_values(values: Any, kind: type[T]) -> T:
    """Do what `decode_json` does with values that are decoded already.

    Raises:
        ValueError: They are of another kind; says where.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
