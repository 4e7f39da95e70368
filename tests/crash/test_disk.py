"""The model of a disk finds the mistakes that it is there for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bigearthnet.files import flush, make_folder, replace_file
from tests.crash.disk import SECTOR, Tree, tear_content
from tests.crash.recorder import KilledError, record

OLD, NEW = b"old" * SECTOR, b"new" * SECTOR


def list_left(folder: Path, work: Callable[[Path], None]) -> list[Tree]:
    """List what a power cut may leave just after some work on a folder that holds a file `old`."""
    (folder / "old").write_bytes(OLD)
    with record(folder) as recorder:
        work(folder)
    *_, disk = recorder.finish().replay()
    trees = list(disk.list_survivors(10_000, random.Random(0)))
    whole = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    assert trees[0] == {name: path.read_bytes() if path.is_file() else None for name, path in whole.items()}
    return trees


def write_beside(folder: Path) -> None:
    (folder / "new").write_bytes(NEW)


def rename_over(folder: Path) -> None:
    write_beside(folder)
    os.replace(folder / "new", folder / "old")


def flush_and_rename_over(folder: Path) -> None:
    write_beside(folder)
    flush(folder / "new")
    os.replace(folder / "new", folder / "old")


def test_a_file_that_is_not_flushed_may_be_there_in_part_or_not_at_all(tmp_path: Path) -> None:
    left = [tree.get("new") for tree in list_left(tmp_path, write_beside)]
    assert None in left
    assert {NEW, b"", bytes(len(NEW)), NEW[:SECTOR], NEW[:SECTOR] + bytes(2 * SECTOR)} <= set(left)
    assert all(len(content) % SECTOR == 0 for content in left if content)


def test_renaming_a_file_that_is_not_flushed_may_lose_both(tmp_path: Path) -> None:
    left = [tree["old"] for tree in list_left(tmp_path, rename_over)]
    assert {OLD, NEW, b"", bytes(len(NEW))} <= set(left)


def test_renaming_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    left = list_left(tmp_path, flush_and_rename_over)
    assert {"old": OLD} in left  # not even the first name of the new one came to the disk
    assert {"old": OLD, "new": NEW} in left
    assert {"old": NEW} in left
    assert len(left) == 3


def test_the_order_of_names_in_one_folder_is_not_kept_without_a_flush(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "first").mkdir()
        (folder / "second").mkdir()

    assert {"old": OLD, "second": None} in list_left(tmp_path, work)


def test_flushing_what_is_in_a_folder_does_not_flush_its_own_name(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "new").write_bytes(NEW)
        flush(folder / "inner" / "new")
        flush(folder / "inner")

    assert list_left(tmp_path, work) == [{"old": OLD, "inner": None, "inner/new": NEW}, {"old": OLD}]


def test_what_replaces_a_file_as_it_should_leaves_nothing_to_chance(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        with replace_file(folder / "inner" / "old", temporary_in=folder) as temporary:
            temporary.write_bytes(NEW)

    assert list_left(tmp_path, work) == [{"old": OLD, "inner": None, "inner/old": NEW}]


def test_the_name_of_a_folder_is_flushed_even_if_it_is_there(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "inner").mkdir()
        make_folder(folder / "inner")

    assert list_left(tmp_path, work) == [{"old": OLD, "inner": None}]


def test_a_killed_process_leaves_what_it_had_done(tmp_path: Path) -> None:
    with record(tmp_path) as recorder:
        recorder.kill_at = 2
        (tmp_path / "first").mkdir()
        with pytest.raises(KilledError):
            (tmp_path / "second").mkdir()
        with pytest.raises(KilledError):
            (tmp_path / "first").rmdir()
    assert os.listdir(tmp_path) == ["first"]


def test_a_file_written_over_may_be_old_and_new() -> None:
    torn = tear_content(OLD, NEW)
    assert torn[:2] == [NEW, OLD]
    assert NEW[:SECTOR] + OLD[SECTOR:] in torn
