"""Stores for the tests of the trainer: variations of the six real patches, converted once with each codec."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from bigearthnet.store.layout import CODECS
from converter.conversion import ConvertOptions, convert
from tests.archives import Archive, write_lists
from trainer import Selection, Store, open_store

N_PATCHES = 120
SHARD_SIZE = 16
NAME = "S2A_MSIL2A_20170613T101031"
COUNTRIES = ("Finland", "Austria", "Serbia")

Pixels = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="session")
def stores(real: Archive, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished store of the same patches for each codec. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    archive = Archive(folder / "raw")
    names = [f"{NAME}_{number % 90}_{number // 90}" for number in range(N_PATCHES)]
    for number, name in enumerate(names):
        archive.vary(name, real, real.names[number % 6], number)
    lists = write_lists(
        folder / "lists",
        pairs=(
            (f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_1", name, COUNTRIES[number % 3], "Summer")
            for number, name in enumerate(names)
        ),
        train=names[:60],
        validation=names[60:85],
        test=names[85:105],
        snow=names[105:],
    )
    for codec in CODECS:
        options = ConvertOptions(codec=codec, shard_size=SHARD_SIZE, scheduler=scheduler, lists=lists)
        convert(folder / "raw", folder / codec, options)
    return {codec: folder / codec for codec in CODECS}


@pytest.fixture(scope="session")
def pixels(stores: dict[str, Path]) -> Pixels:
    """All pixels of the store as zarr reads them, by array: what every other path must give."""
    group = zarr.open_group(stores["none"] / "images.zarr", mode="r")
    return {name: np.asarray(array[:]) for name, array in group.arrays() if name in {"s2_10m", "s2_20m", "s2_60m"}}


@pytest.fixture(params=CODECS)
def any_store(request: pytest.FixtureRequest, stores: dict[str, Path]) -> Store:
    """The store with each codec in turn."""
    return open_store(stores[request.param])


@pytest.fixture
def store(stores: dict[str, Path]) -> Store:
    """The store with the default codec."""
    return open_store(stores["lz4"])


@pytest.fixture
def everything(store: Store) -> Selection:
    """All patches of the store."""
    return store.select(recommended=False)


@pytest.fixture
def train(store: Store) -> Selection:
    """The recommended training patches of the store."""
    return store.select("train")


@pytest.fixture
def copy_store(stores: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy a store, to be changed."""

    def copy(codec: str = "lz4") -> Path:
        return Path(shutil.copytree(stores[codec], tmp_path / f"copy-{codec}"))

    return copy
