"""Prediction of patches from their GeoTIFFs: as from the store, and what is wrong with a patch is said."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning

from bigearthnet.archive.folders import find_patches
from bigearthnet.errors import OutputError, SourceError
from converter.conversion import ConvertOptions
from tests.archives import Archive
from tests.forms import Pairs, V2Archive, convert_here, extract_pairs, write_v2, write_v2_lists
from tests.tarballs import list_files, write_tarball
from tests.trainer.trainings import OWN_WARNINGS
from trainer import RunError, SelectionError, Store, open_store
from trainer.commands.cli import cli
from trainer.model.networks import build_model, save_model
from trainer.run.recipe import Recipe
from trainer.score.predict import predict, predict_raw

pytestmark = OWN_WARNINGS


def _save_model(path: Path, store: Store, bands: str) -> Path:
    """Save a model that was not trained: its weights are random, so every pixel counts."""
    chosen = store.resolve_bands(bands)
    arrays = [info for info in store.arrays if info.name in chosen]
    scales = {name: tuple(values.tolist() for values in store.scale_of(names)) for name, names in chosen.items()}
    save_model(build_model(Recipe(seed=3), arrays, chosen, scales, store.labels_19), path)
    return path


@pytest.fixture(scope="module")
def raw(stores: dict[str, Path]) -> Archive:
    """The archive that the store of the tests was made from. Read only."""
    return Archive(stores["lz4"].parent / "raw")


@pytest.fixture(scope="module")
def model(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes three bands of three sizes, not in the order of the store."""
    return _save_model(tmp_path_factory.mktemp("model") / "m.keras", open_store(stores["lz4"]), "B09,B8A,B05,B04")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> V2Archive:
    """Nine pairs of v2.0, with metadata and maps. Read only."""
    return write_v2(tmp_path_factory.mktemp("v2") / "archive")


