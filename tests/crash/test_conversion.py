"""Whatever a power cut leaves of a conversion, the same command ends in the bytes of a run that nothing disturbed."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import zarr

from bigearthnet.errors import OutputError
from bigearthnet.store.images import read_coordinates
from converter.conversion import ConvertOptions, convert
from tests.archives import Archive, read_files, write_lists
from tests.crash.disk import Tree, write_tree
from tests.crash.recorder import KilledError, Recorder, record
from tests.crash.trial import Trial, list_differences

BANDS = {"B01": 20, "B05": 60}
"""One of each of two arrays, with their rows."""

FINISHED = "a finished store is already there"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Let zarr write one file after another, so that each record is the same."""
    zarr.core.sync.cleanup_resources()
    with zarr.config.set({"threading.max_workers": 1}):
        yield
    zarr.core.sync.cleanup_resources()


@dataclass(frozen=True)
class Scenario:
    """A conversion into a folder `store`, and what it must end in."""

    raw: Path
    options: ConvertOptions
    expected: dict[str, bytes]
    """Every file of the store."""
    old: dict[str, bytes] | None = None
    """The finished store that was there before, if there was one."""
    mended: Path | None = None
    """The archive from which it goes on, if somebody has mended that meanwhile."""
    mended_expected: dict[str, bytes] | None = None

    def run(self, folder: Path, raw: Path, promise: Callable[[str], None] = lambda _: None) -> set[str]:
        """Convert in this process; returns what was begun."""
        begun: set[str] = set()

        class Here:
            n_workers, dashboard = 1, ""

            def run(self, work: Callable[[Any], Any], tasks: Iterable[Any], on_outcome: Callable[[Any], None]) -> None:
                for task in tasks:
                    begun.add(f"shard {task.shard}")
                    on_outcome(work(task))
                    promise(f"shard {task.shard}")

        @contextmanager
        def open_here(*_: object) -> Iterator[Here]:
            yield Here()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("converter.conversion.open_cluster", open_here)
            try:
                convert(raw, folder / "store", self.options)
            except OutputError as error:
                if FINISHED not in str(error):
                    raise
        promise("store")
        return begun

    def record(self, folder: Path, kill_at: int | None = None) -> Recorder:
        """Record the conversion; killed at a step, it goes on."""
        folder.mkdir()
        write_tree(folder, {f"store/{name}": content for name, content in (self.old or {}).items()})
        with record(folder) as recorder:
            recorder.kill_at = kill_at
            with suppress(KilledError):
                self.run(folder, self.raw, recorder.promise)
            if kill_at is not None:
                recorder.kill_at = None
                self.run(folder, self.raw, recorder.promise)
        assert read_files(folder / "store") == self.expected
        return recorder


