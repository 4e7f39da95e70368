"""Fixtures that several test modules share: tiny true archives, one dask cluster, finished stores."""

from __future__ import annotations

import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from hypothesis import HealthCheck, settings

from bigearthnet.archive import catalogue
from bigearthnet.archive.lists import OfficialLists, packaged_example, read_lists
from converter.__main__ import main
from converter.conversion import ConvertOptions, convert
from converter.sample import write
from tests.archives import Archive, write_lists
from tests.samples import Samples, make_samples

pytest_plugins = ["tests.browser"]

settings.register_profile(
    "suite",
    deadline=None,  # two cores are shared with dask workers
    derandomize=True,  # CI must not fail by chance
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

# What a shell runs in the background ignores Ctrl-C, and so does whatever that starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARD_SIZE = 4
"""Small enough for the small archive to have full shards and a partial last one."""

BASES = ("S2A_MSIL2A_20170617T113321", "S2B_MSIL2A_20180204T94161", "S2A_MSIL2A_20171221T112501")
"""Starts of real names, one with a one-digit hour and 61 seconds."""


@dataclass(frozen=True)
class SmallArchive:
    """22 varied patches, and lists that put them into every part of a store."""

    archive: Archive
    lists: Path
    train: list[str]
    validation: list[str]
    test: list[str]
    snow: str
    """In no split."""
    cloud: str
    """In the validation split, but not recommended."""
    no_19: str
    unlisted: str
    """In no list at all."""

    @property
    def names(self) -> list[str]:
        return [*self.train, *self.validation, *self.test, self.snow, self.cloud, self.no_19, self.unlisted]

    @property
    def others(self) -> list[str]:
        return self.names[-4:]

    def options(self, **changes: Any) -> ConvertOptions:
        chosen: dict[str, Any] = {"lists": self.lists, "shard_size": SHARD_SIZE}
        return ConvertOptions(**(chosen | changes))


@pytest.fixture(scope="session", autouse=True)
def _official_lists_are_read_once() -> Iterator[None]:
    """Read the official lists, which takes seconds, once a process; those of a folder whenever they are asked for."""
    read_official = cache(read_lists)

    def read(directory: Path | None = None) -> OfficialLists:
        return read_official() if directory is None else read_lists(directory)

    with pytest.MonkeyPatch.context() as patch:
        for module in (catalogue, write):
            patch.setattr(module, "read_lists", read)
        yield


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The six real patches. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(packaged_example("S2")) as archive:
        archive.extractall(folder, filter="data")
    return Archive(folder / "BigEarthNet-S2-Example")


@pytest.fixture(scope="session")
def small(real: Archive, tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    """A small archive. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("small")
    archive = Archive(folder / "archive")
    names = [f"{BASES[i % 3]}_{i}_{90 - i}" for i in range(22)]
    for number, name in enumerate(names):
        archive.vary(name, real, real.names[number % 6], number)
    small = SmallArchive(archive, folder / "lists", names[:9], names[9:14], names[14:18], *names[18:])
    archive.edit_note(small.no_19, labels=["Airports", "Bare rock"])
    write_lists(
        small.lists,
        pairs=(
            (f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i}_{90 - i}", name, f"Country {i % 4}", f"Season {i % 3}")
            for i, name in enumerate(names[:-1])
        ),
        train=[*small.train, small.no_19, "S2A_MSIL2A_20170613T101031_0_45"],
        validation=[*small.validation, small.cloud],
        test=small.test,
        snow=[small.snow],
        cloud=[small.cloud],
        no_19=[small.no_19],
    )
    return small


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """Address of a running dask cluster of two worker processes, which saves each conversion the start of its own."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def store(small: SmallArchive, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished store of the small archive. Read only."""
    path = tmp_path_factory.mktemp("store") / "store"
    convert(small.archive.root, path, small.options(scheduler=scheduler))
    return path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error message, on one line; there must be one and no traceback."""
        assert self.code == 1, self
        assert self.out == ""
        assert "Traceback" not in self.err
        before, _, message = self.err.partition("Error: ")
        assert "Error" not in before
        assert message
        return " ".join(message.split())


RunCli = Callable[..., Ended]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunCli:
    """Run the command line in this process."""

    def run(*args: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ben-convert", *(str(argument) for argument in args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples' stores in a folder `data`, made once. Read only."""
    return make_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def in_samples(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where `data` is."""
    monkeypatch.chdir(samples.root)
    return samples.root