@pytest.fixture(scope="module")
def v2_store(v2: V2Archive, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("v2-store")
    lists = write_v2_lists(folder / "lists", v2)
    convert_here(v2.sources, folder / "store", ConvertOptions(dataset="v2", lists=lists, shard_size=4))
    return open_store(folder / "store")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """The six real pairs of v1.0. Read only."""
    return extract_pairs(tmp_path_factory.mktemp("pairs"))


def _read_column(store: Store, column: str) -> list[str]:
    values: list[str] = pq.read_table(store.table, columns=[column])[column].to_pylist()
    return values


def _check_same(found: Any, model: Path, store: Store, column: str = "patch_id") -> None:
    """Compare with the predictions from the store."""
    expected = dict(zip(_read_column(store, column), predict(model, store).probabilities, strict=True))
    assert sorted(patch.patch_id for patch in found.patches) == sorted(expected)
    assert np.ptp(found.probabilities, axis=0).max() > 1e-4
    for patch, probabilities in zip(found.patches, found.probabilities, strict=True):
        np.testing.assert_allclose(probabilities, expected[patch.patch_id], atol=1e-6)


def test_folders_give_what_the_store_gives(model: Path, raw: Archive, store: Store) -> None:
    _check_same(predict_raw(model, [raw.root]), model, store)


def test_an_archive_file_gives_what_the_store_gives(model: Path, raw: Archive, store: Store, tmp_path: Path) -> None:
    found = predict_raw(
        model, [write_tarball(tmp_path / "raw.tar.zst", list_files(raw.root))], tmp_path / "out.parquet"
    )
    _check_same(found, model, store)


def test_sentinel_1_of_v2_is_predicted_from_its_archive_file(v2: V2Archive, v2_store: Store, tmp_path: Path) -> None:
    model = _save_model(tmp_path / "m.keras", v2_store, "VV,VH")
    found = predict_raw(model, [write_tarball(tmp_path / "s1.tar", list_files(v2.s1))])
    _check_same(found, model, v2_store, "s1_name")


def test_an_archive_file_of_another_sensor_or_out_of_order_is_refused(
    model: Path, raw: Archive, v2: V2Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SelectionError, match="expected an archive of all that is needed, S2; found patches such as S1B_"
    ):
        predict_raw(model, [write_tarball(tmp_path / "s1.tar", list_files(v2.s1))])
    monkeypatch.setattr("bigearthnet.archive.members._MAX_OPEN_BYTES", 1)
    with pytest.raises(SourceError, match="lie too far apart; unpack it and give the folder"):
        predict_raw(model, [write_tarball(tmp_path / "raw.tar", list_files(raw.root))])


@pytest.mark.parametrize(("bands", "column"), [("B01,B08,VH", "patch_id"), ("VV,VH", "s1_name")])
def test_v2_gives_what_its_store_gives(v2: V2Archive, v2_store: Store, tmp_path: Path, bands: str, column: str) -> None:
    """Both sensors and maps lie in one folder, with the metadata that says what belongs together."""
    model = _save_model(tmp_path / "m.keras", v2_store, bands)
    found = predict_raw(model, [v2.root])
    _check_same(found, model, v2_store, column)
    assert found.patches == predict_raw(model, [v2.s1, v2.root / "metadata.parquet", v2.s2, v2.root]).patches
    assert found.patches == predict_raw(model, [v2.s2, v2.s1]).patches, "the metadata lies beside"


def test_pairs_of_v1_say_themselves_what_belongs_together(pairs: Pairs, tmp_path: Path) -> None:
    convert_here(pairs.sources, tmp_path / "store", pairs.options())
    store = open_store(tmp_path / "store")
    model = _save_model(tmp_path / "m.keras", store, "B01,VV")
    _check_same(predict_raw(model, [pairs.s2.root, pairs.s1.root]), model, store)
    with pytest.raises(SourceError, match=rf"{pairs.s2.names[0]}: no Sentinel-1 partner; give its folder too"):
        predict_raw(model, [pairs.s2.root])


def test_paths_are_patches_or_hold_them_and_count_once(
    raw: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = raw.names[:2]
    raw.copy(tmp_path / "scene" / "deeper", [other])
    (tmp_path / "scene" / ".hidden").mkdir()
    (tmp_path / "scene" / "notes.txt").touch()
    os.mkfifo(tmp_path / "scene" / "pipe")
    (tmp_path / "scene" / "loop").symlink_to(tmp_path)
    found = find_patches([raw.folder(one), tmp_path, tmp_path / "scene", raw.folder(one)], {"s2"})
    assert sorted(patch.patch_id for patch in found) == sorted([one, other])
    monkeypatch.chdir(raw.folder(one))
    assert [patch.path for patch in find_patches([Path()], {"s2"})] == [raw.folder(one)]


def test_a_patch_may_have_any_name(model: Path, raw: Archive, tmp_path: Path) -> None:
    shutil.copytree(raw.folder(raw.names[0]), tmp_path / "my field")
    for path in (tmp_path / "my field").iterdir():
        path.rename(path.with_name(path.name.replace(raw.names[0], "my field")))
    found = predict_raw(model, [tmp_path])
    assert [patch.patch_id for patch in found.patches] == ["my field"]


def _remove(archive: Archive, name: str) -> None:
    archive.tif(name, "B05").unlink()


def _shrink(archive: Archive, name: str) -> None:
    archive.rewrite_tif(name, "B05", archive.read_band(name, "B05")[:30])


def _change_type(archive: Archive, name: str) -> None:
    archive.rewrite_tif(name, "B05", archive.read_band(name, "B05").astype(np.float32))


def _cut(archive: Archive, name: str) -> None:
    path = archive.tif(name, "B05")
    path.write_bytes(path.read_bytes()[:3000])


def _spoil(archive: Archive, name: str) -> None:
    archive.tif(name, "B05").write_bytes(b"not a TIFF")


def _empty(archive: Archive, name: str) -> None:
    for path in archive.folder(name).iterdir():
        path.unlink()


def _lay_elsewhere(archive: Archive, name: str) -> None:
    archive.rewrite_tif(name, "B05", crs="EPSG:32601")


def _move(archive: Archive, name: str) -> None:
    archive.rewrite_tif(name, "B05", transform=Affine(20, 0, 300_000, 0, -20, 5_000_000))


def _declare_nodata(archive: Archive, name: str) -> None:
    archive.rewrite_tif(name, "B05", nodata=7)


def _replace_by_fifo(archive: Archive, name: str) -> None:
    archive.tif(name, "B05").unlink()
    os.mkfifo(archive.tif(name, "B05"))


def _replace_note_by_fifo(archive: Archive, name: str) -> None:
    archive.note(name).unlink()
    os.mkfifo(archive.note(name))


FAULTS: dict[str, tuple[Callable[[Archive, str], None], str]] = {
    "missing": (_remove, r"_B05\.tif: the file is missing"),
    "size": (
        _shrink,
        r"_B05\.tif: expected a GeoTIFF of 60 x 60 uint16 pixels of 20 m, found 1 band\(s\) of 60 x 30 uint16",
    ),
    "type": (
        _change_type,
        r"_B05\.tif: expected a GeoTIFF of 60 x 60 uint16 pixels of 20 m, found 1 band\(s\) of 60 x 60 float32",
    ),
    "cut": (
        _cut,
        r"_B05\.tif: expected a GeoTIFF of 60 x 60 uint16 pixels of 20 m, found .* bytes that cannot be read as one \(",
    ),
    "foreign": (
        _spoil,
        r"_B05\.tif: expected a GeoTIFF of 60 x 60 uint16 pixels of 20 m, found .* bytes that cannot be read as one \(",
    ),
    "crs": (_lay_elsewhere, r"_B05\.tif: expected the upper-left corner .* in EPSG:\d+ that .*, found .*EPSG:32601"),
    "corner": (_move, r"_B05\.tif: expected the upper-left corner .*, found \(300000, 5000000\)"),
    "nodata": (_declare_nodata, r"_B05\.tif: expected nodata 0, or none, found 7"),
    "fifo": (_replace_by_fifo, r"_B05\.tif: expected a regular file"),
    "fifo of the note": (_replace_note_by_fifo, r"_labels_metadata\.json: expected JSON, found 0 bytes"),
    "empty": (_empty, r"\.tif: the file is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_patch_ends_it_or_is_left_out(model: Path, raw: Archive, tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    names = raw.names[:4]
    archive = raw.copy(tmp_path / "raw", names)
    spoil(archive, names[2])
    with pytest.raises(SourceError, match=message) as error:
        predict_raw(model, [archive.root])
    assert str(archive.folder(names[2])) in str(error.value)
    reasons: list[str] = []
    found = predict_raw(model, [archive.root], on_bad="skip", complain=reasons.append)
    assert reasons == [str(error.value)]
    assert [patch.patch_id for patch in found.patches] == [name for name in names if name != names[2]]
    assert found.n_bad == 1
    whole = predict_raw(model, [raw.folder(name) for name in names])
    np.testing.assert_allclose(found.probabilities, whole.probabilities[[0, 1, 3]], atol=1e-6)


def test_a_recompressed_file_without_a_place_is_read(model: Path, raw: Archive, tmp_path: Path) -> None:
    archive = raw.copy(tmp_path, raw.names[:1])
    expected = predict_raw(model, [archive.root]).probabilities
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        archive.rewrite_tif(
            raw.names[0], "B04", compress="deflate", tiled=True, blockxsize=64, blockysize=64, transform=None
        )
    np.testing.assert_array_equal(predict_raw(model, [archive.root]).probabilities, expected)


def test_where_there_is_nothing_to_predict_is_said(model: Path, raw: Archive, v2: V2Archive, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"nowhere: expected a folder of patches, or metadata\.parquet"):
        predict_raw(model, [tmp_path / "nowhere"])
    with pytest.raises(SelectionError, match=r"no patch; expected folders <patch> with files such as <patch>_B04\.tif"):
        predict_raw(model, [tmp_path, v2.s1])
    with pytest.raises(SelectionError, match=r"<patch>_VV\.tif"):
        find_patches([raw.root], {"s1"})
    archive = raw.copy(tmp_path / "raw", raw.names[:1])
    _remove(archive, raw.names[0])
    with pytest.raises(SourceError, match="none of 1 patches can be read"):
        predict_raw(model, [archive.root], on_bad="skip")
    (tmp_path / "metadata.parquet").write_bytes(b"no table")
    with pytest.raises(SourceError, match=r"metadata\.parquet: expected a Parquet file, cannot be read as one"):
        find_patches([raw.root, tmp_path / "metadata.parquet"], {"s1", "s2"})
    out = tmp_path / "out.parquet"
    out.touch()
    with pytest.raises(OutputError, match="it is already there"):
        predict_raw(model, [raw.root], out)


def test_a_model_of_other_arrays_than_the_files_hold_is_refused(raw: Archive, store: Store, tmp_path: Path) -> None:
    small = tuple(replace(info, shape=(*info.shape[:2], 12, 12)) for info in store.arrays)
    model = _save_model(tmp_path / "m.keras", replace(store, arrays=small), "B05")
    with pytest.raises(RunError, match=r"takes s2_20m as 12 x 12 uint16, which BigEarthNet's files do not hold"):
        predict_raw(model, [raw.root])


def test_the_command_lists_patches_or_writes_a_table(model: Path, raw: Archive, tmp_path: Path) -> None:
    names = raw.names[:3]
    archive = raw.copy(tmp_path / "raw", names)
    expected = predict_raw(model, [archive.root])
    found = CliRunner().invoke(cli, ["predict", str(model), *(str(archive.folder(name)) for name in names)])
    assert found.exit_code == 0, found.output
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert [name for name, _ in lines] == names
    for (_, listed), probabilities in zip(lines, expected.probabilities, strict=True):
        chosen = sorted((p, name) for p, name in zip(probabilities, expected.classes, strict=True) if p >= 0.5)
        assert listed == ("; ".join(f"{name} {p:.2f}" for p, name in reversed(chosen)) or "-")
    assert any(listed != "-" for _, listed in lines)

    _remove(archive, names[0])
    out = tmp_path / "out.parquet"
    command = ["predict", str(model), str(archive.root), "--out", str(out), "--threads", "1"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 1
    assert found.stderr.startswith(f"Error: {archive.tif(names[0], 'B05')}: the file is missing")
    assert not out.exists()
    found = CliRunner().invoke(cli, [*command, "--on-bad", "skip"])
    assert found.exit_code == 0, found.output
    assert f"Skipped: {archive.tif(names[0], 'B05')}: the file is missing" in found.stderr
    assert "1 of 3 patches skipped" in found.stderr
    assert "2 patches, " in found.stdout
    table = pq.read_table(out)
    assert table["patch_id"].to_pylist() == names[1:]
    assert table["path"].to_pylist() == [str(archive.folder(name)) for name in names[1:]]
    np.testing.assert_allclose(table["probabilities"].to_pylist(), expected.probabilities[1:], atol=1e-6)


def test_the_command_refuses_options_that_would_do_nothing(model: Path, raw: Archive, stores: dict[str, Path]) -> None:
    for arguments, message in {
        (str(raw.root), "--split", "test"): "--split is for a store only",
        (str(raw.root), "--recommended"): "--recommended is for a store only",
        (str(stores["lz4"]), "--on-bad", "skip"): "--on-bad is for patch folders only",
        (str(stores["lz4"]), str(raw.root)): "is a store: give it alone",
        (): "Missing argument 'PATHS...'",
    }.items():
        found = CliRunner().invoke(cli, ["predict", str(model), *arguments])
        assert found.exit_code == 2, arguments
        assert message in " ".join(found.stderr.split())
