"""The folder of a store: what is refused, what is kept, what is replaced, and that one process owns it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.errors import OutputError, StoreError
from converter.events import ignore
from converter.target import check_apart, check_target, claim_target, release_target
from tests.archives import read_files

PLAN = {"codec": "lz4", "shard size": 256, "arrays": ["s2_10m"]}


@contextmanager
def claim(store: Path, plan: dict[str, Any] = PLAN, *, overwrite: bool = False, n_bytes: int = 0) -> Iterator[Path]:
    with claim_target(store, plan, ignore, overwrite=overwrite, projected_bytes=n_bytes):
        yield store / ".progress" / "receipts"


def make_finished(store: Path) -> Path:
    (store / "images.zarr").mkdir(parents=True)
    (store / "images.zarr" / "zarr.json").write_text('{"attributes": {"format": "bigearthnet-store"}}')
    (store / "patches.parquet").write_text("table")
    (store / "manifest.json").write_text("{}")
    return store


@pytest.mark.parametrize("kind", ["nothing", "folder", "deep"])
def test_nothing_and_an_empty_folder_are_accepted(kind: str, tmp_path: Path) -> None:
    store = tmp_path / ("a/b/c" if kind == "deep" else "store")
    if kind == "folder":
        store.mkdir()
    check_target(store, overwrite=False)
    with claim(store):
        pass
    assert store.is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_anything_else_in_it_is_never_touched(overwrite: bool, tmp_path: Path) -> None:
    make_finished(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    before = read_files(tmp_path)
    with pytest.raises(
        OutputError, match=rf"{tmp_path}: expected an empty folder or a store, found thesis\.tex; .*touched"
    ):
        check_target(tmp_path, overwrite=overwrite)
    assert read_files(tmp_path) == before


def test_a_message_names_only_the_first_of_many_strangers(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(OutputError, match=r"found 0\.txt, 1\.txt, 2\.txt and more; give"):
        check_target(tmp_path, overwrite=True)


def test_images_that_no_conversion_left_there_are_not_touched(tmp_path: Path) -> None:
    """A Zarr group of somebody else may well have the name; it is no unfinished store without a record of progress."""
    (tmp_path / "images.zarr" / "mine").mkdir(parents=True)
    (tmp_path / "images.zarr" / "mine" / "zarr.json").write_text("{}")
    with pytest.raises(OutputError, match=r"images\.zarr"):
        check_target(tmp_path, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_not_a_store(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(OutputError, match=f"{tmp_path}/file: expected a folder, or nothing, .*; found a file"):
        check_target(tmp_path / "file", overwrite=overwrite)


def test_a_finished_store_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    make_finished(tmp_path)
    with pytest.raises(OutputError, match=r"a finished store is already there; .* with the option overwrite"):
        check_target(tmp_path, overwrite=False)
    check_target(tmp_path, overwrite=True)


def test_a_store_of_format_1_is_refused_and_replaced_whole_if_it_may_be(tmp_path: Path) -> None:
    """It has a table and no manifest; of its Zarr metadata nothing may be left in an unfinished store."""
    make_finished(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(
        OutputError, match=r"a store without manifest\.json, of an earlier format or damaged, is already"
    ):
        check_target(tmp_path, overwrite=False)
    check_target(tmp_path, overwrite=True)
    with claim(tmp_path, overwrite=True):
        assert [path.name for path in tmp_path.iterdir()] == [".progress"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = tmp_path / "file" / "store"
    with (
        pytest.raises(OutputError, match=f"{store}: cannot be written: Not a directory|expected a folder"),
        claim(store),
    ):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody can write to")
def test_a_file_system_that_cannot_be_written_is_refused() -> None:
    store = Path("/proc/store")
    with pytest.raises(OutputError, match=f"{store}: cannot be written"), claim(store):
        pass


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    store = tmp_path / ("x" * 300)
    with pytest.raises(OutputError, match="File name too long"):
        check_target(store, overwrite=False)


def test_what_was_begun_is_kept_if_the_plan_is_the_same(tmp_path: Path) -> None:
    with claim(tmp_path) as receipts:
        (receipts / "000000.json").write_text("{}")
        (tmp_path / "images.zarr").mkdir()
    with claim(tmp_path) as receipts:
        assert (receipts / "000000.json").read_text() == "{}"
    check_target(tmp_path, overwrite=False)


def test_what_was_begun_with_another_plan_is_refused_naming_the_difference(tmp_path: Path) -> None:
    with claim(tmp_path):
        pass
    with (
        pytest.raises(
            StoreError, match=r"unfinished store of another plan is there .*codec was lz4, is zstd.*option overwrite"
        ),
        claim(tmp_path, {**PLAN, "codec": "zstd"}),
    ):
        pass


@pytest.mark.parametrize("content", ['{"format": "bigearthnet-store"', '["bigearthnet-store"]', '"bigearthnet-store"'])
def test_a_damaged_record_of_the_plan_is_refused(content: str, tmp_path: Path) -> None:
    with claim(tmp_path):
        pass
    (tmp_path / ".progress" / "plan.json").write_text(content)
    with pytest.raises(StoreError, match="the option overwrite"), claim(tmp_path):
        pass
    with claim(tmp_path, overwrite=True):
        pass


def test_overwriting_removes_everything_of_a_store_the_manifest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(tmp_path) as receipts:
        (receipts / "000000.json").write_text("{}")
    make_finished(tmp_path)
    (tmp_path / "rejected.parquet").touch()
    real_rmtree = shutil.rmtree

    def rmtree(path: Any, *args: Any, **kwargs: Any) -> None:
        assert not (tmp_path / "manifest.json").exists()
        real_rmtree(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with claim(tmp_path, {**PLAN, "codec": "zstd"}, overwrite=True) as receipts:
        assert sorted(path.name for path in tmp_path.iterdir()) == [".progress"]
        assert list(receipts.iterdir()) == []
        plan = json.loads((tmp_path / ".progress" / "plan.json").read_bytes())
        assert plan == {"format": "bigearthnet-store", "format_version": 2, **PLAN, "codec": "zstd"}


def test_too_small_a_disk_is_refused_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=50 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with (
        pytest.raises(OutputError, match=r"expected to take 67\.5 GB, the disk has 50\.0 GB free; make room, or try"),
        claim(tmp_path, n_bytes=67_500_000_000),
    ):
        pass


def test_room_that_the_unfinished_store_already_takes_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with claim(tmp_path):
        (tmp_path / "images.zarr").mkdir()
        (tmp_path / "images.zarr" / "shard").write_bytes(b"x" * 1_000)
    free = shutil.disk_usage(tmp_path)._replace(free=500)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    other = {**PLAN, "codec": "zstd"}
    with (
        pytest.raises(OutputError, match="the store is expected to take"),
        claim(tmp_path, other, overwrite=True, n_bytes=1_501),
    ):
        pass
    with claim(tmp_path, n_bytes=9_999):  # what has begun goes on: how much it still needs is not known
        pass
    with claim(tmp_path, other, overwrite=True, n_bytes=1_500):
        pass


def test_a_store_that_another_process_is_writing_is_refused(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from pathlib import Path; from converter.target import claim_target\n"
            "with claim_target(Path(sys.argv[1]), {}, print, overwrite=False, projected_bytes=0):\n"
            "    print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for overwrite in (False, True):
            with (
                pytest.raises(OutputError, match=rf"{tmp_path}: process {holder.pid} on .* is writing there"),
                claim(tmp_path, {}, overwrite=overwrite),
            ):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with claim(tmp_path, {}):  # the lock died with its holder
        pass


def test_releasing_leaves_nothing_but_the_store(tmp_path: Path) -> None:
    with claim(tmp_path):
        make_finished(tmp_path)
        release_target(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*("images.zarr", "manifest.json", "patches.parquet")]


def test_what_a_desktop_leaves_is_passed_over(tmp_path: Path) -> None:
    for name in (".DS_Store", "._images.zarr", "Thumbs.db", "desktop.ini", ".nfs000000000123abcd00000001"):
        (tmp_path / name).touch()
    with claim(tmp_path):
        pass
    with claim(tmp_path, overwrite=True):
        pass
    (tmp_path / ".Trash").mkdir()
    with pytest.raises(OutputError, match=r"found \.Trash"):
        check_target(tmp_path, overwrite=True)


def plant_nothing_of_ours(store: Path) -> None:
    (store / ".progress").mkdir()
    (store / "images.zarr" / "theirs").mkdir(parents=True)
    (store / "images.zarr" / "theirs" / "zarr.json").write_text("{}")


def plant_a_plan_of_another(store: Path) -> None:
    plant_nothing_of_ours(store)
    (store / ".progress" / "plan.json").write_text('{"codec": "lz4"}')


def plant_names_of_a_finished_store(store: Path) -> None:
    plant_nothing_of_ours(store)
    (store / "manifest.json").write_text('{"name": "a web page"}')
    (store / "patches.parquet").write_text("patches for a garden")


def plant_a_table(store: Path) -> None:
    (store / "patches.parquet").write_text("patches for a garden")


def plant_a_foreign_progress(store: Path) -> None:
    make_finished(store)
    (store / ".progress").mkdir()
    (store / ".progress" / "chapter-1.done").touch()


def plant_receipts(store: Path) -> None:
    (store / ".progress" / "receipts").mkdir(parents=True)
    (store / ".progress" / "receipts" / "dentist.pdf").touch()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (plant_nothing_of_ours, r"images\.zarr, which no conversion has written"),
        (plant_a_plan_of_another, r"images\.zarr, which no conversion has written"),
        (plant_names_of_a_finished_store, r"images\.zarr, which no conversion has written"),
        (plant_a_table, r"patches\.parquet, which no conversion has written"),
        (plant_a_foreign_progress, r"\.progress/chapter-1\.done"),
        (plant_receipts, "receipts, which no conversion has written"),
    ],
)
def test_names_of_a_store_do_not_make_one(
    plant: Callable[[Path], None], named: str, overwrite: bool, tmp_path: Path
) -> None:
    plant(tmp_path)
    before = read_files(tmp_path)
    with pytest.raises(OutputError, match=rf"{tmp_path}: expected an empty folder or a store, found {named}"):
        check_target(tmp_path, overwrite=overwrite)
    with pytest.raises(OutputError), claim(tmp_path, overwrite=overwrite):
        pass
    assert read_files(tmp_path).items() >= before.items()


# -- Links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "name",
    ["images.zarr", "images.zarr/s2_10m", "patches.parquet", ".progress", ".progress/receipts", ".progress/lock"],
)
def test_links_in_a_store_are_refused_and_never_followed(
    name: str, finished: bool, overwrite: bool, tmp_path: Path
) -> None:
    store, theirs = tmp_path / "store", tmp_path / "theirs"
    with claim(store):
        pass
    if finished:
        make_finished(store)
    link = store / name
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        link.rename(theirs)
    else:
        theirs.mkdir()
        link.unlink(missing_ok=True)
    (theirs / "plan.json").write_text('"bigearthnet-store"')
    link.symlink_to(theirs)
    before = read_files(tmp_path)
    with pytest.raises(OutputError, match=rf"{store}: expected .*, found (the link {name}|\.progress/|images|plan)"):
        check_target(store, overwrite=overwrite)
    with pytest.raises(OutputError), claim(store, overwrite=overwrite):
        pass
    assert {name: text for name, text in read_files(tmp_path).items() if not name.endswith("lock")} == {
        name: text for name, text in before.items() if not name.endswith("lock")
    }
    assert link.is_symlink()


def test_a_store_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    for overwrite in (False, True):
        with claim(tmp_path / "store", overwrite=overwrite):
            pass
    make_finished(tmp_path / "disk")
    with claim(tmp_path / "store", overwrite=True):
        assert [path.name for path in (tmp_path / "disk").iterdir()] == [".progress"]
    assert (tmp_path / "store").is_symlink()


@pytest.mark.parametrize("target", ["nowhere", "store"])
def test_a_link_that_leads_nowhere_is_named(target: str, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(target)
    with pytest.raises(OutputError, match=f"found a link to {target}, which is not there; make that folder, or give"):
        check_target(tmp_path / "store", overwrite=True)
    assert not (tmp_path / "nowhere").exists()


# -- Killed while it clears ------------------------------------------------------------------------------------------

DIE = """
import os, signal, sys
from pathlib import Path
from converter.target import claim_target
n_steps, last = 0, int(sys.argv[2])
def count(event, args):
    global n_steps
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree") and sys.argv[1] in str(args[0]):
        n_steps += 1
        if n_steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