class ConversionTrial(Trial):
    """Tries what power cuts leave of a scenario."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        super().__init__(folder)
        self.scenario = scenario

    def examine(self, tree: Tree, promised: tuple[str, ...]) -> str | None:
        scenario = self.scenario
        finished = "store/manifest.json" in tree
        if finished:
            left = {
                name.removeprefix("store/"): content
                for name, content in tree.items()
                if content is not None and not name.startswith("store/.progress/")
            }
            if left not in (scenario.expected, scenario.old):
                return f"a finished store with other files: {list_differences(left, scenario.expected)}"
            above = {parent.as_posix() for name in tree for parent in PurePosixPath(name).parents}
            if empty := [name for name in tree if tree[name] is None and "images.zarr/" in name and name not in above]:
                return f"a finished store with the empty folders {empty}"
        elif "store" in promised:
            return "the finished store is not there any more"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write_tree(self.folder, tree)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)
            try:
                begun = scenario.run(self.folder, scenario.mended or scenario.raw)
            except Exception as error:  # noqa: BLE001 - any is a fault
                return f"{type(error).__name__}: {error}".replace(str(self.folder), "")
        mended = scenario.mended_expected if scenario.mended_expected and not finished else scenario.expected
        found = read_files(self.folder / "store")
        if found != mended:
            return f"it ends in other files: {list_differences(found, mended)}"
        if not finished and scenario.options.on_bad == "stop" and (again := begun.intersection(promised)):
            return f"what was done is done again: {sorted(again)}"
        return None


def vary(archive: Archive, folder: Path) -> Archive:
    """Copy an archive with other pixels under the same names."""
    copy = archive.copy(folder)
    for name in copy.names:
        for band, size in BANDS.items():
            content = copy.tif(name, band).read_bytes()
            pixels = np.frombuffer(content[-2 * size * size :], "<u2") + np.uint16(1)
            copy.tif(name, band).write_bytes(content[: -2 * size * size] + pixels.tobytes())
    return copy


@pytest.fixture(scope="module")
def scenarios(real: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    """Conversions of five patches into two arrays of three shards, uncompressed: each shard has the size of any other.

    `fresh` into a folder that is not there yet, `overwrite` over a finished store of other pixels, `skip` with a bad
    patch that is left out, which moves others to shards that were written before, and `mended` the same, but the patch
    is good again when the conversion goes on.
    """
    folder = tmp_path_factory.mktemp("crash")
    raw = real.copy(folder / "raw", real.names[:5])
    names = raw.names
    lists = write_lists(folder / "lists", train=names[:3], validation=names[3:4], test=names[4:])
    options = ConvertOptions(codec="none", shard_size=2, lists=lists, bands=tuple(BANDS), max_bad=1.0)

    def convert_whole(scenario: Scenario) -> Scenario:
        target = folder / f"whole-{len(list(folder.iterdir()))}"
        target.mkdir()
        scenario.run(target, scenario.raw)
        return replace(scenario, expected=read_files(target / "store"))

    fresh = convert_whole(Scenario(raw.root, options, {}))
    before = convert_whole(Scenario(vary(raw, folder / "other").root, options, {}))
    bad = raw.copy(folder / "bad")
    first = read_coordinates(next(folder.glob("whole-*")) / "store")["patch_id"][0]
    bad.tif(first, "B05").write_bytes(b"no TIFF")
    skip = convert_whole(Scenario(bad.root, replace(options, on_bad="skip"), {}))
    return {
        "fresh": fresh,
        "overwrite": replace(fresh, options=replace(options, overwrite=True), old=before.expected),
        "skip": skip,
        "mended": replace(skip, mended=raw.root, mended_expected=fresh.expected),
    }


@pytest.mark.parametrize(
    ("stride", "limit", "n_states", "name"),
    [
        (5, 1, 2, "fresh"),
        pytest.param(5, 1, 2, "mended", marks=pytest.mark.slow),
        *(
            pytest.param(1, 64, 3, name, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])
            for name in ("fresh", "overwrite", "skip", "mended")
        ),
    ],
)
def test_whatever_a_power_cut_leaves_it_ends_in_the_same_bytes(
    stride: int, limit: int, n_states: int, name: str, scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    record = scenarios[name].record(tmp_path / "recorded").finish()
    trial = ConversionTrial(scenarios[name], tmp_path / "left")
    faults = Counter(trial.find_fault(*state) for state in record.sample_states(stride, limit, n_states))
    print(f"{name}: {len(trial.known):,} states after any of {len(record.operations)} operations tried")
    assert set(faults) == {None}, faults


@pytest.mark.parametrize("name", ["fresh", pytest.param("overwrite", marks=pytest.mark.faults)])
@pytest.mark.timeout(900)
def test_every_flush_is_needed(name: str, scenarios: dict[str, Scenario], tmp_path: Path) -> None:
    """Without any one of them, there is a power cut that does harm."""
    trial = ConversionTrial(scenarios[name], tmp_path / "left")
    needless = trial.leave_out_flushes(trial.scenario.record(tmp_path / name).finish(), again=True, n_states=400)
    print(f"{name}: {trial.n_flushes} flushes left out, one at a time: {len(trial.known):,} states tried")
    # The second array flushes the folder of the arrays again; a store that is there already was flushed before.
    there = ["convert > claim_target > hold_lock > _take_flock > make_folder > flush"]
    there += ["claim_target > hold_lock > _take_flock > make_folder > _make_missing > flush"]
    arrays = "_commit > write_shard > write_durably > replace_file > _make_missing > flush"
    assert [re.sub(r"\w+\.(\w+):\d+", r"\1", caller) for caller in needless] == [
        *(there if name == "overwrite" else []),
        arrays,
    ]


def test_every_line_that_flushes_is_needed(scenarios: dict[str, Scenario], tmp_path: Path) -> None:
    """Without one flush of each line that flushes something, there is a power cut that does harm."""
    fresh = ConversionTrial(scenarios["fresh"], tmp_path / "left")
    recorder = fresh.scenario.record(tmp_path / "fresh")
    fresh.leave_out_flushes(recorder.finish(), again=False, n_states=100)
    # The store's folder, those of a shard and the manifest are there, not flushed.
    for step in (2, 24, recorder.n_steps - 8):
        record = fresh.scenario.record(tmp_path / f"killed {step}", kill_at=step).finish()
        fresh.leave_out_flushes(record, again=False, n_states=30)
    n_states, n_flushes, needed = len(fresh.known), fresh.n_flushes, fresh.needed
    for name in ("overwrite", "skip", "mended"):
        trial = ConversionTrial(scenarios[name], tmp_path / "left")
        trial.needed = needed
        trial.leave_out_flushes(scenarios[name].record(tmp_path / name).finish(), again=False, n_states=100)
        n_states, n_flushes = n_states + len(trial.known), n_flushes + trial.n_flushes
    print(f"{n_flushes} flushes of {len(needed)} callers left out, one at a time: {n_states:,} states tried")
    assert fresh.needless == []


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=[pytest.mark.faults, pytest.mark.timeout(1200)])])
def test_killed_and_gone_on_with_a_power_cut_at_the_end_leaves_the_whole_store(
    stride: int, scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    """What a killed process has not flushed, nobody will but the next one."""
    n_steps = scenarios["fresh"].record(tmp_path / "whole").n_steps
    trial = ConversionTrial(scenarios["fresh"], tmp_path / "left")
    faults = Counter[str]()
    for step in sorted({*range(1, n_steps + 1, stride), *range(22, 30)}):  # where the folders of shards are made
        record = scenarios["fresh"].record(tmp_path / "killed", kill_at=step).finish()
        *_, disk = record.replay()
        for tree in disk.list_survivors(0, random.Random(0)):
            if fault := trial.find_fault(tree, disk.promised):
                faults[f"killed at {step}: {fault}"] += 1
        shutil.rmtree(tmp_path / "killed")
    print(f"killed at every {stride}. of {n_steps} steps, {len(trial.known):,} states tried")
    assert faults == {}
