"""The sample archive: true bytes, true places, and patches that do not depend on how they were made."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path, PurePosixPath
from random import Random

import numpy as np
import pytest
import rasterio
import rasterio.warp
from rasterio.io import MemoryFile
from sklearn.metrics import average_precision_score

from bigearthnet.archive.catalogue import read_archive
from bigearthnet.archive.lists import OfficialLists, packaged_example
from bigearthnet.archive.records import Annotation
from bigearthnet.bands import BAND_SETS, S1_10M, S2_GROUPS
from bigearthnet.errors import OptionError, SourceError
from bigearthnet.labels import CORINE_CODES, LABEL_19_OF_43, LABELS_19, LABELS_43, to_labels_19
from bigearthnet.names import annotation_file, band_file
from converter.sample import SampleForm, SampleSummary, write_sample
from converter.sample import write as sample
from converter.sample.brief import choose_briefs
from converter.sample.classes import LOOKS, draw_labels
from converter.sample.encoding import S2_V1, encode_annotation, encode_geotiff
from converter.sample.mgrs import locate_patch
from converter.sample.painting import Painting, paint_patch
from converter.sample.product import make_patch
from tests.archives import read_files
from tests.forms import official_lists

Files = dict[str, bytes]

BOUNDS = {
    "Austria": (9, 46, 18, 50),
    "Belgium": (2, 49, 7, 52),
    "Finland": (19, 59, 32, 71),
    "Ireland": (-11, 51, -5, 56),
    "Kosovo": (20, 41, 22, 44),
    "Lithuania": (20, 53, 27, 57),
    "Luxembourg": (5, 49, 7, 51),
    "Portugal": (-10, 36, -6, 43),
    "Serbia": (18, 42, 24, 47),
    "Switzerland": (5, 45, 11, 48),
}
"""West, south, east and north of each country, in whole degrees."""


@pytest.fixture(scope="module")
def real() -> dict[str, Files]:
    patches: dict[str, Files] = {}
    with tarfile.open(packaged_example("S2")) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                path = PurePosixPath(member.name)
                patches.setdefault(path.parent.name, {})[path.name] = content.read()
    return patches


@pytest.fixture(scope="module")
def lists() -> OfficialLists:
    return official_lists()


@pytest.fixture(autouse=True)
def lists_read_once(lists: OfficialLists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "read_lists", lambda: lists)


def annotation_of(patch_id: str, files: Files) -> tuple[Annotation, str]:
    content = json.loads(files[annotation_file(patch_id)])
    tile = content["tile_source"].split("_T")[1][:5]
    corner = locate_patch(tile, *map(int, patch_id.split("_")[-2:]))
    annotation = Annotation(tuple(content["labels"]), *corner, content["acquisition_date"], tile, None)
    return annotation, content["tile_source"]


def paint(*labels: str, season: str = "Summer", seed: int = 0, **flags: bool) -> Painting:
    return paint_patch(labels, season, np.random.Generator(np.random.PCG64(seed)), **flags)


def archive_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_real_files_encode_to_the_same_bytes_from_pixels_labels_and_tile(real: dict[str, Files]) -> None:
    n_tifs = 0
    for patch_id, files in real.items():
        annotation, tile_source = annotation_of(patch_id, files)
        assert encode_annotation(annotation, tile_source) == files[annotation_file(patch_id)]
        for group in S2_GROUPS:
            for band in group.bands:
                expected = files[band_file(patch_id, band)]
                with MemoryFile(expected) as memory, memory.open() as source:
                    pixels = source.read(1)
                assert encode_geotiff(pixels, annotation, group.pixel_m, S2_V1) == expected
                n_tifs += 1
    assert (len(real), n_tifs) == (6, 72)


@pytest.mark.parametrize(
    ("tile", "column", "row", "corner"),
    [
        ("33UUP", 87, 48, (32633, 404_400, 5_342_400)),
        ("35VPK", 57, 38, (32635, 668_400, 6_954_420)),
        ("29SND", 56, 35, (32629, 567_180, 4_358_040)),
        ("29UPU", 4, 55, (32629, 604_800, 5_834_040)),
    ],
)
def test_a_tile_and_two_indices_locate_a_patch(tile: str, column: int, row: int, corner: tuple[int, int, int]) -> None:
    assert locate_patch(tile, column, row) == corner


@pytest.mark.parametrize("tile", ["", "33UUPX", "61UUP", "00UUP", "33MUP", "33UIP", "33UAP", "33UUO"])
def test_a_tile_that_cannot_be_is_refused_by_name(tile: str) -> None:
    with pytest.raises(SourceError, match=f"found '{tile}'"):
        locate_patch(tile, 0, 0)


def test_a_listed_patch_of_every_tile_lies_in_its_country(lists: OfficialLists) -> None:
    patch_of = {(pairing.s1_name.split("_")[-3], pairing.country): name for name, pairing in lists.pairing_of.items()}
    for (tile, country), name in sorted(patch_of.items()):
        corner = locate_patch(tile, *map(int, name.split("_")[-2:]))
        (east,), (north,) = rasterio.warp.transform(f"EPSG:{corner.epsg}", "EPSG:4326", [corner.x_ul], [corner.y_ul])
        west_limit, south_limit, east_limit, north_limit = BOUNDS[country]
        assert west_limit < east < east_limit, (tile, country)
        assert south_limit < north < north_limit, (tile, country)


def test_a_sample_has_the_real_patches_and_whole_made_up_ones(
    tmp_path: Path, real: dict[str, Files], lists: OfficialLists
) -> None:
    reports: list[tuple[int, int]] = []
    summary = write_sample(tmp_path / "archive", 12, workers=1, progress=lambda *report: reports.append(report))
    written = archive_bytes(tmp_path / "archive")
    assert summary == SampleSummary(tmp_path / "archive", 6, 6, sum(map(len, written.values())))
    assert reports == [*((done, 12) for done in range(1, 7)), (12, 12)]
    folders = sorted(path.name for path in (tmp_path / "archive").iterdir() if path.is_dir())
    assert len(folders) == 12
    for name in folders:
        files = {path.name: path.read_bytes() for path in (tmp_path / "archive" / name).iterdir()}
        assert {file: len(content) for file, content in files.items() if file.endswith(".tif")} == {
            band_file(name, band): (392 if group.size == 120 else 360) + group.plane_bytes
            for group in S2_GROUPS
            for band in group.bands
        }
        assert len(files) == 13
        if name in real:
            assert files == real[name]
        else:
            assert name in lists.pairing_of
            annotation, tile_source = annotation_of(name, files)
            assert encode_annotation(annotation, tile_source) == files[annotation_file(name)]
            assert annotation.tile == lists.pairing_of[name].s1_name.split("_")[-3]
            assert annotation.time.replace("-", "").startswith(name.split("_")[2][:8])


def test_rasterio_reads_a_made_up_patch_where_its_json_says(tmp_path: Path, real: dict[str, Files]) -> None:
    write_sample(tmp_path, 7, workers=1)
    (name,) = {path.name for path in tmp_path.iterdir() if path.is_dir()} - set(real)
    content = json.loads((tmp_path / name / annotation_file(name)).read_bytes())
    for group in S2_GROUPS:
        for band in group.bands:
            path = tmp_path / name / band_file(name, band)
            with rasterio.open(path) as source:
                assert source.dtypes == ("uint16",)
                assert source.bounds == tuple(content["coordinates"][key] for key in ("ulx", "lry", "lrx", "uly"))
                assert source.crs == rasterio.CRS.from_wkt(content["projection"])
                pixels = source.read(1)
            assert pixels.shape == (group.size, group.size)
            assert path.read_bytes().endswith(pixels.tobytes())
            assert pixels.min() >= 1
            assert pixels.std() > 0


def test_fewer_patches_than_real_ones_are_the_first_by_name(tmp_path: Path, real: dict[str, Files]) -> None:
    summary = write_sample(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(real)[:2]
    assert (summary.n_real, summary.n_synthetic) == (2, 0)


def test_bytes_depend_on_neither_workers_nor_sample_size(tmp_path: Path) -> None:
    write_sample(tmp_path / "parallel", 71, seed=3, workers=2)
    write_sample(tmp_path / "alone", 20, seed=3, workers=1)
    parallel, alone = archive_bytes(tmp_path / "parallel"), archive_bytes(tmp_path / "alone")
    assert len(parallel) == 71 * 13 + 1
    assert alone.items() <= parallel.items()


def test_another_seed_makes_up_other_patches(tmp_path: Path, real: dict[str, Files]) -> None:
    chosen = []
    for seed in (0, 1):
        write_sample(tmp_path / str(seed), 9, seed=seed)
        chosen.append({path.name for path in (tmp_path / str(seed)).iterdir() if path.is_dir()} - set(real))
    assert not chosen[0] & chosen[1]


def test_flagged_patches_show_what_their_list_says(
    tmp_path: Path, lists: OfficialLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [*sorted(lists.snow)[:8], *sorted(lists.cloud)[:8], *sorted(lists.no_19 - lists.snow - lists.cloud)[:8]]
    flagged = dataclasses.replace(lists, pairing_of={name: lists.pairing_of[name] for name in few})
    monkeypatch.setattr(sample, "read_lists", lambda: flagged)
    write_sample(tmp_path, 24, workers=1)
    seen = Counter[str]()
    for name in few:
        if not (tmp_path / name).exists():
            continue
        labels = tuple(json.loads((tmp_path / name / annotation_file(name)).read_bytes())["labels"])
        assert bool(to_labels_19(labels)) == (name not in lists.no_19)
        bands = {band: (tmp_path / name / band_file(name, band)).read_bytes() for band in ("B02", "B11")}
        blue = np.frombuffer(bands["B02"][392:], "<u2").mean()
        infrared = np.frombuffer(bands["B11"][360:], "<u2").mean()
        if name in lists.snow:
            assert blue > 1_500
            assert infrared < blue
        elif name in lists.cloud:
            assert blue > 1_200
        seen["snow" if name in lists.snow else "cloud" if name in lists.cloud else "no 19-class label"] += 1
    assert all(seen[kind] >= 5 for kind in ("snow", "cloud", "no 19-class label"))


def test_labels_are_drawn_in_order_and_suit_the_country() -> None:
    draw = Random(0).random
    shown = {country: Counter[str]() for country in BOUNDS}
    sizes = []
    for country in BOUNDS:
        for _ in range(400):
            labels = draw_labels(country, draw)
            assert list(labels) == [label for label in LABELS_43 if label in labels]
            assert to_labels_19(labels)
            shown[country].update(labels)
            sizes.append(len(labels))
    assert 1 <= min(sizes) < max(sizes) <= 6
    assert 2.6 < np.mean(sizes) < 3.3
    assert shown["Finland"]["Coniferous forest"] > 3 * shown["Portugal"]["Coniferous forest"]
    assert not any(shown[country]["Sea and ocean"] for country in ("Austria", "Switzerland", "Serbia", "Luxembourg"))
    assert set().union(*(map(LABEL_19_OF_43.get, counts) for counts in shown.values())) >= set(LABELS_19)


def test_labels_without_a_19_class_form_can_be_asked_for_in_every_country() -> None:
    draw = Random(0).random
    for country in BOUNDS:
        assert not any(to_labels_19(draw_labels(country, draw, with_19=False)) for _ in range(20))


def test_coarse_bands_are_area_means_of_the_fine_scene() -> None:
    """B8A lies beside B08 in the spectrum, so over one scene both show the same pattern."""
    pixels = paint("Discontinuous urban fabric", "Pastures", "Water bodies").reflectance
    fine = pixels["B08"].reshape(60, 2, 60, 2).mean(axis=(1, 3))
    assert np.corrcoef(fine.ravel(), pixels["B8A"].ravel())[0, 1] > 0.98
    coarse = pixels["B8A"].reshape(20, 3, 20, 3).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), pixels["B09"].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("label", LABELS_43)
def test_every_class_looks_within_what_the_satellites_measure(label: str) -> None:
    for season in ("Spring", "Summer", "Fall", "Winter"):
        painting = paint(label, season=season)
        assert set(painting.reflectance) == set(BAND_SETS["s2"])
        for pixels in painting.reflectance.values():
            assert pixels.dtype == np.uint16
            assert 20 < pixels.mean() < 5_000
        assert set(painting.backscatter) == set(BAND_SETS["s1"])
        for echo in painting.backscatter.values():
            assert echo.shape == (120, 120)
            assert echo.dtype == np.float32
            assert -60 < echo.min() < echo.max() < 25


def test_the_table_of_looks_is_complete() -> None:
    assert list(LOOKS) == list(CORINE_CODES.values())
    assert {(len(look.percent), len(look.reflectance)) for look in LOOKS.values()} == {(5, 12)}
    assert {look.companion for look in LOOKS.values()} <= set(LOOKS)


def test_both_sensors_and_the_map_show_the_same_shore() -> None:
    painting = paint("Pastures", "Sea and ocean", seed=2)
    infrared, echo = painting.reflectance["B08"].astype(float), painting.backscatter["VH"]
    assert np.corrcoef(infrared.ravel(), echo.ravel())[0, 1] > 0.7
    sea = painting.codes == CORINE_CODES["Sea and ocean"]
    assert infrared[sea].max() < infrared[~sea].min()
    assert echo[sea].mean() < echo[~sea].mean() - 6


def test_every_label_is_on_the_map_and_nothing_else() -> None:
    draw = Random(0).random
    for seed in range(60):
        labels = draw_labels("Portugal", draw)
        codes, n_pixels = np.unique(paint(*labels, seed=seed).codes, return_counts=True)
        assert codes.tolist() == [CORINE_CODES[label] for label in labels]
        assert n_pixels.min() > 120 * 120 * 0.05


def test_labels_can_be_learnt_from_pixels_and_best_from_all_bands(lists: OfficialLists) -> None:
    """By a linear model of the means and spreads of the bands, on patches that it has not seen."""
    briefs = choose_briefs(lists, "v1", (), 600, seed=0)
    rows: dict[str, list[list[float]]] = {"rgb": [], "s2": [], "all": []}
    truth = []
    for brief in briefs:
        files = {
            name: content
            for _, folder in make_patch(brief, SampleForm("v1", with_s1=True))
            for name, content in folder.items()
        }
        for name, features in rows.items():
            of_patch = []
            for group in (*S2_GROUPS, S1_10M):
                for band in set(group.bands) & set(BAND_SETS[name]):
                    file = band_file(brief.s1_name if group is S1_10M else brief.name, band)
                    pixels = np.frombuffer(files[file][-group.plane_bytes :], group.dtype).astype(float)
                    pixels = pixels if group is S1_10M else np.log(pixels)
                    of_patch += [pixels.mean(), pixels.std()]
            features.append(of_patch)
        truth.append([label in brief.draw_details()[0] for label in LABELS_43])
    labels = np.array(truth)
    seen, unseen = slice(0, 400), slice(400, None)
    frequent = (labels[seen].sum(axis=0) >= 20) & (labels[unseen].sum(axis=0) >= 10)
    assert frequent.sum() >= 8
    scores = {}
    for name, features in rows.items():
        x = np.array(features)
        x = np.column_stack([(x - x[seen].mean(axis=0)) / x[seen].std(axis=0), np.ones(len(x))])
        weights = np.linalg.solve(x[seen].T @ x[seen] + 3 * np.eye(x.shape[1]), x[seen].T @ labels[seen][:, frequent])
        scores[name] = average_precision_score(labels[unseen][:, frequent], x[unseen] @ weights)
    chance = labels[unseen][:, frequent].mean()
    assert scores["rgb"] > 1.5 * chance
    assert scores["s2"] > 1.1 * scores["rgb"]
    assert scores["all"] > 1.02 * scores["s2"]


def test_a_full_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match=r"found notes\.txt in it"):
        write_sample(tmp_path, 1)
    with pytest.raises(SourceError, match="expected a new or empty folder"):
        write_sample(tmp_path / "notes.txt", 1)


def test_the_working_folder_and_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), tmp_path / "link", Path("/proc/self/fdinfo")):
        with pytest.raises(SourceError, match="folder"):
            write_sample(out, 1)


@pytest.mark.parametrize("form", [SampleForm(), SampleForm("v2", with_s1=True)], ids=["v1", "v2"])
def test_a_killed_sample_looks_like_no_archive_and_goes_on(tmp_path: Path, form: SampleForm) -> None:
    write_sample(tmp_path / "whole", 20, workers=1, form=form)
    out, unfinished = tmp_path / "archive", tmp_path / ".archive.unfinished"
    command = [sys.executable, "-m", "converter", "sample", str(out), "--patches", "20", "--workers", "1"]
    process = subprocess.Popen([*command, "--dataset", form.dataset], stderr=subprocess.DEVNULL)
    made: list[Path] = []
    while not made:
        with suppress(FileNotFoundError):  # a folder that got its name meanwhile
            made = list(unfinished.rglob("[!.]*_B08.tif"))
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    with pytest.raises(SourceError):
        read_archive({"s2": out / form.root_of["s2"]})
    times = {path: path.stat().st_mtime_ns for path in made if not path.parent.name.startswith(".")}
    write_sample(out, 20, workers=1, form=form)
    assert not unfinished.exists()
    assert all((out / path.relative_to(unfinished)).stat().st_mtime_ns == time for path, time in times.items())
    assert read_files(out) == read_files(tmp_path / "whole")


def test_an_unfinished_sample_of_another_kind_is_begun_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / ".archive.unfinished"
    unfinished.mkdir()
    (unfinished / ".sample.json").write_text('[7, 1, {"dataset": "v1", "with_s1": false}]')
    (unfinished / "of another seed").mkdir()
    write_sample(tmp_path / "archive", 7)
    assert len(list((tmp_path / "archive").glob("S2*"))) == 7
    assert not (tmp_path / "archive" / "of another seed").exists()


@pytest.mark.parametrize(("n_patches", "workers"), [(0, None), (-1, None), (590_327, None), (1, 0)])
def test_a_sample_of_no_or_too_many_patches_or_workers_is_refused(
    tmp_path: Path, n_patches: int, workers: int | None
) -> None:
    with pytest.raises(OptionError, match="590,327" if n_patches > 1 else "at least 1"):
        write_sample(tmp_path / "archive", n_patches, workers=workers)
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("sensed", "time"),
    [("20170613T101031", "10:10:31"), ("20170924T93020", "09:30:20"), ("20180204T94161", "09:41:59")],
)
def test_times_of_five_digits_or_61_seconds_become_valid(
    tmp_path: Path, lists: OfficialLists, monkeypatch: pytest.MonkeyPatch, sensed: str, time: str
) -> None:
    taken = write_sample(tmp_path / "real", 6)
    name = next(n for n in lists.pairing_of if f"_{sensed}_" in n and not (taken.path / n).exists())
    monkeypatch.setattr(
        sample,
        "read_lists",
        lambda: dataclasses.replace(
            lists,
            pairing_of={name: lists.pairing_of[name]}
            | {patch.name: lists.pairing_of[patch.name] for patch in taken.path.iterdir()},
        ),
    )
    write_sample(tmp_path / "archive", 7)
    content = json.loads((tmp_path / "archive" / name / annotation_file(name)).read_bytes())
    assert content["acquisition_date"] == f"{sensed[:4]}-{sensed[4:6]}-{sensed[6:8]} {time}"
    assert content["tile_source"].startswith(f"{name[:3]}_MSIL1C_{sensed}_N020")