with claim_target(Path(sys.argv[1]), {"codec": "zstd"}, print, overwrite=True, projected_bytes=0):
    pass
print(n_steps)
"""


@pytest.mark.parametrize("finished", [False, True])
def test_killed_while_it_clears_a_store_it_goes_on_with_the_same_command(finished: bool, tmp_path: Path) -> None:
    def clear(step: int) -> tuple[Path, subprocess.CompletedProcess[str]]:
        store = tmp_path / str(step)
        with claim(store) as receipts:
            (receipts / "000000.json").write_text("{}")
            if finished:
                make_finished(store)
            (store / "images.zarr" / "s2_10m").mkdir(parents=True)
            (store / "images.zarr" / "s2_10m" / "shard").touch()
        ended = subprocess.run(
            [sys.executable, "-c", DIE, str(store), str(step)], capture_output=True, text=True, check=False
        )
        return store, ended

    n_steps = int(clear(0)[1].stdout)
    assert n_steps >= 5
    for step in range(1, n_steps + 1):
        store, ended = clear(step)
        assert ended.returncode == -signal.SIGKILL
        with claim(store, {"codec": "zstd"}, overwrite=True):
            plan = json.loads((store / ".progress" / "plan.json").read_bytes())
            assert plan["codec"] == "zstd"
            assert not (store / "manifest.json").exists()
            assert not any((store / ".progress" / "receipts").iterdir())


def test_a_store_in_an_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "patch").mkdir(parents=True)
    (tmp_path / "link").symlink_to(archive)
    for store in (archive, archive / "store", tmp_path / "link/new/store", archive / "patch/../store"):
        with pytest.raises(OutputError, match=f"outside of the archive {archive}"):
            check_apart(store, [tmp_path / "other", archive])
    check_apart(tmp_path / "archive-store", [archive])
    check_apart(tmp_path, [archive / "file.tar"])
