"""Write a file or folder: whole or not at all, and over what is there only if that is asked for."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bigearthnet.errors import OutputError


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
    """Give a name beside `path` to write to; what stands there at the end becomes `path`, and nothing if that failed.

    Raises:
        OutputError: `path` is already there and `overwrite` is not set, or it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # writers go by the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if not overwrite:
                check_new([path])
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error


def write_durably(path: str, parts: list[bytes], *, temporary_in: str | os.PathLike[str] | None = None) -> int:
    """Write a file under a temporary name, flush it to disk and rename it into place.

    Args:
        path: Where the file goes; its folder is made if needed.
        parts: Its content.
        temporary_in: Folder on the same file system for the temporary name, where what a killed process leaves does
            no harm; that of the file if None.

    Returns:
        Bytes written.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # Not the process id: two hosts may share a folder and a number.
    temporary = f"{os.path.join(temporary_in or folder, os.path.basename(path))}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "wb", buffering=0) as file:
            n_bytes = _write_all(file.fileno(), parts)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    flush_folder(folder)
    return n_bytes


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Flush the names in a folder to disk: only then does a renamed file survive a power cut under its new name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, parts: list[bytes]) -> int:
    """Gather-write without joining: a shard of 28 MB need not be copied to be written."""
    total = 0
    for first in range(0, len(parts), os.sysconf("SC_IOV_MAX")):
        batch = parts[first : first + os.sysconf("SC_IOV_MAX")]
        size = sum(map(len, batch))
        written = os.writev(descriptor, batch)
        if written < size:  # a full disk or a signal: the plain call goes on, or names the fault
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        total += size
    return total
