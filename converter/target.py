"""The folder a conversion writes to: refuse it, replace it or go on with it, and let one process at a time do so."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bigearthnet.errors import OutputError, StoreError
from bigearthnet.files import flush, replace_file, write_durably
from bigearthnet.lock import LEASE, LOCK, Lock, hold_lock
from bigearthnet.quantity import format_bytes
from bigearthnet.store.layout import (
    CROISSANT,
    FORMAT_NAME,
    FORMAT_VERSION,
    IMAGES,
    INGESTED,
    MANIFEST,
    PROGRESS,
    RECEIPTS,
    REJECTS,
    SPILL,
    TABLE,
    is_litter,
)
from converter.events import OnEvent

_OWN: Final = frozenset({PROGRESS, IMAGES, TABLE, REJECTS, CROISSANT, MANIFEST})
"""Everything that a conversion may put into the store's folder, and so may delete."""

_PLAN: Final = "plan.json"
_KEPT: Final = frozenset({LOCK, _PLAN, RECEIPTS, INGESTED, SPILL})
"""What the folder of progress holds."""
_TEMPORARY: Final = re.compile(rf"\.\w+\.[0-9a-f]{{8}}\.\w+|{LEASE.pattern}")
"""What a killed process may have left in the folder of progress beside these; see `replace_file`."""


def check_apart(store: Path, roots: Iterable[Path]) -> None:
    """Refuse a store in the folder of an archive, to which nothing is ever written.

    Raises:
        OutputError: It lies in one of them, or is one.
    """
    for root in roots:
        if store.resolve().is_relative_to(root.resolve()):
            raise OutputError(
                f"{store}: expected a folder outside of the archive {root}, found one in it; the archive is left as "
                "it is, give the store a folder of its own"
            )


