"""The folder a conversion writes to: refuse it, replace it or go on with it, and let one process at a time do so."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from converter.errors import PlanError, StoreError
from converter.model import IMAGES, PROGRESS, REJECTS, TABLE
from converter.shard import write_durably
from converter.store import is_finished

_OWN: Final = frozenset({PROGRESS, IMAGES, TABLE, REJECTS})
"""Everything that a conversion may put into the store's folder, and so may delete."""


def check_target(store: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a conversion must not write to, before any work is done.

    Raises:
        StoreError: It is a finished store and may not be overwritten, or holds anything but a store.
    """
    if store.exists() and not store.is_dir():
        raise StoreError(f"{store}: expected a folder, or nothing, to write the store to; found a file")
    try:
        others = sorted({entry.name for entry in store.iterdir()} - _OWN) if store.exists() else []
    except OSError as error:
        raise StoreError(f"{store}: cannot be listed: {error.strerror}") from error
    if others:
        raise StoreError(
            f"{store}: expected an empty folder or a store, found {', '.join(others[:3])}"
            f"{' and more' if len(others) > 3 else ''}; give a folder of its own, nothing in this one will be touched"
        )
    if is_finished(store) and not overwrite:
        raise StoreError(
            f"{store}: a finished store is already there; use it, give another folder, or replace it with --overwrite"
        )


@contextmanager
def claim_target(store: Path, plan: dict[str, Any], *, overwrite: bool, projected_bytes: int) -> Iterator[Path]:
    """Own a store's folder: make or clear it, keep others out, and record the plan that its shards belong to.

    Args:
        store: A folder that `check_target` accepts.
        plan: What decides the store's bytes, as JSON values; an unfinished store must have the very same.
        overwrite: Begin anew if a finished store or one of another plan is there. One of the same plan is continued
            all the same: the result would be no other.
        projected_bytes: Room that the store is expected to need.

    Yields:
        The folder of receipts.

    Raises:
        StoreError: The folder cannot be written, is in use, or belongs to another plan.
        PlanError: The disk is too small.
    """
    progress = store / PROGRESS
    try:
        progress.mkdir(parents=True, exist_ok=True)
        lock = os.open(progress / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"{store}: cannot be written: {error.strerror} ({error.filename})") from error
    try:
        _lock(lock, store)
        check_target(store, overwrite=overwrite)  # again: another process may have finished the store meanwhile
        differences = _find_differences(progress / "plan.json", plan)
        if differences and not overwrite:
            raise StoreError(
                f"{store}: an unfinished store of another plan is there ({'; '.join(differences)}); "
                "finish it as it was begun, begin anew with --overwrite, or give another folder"
            )
        if differences or is_finished(store):
            _clear(store)
        _record_plan(progress / "plan.json", plan)
        _check_space(store, projected_bytes)
        yield progress / "receipts"
    finally:
        os.close(lock)


def release_target(store: Path) -> None:
    """Remove what only an unfinished store needs."""
    shutil.rmtree(store / PROGRESS)


def _lock(descriptor: int, store: Path) -> None:
    """Take the lock, which the system releases when its holder dies; NFS passes it on to the server."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise StoreError(
            f"{store}: {holder} is writing this store; wait for it to end, or give another folder"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _clear(store: Path) -> None:
    """Remove a store, its table first, so that a half-removed one is never taken for finished."""
    for path in (store / TABLE, store / REJECTS, store / PROGRESS / "plan.json"):
        path.unlink(missing_ok=True)
    for path in (store / IMAGES, store / PROGRESS / "receipts"):
        if path.exists():
            shutil.rmtree(path)


def _record_plan(path: Path, plan: dict[str, Any]) -> None:
    if not path.exists():
        write_durably(str(path), [json.dumps(plan, indent=1).encode()])


def _find_differences(path: Path, plan: dict[str, Any]) -> list[str]:
    """Say how the plan of an unfinished store differs from this one; it may be continued if it does not."""
    try:
        before = json.loads(path.read_bytes())
        return [f"{key} was {before.get(key)}, is {value}" for key, value in plan.items() if before.get(key) != value]
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError):
        return [f"{path.name} cannot be read"]


def _check_space(store: Path, projected_bytes: int) -> None:
    already = sum(path.stat().st_size for path in (store / IMAGES).rglob("*") if path.is_file())
    free = shutil.disk_usage(store).free
    if free + already < projected_bytes:
        raise PlanError(
            f"{store}: the store is expected to take {projected_bytes / 1e9:,.1f} GB, the disk has {free / 1e9:,.1f} "
            "GB free; make room, or try --codec zstd"
        )
