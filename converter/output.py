"""Write a file or folder: whole or not at all, and over what is there only if that is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.errors import PlanError


def check_new(paths: Iterable[Path]) -> None:
    """Make sure that none of some paths is there yet.

    Raises:
        PlanError: One is.
    """
    if there := [path for path in paths if os.path.lexists(path)]:
        others = f", nor {len(there) - 1:,} others like it" if len(there) > 1 else ""
        raise PlanError(f"{there[0]}: it is already there, and is not overwritten{others}; remove it or name another")


@contextmanager
def write_new(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a name beside `path` to write to; what stands there at the end becomes `path`, and nothing if that failed.

    Raises:
        PlanError: `path` is already there and `overwrite` is not set, or it cannot be written.
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
        raise PlanError(f"{path}: cannot be written ({error})") from error