def check_target(store: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a conversion must not write to, before any work is done.

    Raises:
        OutputError: It is a finished store and may not be overwritten, or holds anything but a store of this format.
    """
    try:
        if store.is_symlink() and not store.exists():
            raise OutputError(
                f"{store}: expected a folder, or nothing, to write the store to; found a link to "
                f"{os.readlink(store)}, which is not there; make that folder, or give another"
            )
        if store.exists() and not store.is_dir():
            raise OutputError(f"{store}: expected a folder, or nothing, to write the store to; found a file")
        names = _list_names(store)
        stranger = _find_stranger(store, names)
    except OSError as error:
        raise OutputError(f"{store}: cannot be listed: {error.strerror}") from error
    if stranger:
        raise OutputError(
            f"{store}: expected an empty folder or a store, found {stranger}; give a folder of its own, nothing in "
            "this one will be touched"
        )
    if names & {TABLE, MANIFEST} and PROGRESS not in names and not overwrite:
        raise _refuse_finished(store)


def _list_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir() if not is_litter(entry.name)}


def _find_stranger(store: Path, names: set[str]) -> str | None:
    """Say what in a folder no conversion has put there, so that it might be somebody else's; None if nothing is.

    A store may be reached through a link, but holds none: what a link leads to is never written or removed.
    """
    begun = names & {PROGRESS, TABLE, MANIFEST}
    if others := sorted(names - _OWN if begun else names):
        return ", ".join(others[:3]) + (" and more" if len(others) > 3 else "")
    inner = _list_names(store / PROGRESS)
    if others := sorted(name for name in inner - _KEPT if not _TEMPORARY.fullmatch(name)):
        return f"{PROGRESS}/{others[0]}"
    has_receipts = bool(_list_names(store / PROGRESS / RECEIPTS))
    kept = sorted((names - {PROGRESS}) | (inner & {_PLAN, *([RECEIPTS] if has_receipts else ())}))
    if kept and not _names_format(store):
        return f"{kept[0]}, which no conversion has written: neither plan, manifest nor images name {FORMAT_NAME}"
    if link := next((path for path in store.rglob("*") if path.is_symlink()), None):
        return f"the link {link.relative_to(store)}"
    return None


def _names_format(store: Path) -> bool:
    """Tell whether some file says that this is a store, even if others are damaged."""
    paths = (store / PROGRESS / _PLAN, store / MANIFEST, store / IMAGES / "zarr.json")
    return any(FORMAT_NAME.encode() in path.read_bytes() for path in paths if path.is_file())


def _refuse_finished(store: Path) -> OutputError:
    if (store / MANIFEST).exists():
        there = "a finished store is already there; use it,"
    else:
        there = f"a store without {MANIFEST}, of an earlier format or damaged, is already there;"
    return OutputError(f"{store}: {there} give another folder, or replace it with the option overwrite")


@contextmanager
def claim_target(
    store: Path, plan: dict[str, Any], on_event: OnEvent, *, overwrite: bool, projected_bytes: int
) -> Iterator[Lock]:
    """Own a store's folder: make or clear it, keep others out, and record the plan that its shards belong to.

    Args:
        store: A folder that `check_target` accepts.
        plan: What decides the store's bytes, as JSON values; an unfinished store must have the very same.
        on_event: Called when it must be seen whether another process lives that holds it.
        overwrite: Begin anew if a finished store or one of another plan is there. One of the same plan is continued
            all the same: the result would be no other.
        projected_bytes: Room that the store is expected to need.

    Yields:
        The lock, to be asked before anything is written that counts.

    Raises:
        OutputError: The folder cannot be written or is in use, or the disk is too small.
        StoreError: It belongs to another plan.
    """
    try:
        with hold_lock(store / PROGRESS, store, on_event) as lock:
            _prepare(store, plan, projected_bytes, overwrite=overwrite)
            yield lock
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):  # not about a file
            raise
        raise OutputError(
            f"{store}: cannot be written: {error.strerror} ({error.filename or 'no file named'}). What is finished is "
            "kept: make room or mend the permissions, then run the same command again"
        ) from error


def _prepare(store: Path, plan: dict[str, Any], projected_bytes: int, *, overwrite: bool) -> None:
    """Refuse or clear what is there and cannot be continued, and record the plan; nothing is lost if room is short."""
    check_target(store, overwrite=overwrite)
    finished = (store / MANIFEST).exists()
    if finished and not overwrite:  # by another process, meanwhile; or one that died just before it had tidied up
        release_target(store)
        raise _refuse_finished(store)
    plan = _name_plan(plan)
    path = store / PROGRESS / _PLAN
    differences = _find_differences(path, plan)
    if differences and not overwrite:
        raise _refuse_other(store, differences)
    if differences or finished or not path.exists():  # what has begun goes on: it needs less than all
        _check_space(store, projected_bytes)
        if overwrite:
            _clear(store)
        (store / PROGRESS / RECEIPTS).mkdir(exist_ok=True)
        write_durably(str(path), [json.dumps(plan, indent=1).encode()])
        if overwrite and (store / IMAGES).exists():  # not before the plan: they may be all that names the format
            shutil.rmtree(store / IMAGES)
    else:  # a killed process may have made folders that are not on disk yet, and nobody makes them again
        for folder, _, _ in os.walk(store / IMAGES):
            flush(folder)


def release_target(store: Path) -> None:
    """Remove what only an unfinished store needs, once its manifest is on disk; who holds the lock removes that.

    If another process wrote the manifest, it is: the name was flushed when the store was claimed.
    """
    for path in (store / PROGRESS).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not (path.name == LOCK or LEASE.fullmatch(path.name)):
            path.unlink()


def place_file(store: Path, name: str, content: bytes, *, flushed: bool = False) -> None:
    """Put a file into the folder of an unfinished store whole; if it is not flushed, `flush_files` is to do so."""
    with replace_file(store / name, temporary_in=store / PROGRESS, flushed=flushed) as temporary:
        temporary.write_bytes(content)


def flush_files(store: Path, names: Iterable[str]) -> None:
    """Flush files of a store to disk, and the folders that they are in.

    Without it, a power cut could leave a store whose manifest is there and whose metadata is empty.
    """
    folders: set[Path] = set()
    for name in names:
        flush(store / name)
        folders.update(parent for parent in (store / name).parents if parent.is_relative_to(store))
    for folder in sorted(folders, reverse=True):  # what is in a folder before the folder
        flush(folder)


def _clear(store: Path) -> None:
    """Remove a store but for its images, its manifest first, so that a part of it is never taken for finished."""
    (store / MANIFEST).unlink(missing_ok=True)
    flush(store)
    for name in (TABLE, REJECTS, CROISSANT, f"{PROGRESS}/{INGESTED}"):
        (store / name).unlink(missing_ok=True)
    for name in (RECEIPTS, SPILL):
        if (folder := store / PROGRESS / name).exists():
            shutil.rmtree(folder)
            flush(store / PROGRESS)  # nothing in it may meet the next plan


def _name_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """Add what tells the plan of a store from any other file of that name."""
    return {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, **plan}


def extend_plan(store: Path, plan: dict[str, Any], *, overwrite: bool) -> None:
    """Record the whole plan of a claimed store, of which more is known after its archives have been read.

    Raises:
        StoreError: What is there belongs to another plan.
    """
    path = store / PROGRESS / _PLAN
    plan = _name_plan(plan)
    before = json.loads(path.read_bytes())
    differences = _list_differences(before, {key: value for key, value in plan.items() if key in before})
    if differences and not overwrite:
        raise _refuse_other(store, differences)
    write_durably(str(path), [json.dumps(plan, indent=1).encode()])


def _find_differences(path: Path, plan: dict[str, Any]) -> list[str]:
    """Say how the plan of an unfinished store differs from this one; it may be continued if it does not."""
    try:
        before = json.loads(path.read_bytes())
        return _list_differences(before, plan)
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError):
        return [f"{path.name} cannot be read"]


def _list_differences(before: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    return [f"{key} was {before.get(key)}, is {value}" for key, value in plan.items() if before.get(key) != value]


def _refuse_other(store: Path, differences: list[str]) -> StoreError:
    return StoreError(
        f"{store}: an unfinished store of another plan is there ({'; '.join(differences)}); "
        "finish it as it was begun, begin anew with the option overwrite, or give another folder"
    )


def _check_space(store: Path, projected_bytes: int) -> None:
    already = sum(path.stat().st_size for path in (store / IMAGES).rglob("*") if path.is_file())
    free = shutil.disk_usage(store).free
    if free + already < projected_bytes:
        raise OutputError(
            f"{store}: the store is expected to take {format_bytes(projected_bytes)}, the disk has "
            f"{format_bytes(free)} free; make room, or try the codec zstd"
        )
