"""A name of bands means the same to `convert`, `Store`, `Stream`, `bench`, `fit` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from converter.commands.cli import cli as convert_cli
from converter.conversion import ConvertOptions
from tests.forms import V2Archive, convert_here, write_v2, write_v2_lists
from tests.trainer.trainings import OWN_WARNINGS, StoppedError
from trainer import OptionError, Store, Stream, open_store
from trainer.commands.cli import cli
from trainer.run.folder import RunFolder
from trainer.run.recipe import Recipe
from trainer.training.compare import compare
from trainer.training.fit import FitOptions, fit
from trainer.training.variants import list_variants

pytestmark = OWN_WARNINGS

SPELLINGS: dict[str, tuple[str, ...]] = {
    "10m": ("B02", "B03", "B04", "B08"),
    "s2_60m": ("B01", "B09"),
    "RGB": ("B04", "B03", "B02"),
    "b8a": ("B8A",),
    "rgb,VV": ("B04", "B03", "B02", "VV"),
    "S1+60m": ("VV", "VH", "B01", "B09"),
    "s2 + s1": ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "VV", "VH"),
    "all": ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "VV", "VH"),
}

SIZES = {"B02": 120, "B03": 120, "B04": 120, "B08": 120, "B01": 20, "B09": 20}
BYTES = {**{band: 2 * SIZES.get(band, 60) ** 2 for band in SPELLINGS["all"]}, "VV": 57_600, "VH": 57_600}
"""Of a patch, by band."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def lists(archive: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v2_lists(tmp_path_factory.mktemp("lists") / "lists", archive)


@pytest.fixture(scope="module")
def both(archive: V2Archive, lists: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of both sensors and of maps."""
    path = tmp_path_factory.mktemp("store") / "store"
    convert_here(archive.sources, path, ConvertOptions(lists=lists, shard_size=4))
    return open_store(path)


def _flatten(arrays: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted(band for bands in arrays.values() for band in bands)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_store_and_its_streams_know_it(both: Store, spelling: str) -> None:
    arrays = both.resolve_bands(spelling)
    expected = SPELLINGS[spelling]
    for name, bands in arrays.items():
        assert bands == tuple(band for band in expected if band in both.describe(name).bands)
    assert _flatten(arrays) == sorted(expected)
    with Stream(both.select(), bands=spelling) as stream:
        assert stream.bands == arrays
    with Stream(both.select(), bands=spelling.split("+")) as stream:
        assert stream.bands == arrays


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_convert_knows_it(archive: V2Archive, lists: Path, tmp_path: Path, spelling: str) -> None:
    paths = [str(archive.s2), str(tmp_path / "store"), "--s1", str(archive.s1), "--lists", str(lists)]
    found = CliRunner().invoke(convert_cli, ["convert", *paths, "--dry-run", "--json", "--bands", spelling])
    assert found.exit_code == 0, found.output
    assert _flatten(json.loads(found.stdout)["arrays"]) == sorted(SPELLINGS[spelling])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_bench_knows_it(both: Store, spelling: str) -> None:
    command = ["bench", both.name, "--bands", spelling, "--seconds", "0.001", "--batch-size", "2", "--json"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["patch_bytes"] == sum(BYTES[band] for band in SPELLINGS[spelling])


def _stop(_: object) -> None:
    raise StoppedError


@pytest.mark.parametrize("spelling", ["RGB", "10m", "rgb,VV", "S1+60m"])
def test_fit_and_compare_know_it(both: Store, tmp_path: Path, spelling: str) -> None:
    with pytest.raises(StoppedError):
        fit(both, tmp_path / "run", Recipe(bands=spelling), FitOptions(tensorboard=False), _stop)
    assert _flatten(RunFolder(tmp_path / "run").read_record().bands) == sorted(SPELLINGS[spelling])
    variants = list_variants(both, Recipe(), bands=["b11", spelling])
    with pytest.raises(StoppedError):
        compare(both, tmp_path / "compared", variants, 2, announce=_stop)


def test_one_set_by_two_names_is_not_compared_with_itself(both: Store, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two different members or more, not rgb, RGB"):
        compare(both, tmp_path, list_variants(both, Recipe(), bands=["rgb", "RGB"]), 2)


def test_a_store_of_some_bands_has_the_sets_of_those(archive: V2Archive, lists: Path, tmp_path: Path) -> None:
    convert_here(archive.s2, tmp_path / "store", ConvertOptions(lists=lists, bands=("b02,B03+B11",)))
    store = open_store(tmp_path / "store")
    assert store.resolve_bands("all") == {"s2_10m": ("B02", "B03"), "s2_20m": ("B11",)}
    assert store.resolve_bands("10m") == store.resolve_bands("s2_10m") == {"s2_10m": ("B02", "B03")}
    for unknown in ("rgb", "s1", "B04", "reference_map"):
        with pytest.raises(OptionError, match=f"no band '{unknown}'; choose from B02, B03, B11, or the sets 10m, 20m"):
            store.resolve_bands(unknown)
