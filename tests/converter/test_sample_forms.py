"""The other forms of the sample: Sentinel-1 pairs, and v2.0 with maps and metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from bigearthnet.archive.lists import OfficialLists, packaged_example
from bigearthnet.archive.records import Annotation, Sources
from bigearthnet.bands import S2_GROUPS
from bigearthnet.errors import OptionError
from bigearthnet.labels import CORINE_CODES, to_labels_19
from bigearthnet.names import SYNTHETIC_FILE, annotation_file, band_file, parse_patch_name
from converter.conversion import ConvertOptions
from converter.sample import SampleForm, SampleSummary, encoding, write_sample
from converter.sample import write as sample
from converter.sample.brief import Brief, choose_briefs
from converter.sample.encoding import encode_annotation, encode_geotiff
from converter.sample.mgrs import locate_patch
from converter.sample.painting import Painting, paint_patch
from converter.sample.product import _name_s1_product
from tests.archives import Archive, read_files
from tests.conftest import RunCli
from tests.forms import FLAGGED_METADATA, METADATA, SCHEMA, convert_here, official_lists

Files = dict[str, bytes]

PAIRS = SampleForm("v1", with_s1=True)
V2 = SampleForm("v2", with_s1=True)


@pytest.fixture(scope="module")
def lists() -> OfficialLists:
    return official_lists()


@pytest.fixture(autouse=True)
def lists_read_once(lists: OfficialLists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "read_lists", lambda: lists)
    monkeypatch.setattr("bigearthnet.archive.catalogue.read_lists", lambda _: lists)


@pytest.fixture(scope="module")
def real_s1() -> dict[str, Files]:
    patches: dict[str, Files] = {}
    with tarfile.open(packaged_example("S1")) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                path = PurePosixPath(member.name)
                patches.setdefault(path.parent.name, {})[path.name] = content.read()
    return patches


@pytest.fixture(scope="module")
def written(lists: OfficialLists, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sample of twelve patches in each form. Read only."""
    folder = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "read_lists", lambda: lists)
        for name, form in (("plain", None), ("pairs", PAIRS), ("v2", V2)):
            write_sample(folder / name, 12, workers=1, form=form)
    return {name: folder / name for name in ("plain", "pairs", "v2")}


def annotation_of(s1_name: str, files: Files) -> Annotation:
    content = json.loads(files[annotation_file(s1_name)])
    corner = locate_patch(s1_name.split("_")[-3], *map(int, s1_name.split("_")[-2:]))
    time = content["acquisition_time"].replace("T", " ")
    return Annotation(tuple(content["labels"]), *corner, time, None, content["corresponding_s2_patch"])


def brief_of(s1_name: str, patch_id: str) -> Brief:
    return Brief(patch_id, s1_name, "Austria", "Summer", snow=False, cloud=False, with_19=True, seed=0)


# -- The bytes of the published files --------------------------------------------------------------------------------


def test_real_s1_files_encode_to_the_same_bytes(real_s1: dict[str, Files]) -> None:
    n_tifs = 0
    for name, files in real_s1.items():
        annotation = annotation_of(name, files)
        source = json.loads(files[annotation_file(name)])["scene_source"]
        assert encode_annotation(annotation, source) == files[annotation_file(name)]
        for band in ("VV", "VH"):
            expected = files[band_file(name, band)]
            with MemoryFile(expected) as memory, memory.open() as source_file:
                pixels = source_file.read(1)
            assert encode_geotiff(pixels, annotation, 10, encoding.S1_V1) == expected
            n_tifs += 1
    assert (len(real_s1), n_tifs) == (6, 12)


PLACE = Annotation((), *locate_patch("33UUP", 75, 43), "", None, None)


@pytest.mark.parametrize(
    ("size", "n_header", "digest"),
    [
        (120, 396, "76869daa17877721"),
        (60, 372, "ae95844e7a937d0c"),
        (20, 372, "5eef13c6e2fc4ff9"),
    ],
)
def test_headers_of_v2_are_those_of_a_published_patch(size: int, n_header: int, digest: str) -> None:
    """Digests of the headers of B02, B05 and B01 of S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43."""
    pixels = np.arange(size * size, dtype=np.uint16).reshape(size, size)
    encoded = encode_geotiff(pixels, PLACE, 1_200 // size, encoding.S2_V2)
    assert encoded[n_header:] == pixels.tobytes()
    assert hashlib.blake2b(encoded[:n_header], digest_size=8).hexdigest() == digest


def test_the_header_of_a_map_is_that_of_a_published_one() -> None:
    """All of it but sizes and offsets of the strips, which depend on the library that compressed them."""
    place = dataclasses.replace(PLACE, x_ul=331_200, y_ul=5_331_600)
    encoded = encode_geotiff(np.full((120, 120), 211, np.uint16), place, 10, encoding.MAP_V2)
    digest = hashlib.blake2b(encoded[:218] + encoded[250:416], digest_size=8).hexdigest()
    assert digest == "c78bf82d3ea85874"
    sizes, offsets = np.frombuffer(encoded, "<u4", 4, 218), np.frombuffer(encoded, "<u4", 4, 234)
    assert offsets.tolist() == [416, *(416 + np.cumsum(sizes)[:3]).tolist()]
    assert 416 + sizes.sum() == len(encoded)


def test_rasterio_reads_every_form_with_its_nodata(real_s1: dict[str, Files]) -> None:
    random = np.random.default_rng(0)
    for form, nodata, pixels in (
        (encoding.S2_V1, None, random.integers(0, 65_536, (60, 60), np.uint16)),
        (encoding.S2_V2, 0, random.integers(0, 65_536, (120, 120), np.uint16)),
        (encoding.S1_V1, None, random.normal(-15, 5, (120, 120)).astype(np.float32)),
        (encoding.MAP_V2, 0, random.choice(np.array([*CORINE_CODES.values(), 0], np.uint16), (120, 120))),
    ):
        encoded = encode_geotiff(pixels, PLACE, 1_200 // len(pixels), form)
        with MemoryFile(encoded) as memory, memory.open() as source:
            np.testing.assert_array_equal(source.read(1), pixels)
            assert source.nodata == nodata
            assert source.bounds[:2] == (PLACE.x_ul, PLACE.y_ul - 1_200)


def test_products_of_s1_are_named_as_the_real_ones_up_to_their_checksum(real_s1: dict[str, Files]) -> None:
    for name, files in real_s1.items():
        annotation = annotation_of(name, files)
        expected = json.loads(files[annotation_file(name)])["scene_source"].rsplit("_", 2)
        found = _name_s1_product(brief_of(name, str(annotation.partner))).rsplit("_", 2)
        assert found[0] == expected[0]
        assert [len(part) for part in found] == [len(part) for part in expected]


# -- Pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_the_plain_sample_and_a_folder_of_partners(
    written: dict[str, Path], lists: OfficialLists, real_s1: dict[str, Files]
) -> None:
    assert sorted(path.name for path in written["pairs"].iterdir()) == ["BigEarthNet-S1-v1.0", "BigEarthNet-v1.0"]
    assert read_files(written["pairs"] / "BigEarthNet-v1.0") == read_files(written["plain"])
    s2_names = set(Archive(written["plain"]).names)
    s1_folder = written["pairs"] / "BigEarthNet-S1-v1.0"
    assert set(Archive(s1_folder).names) == {lists.pairing_of[name].s1_name for name in s2_names}
    for name in s2_names:
        partner = lists.pairing_of[name].s1_name
        files = {path.name: path.read_bytes() for path in (s1_folder / partner).iterdir()}
        if partner in real_s1:
            assert files == real_s1[partner]
            continue
        assert {file: len(content) for file, content in files.items() if file.endswith(".tif")} == {
            band_file(partner, band): 424 + 4 * 120 * 120 for band in ("VV", "VH")
        }
        annotation = annotation_of(partner, files)
        assert annotation.partner == name
        assert annotation.time.replace("-", "").replace(" ", "T").replace(":", "") == partner.split("_")[4]
        s2_note = json.loads((written["plain"] / name / annotation_file(name)).read_bytes())
        s1_note = json.loads(files[annotation_file(partner)])
        assert s1_note["labels"] == s2_note["labels"]
        assert s1_note["projection"] == s2_note["projection"]
        assert s1_note["coordinates"] == {
            key.replace("lry", "lly"): value for key, value in s2_note["coordinates"].items()
        }
        assert s1_note["scene_source"].startswith("_".join(partner.split("_")[:5]) + "_")
    assert set(real_s1) < set(Archive(s1_folder).names)


@pytest.mark.parametrize("form", [PAIRS, V2])
def test_bytes_depend_on_neither_workers_nor_sample_size(form: SampleForm, tmp_path: Path) -> None:
    summary = write_sample(tmp_path / "parallel", 40, seed=3, workers=2, form=form)
    write_sample(tmp_path / "alone", 16, seed=3, workers=1, form=form)
    parallel, alone = read_files(tmp_path / "parallel"), read_files(tmp_path / "alone")
    tifs = {path: content for path, content in alone.items() if not path.endswith(".parquet")}
    assert tifs.items() <= parallel.items()
    n_real = 6 if form is PAIRS else 0
    assert summary == SampleSummary(tmp_path / "parallel", n_real, 40 - n_real, sum(map(len, parallel.values())))


def test_fewer_pairs_than_real_ones_are_whole(tmp_path: Path) -> None:
    write_sample(tmp_path, 2, form=PAIRS)
    for folder in tmp_path.iterdir():
        assert len(list(folder.iterdir())) == 2


# -- v2.0 ------------------------------------------------------------------------------------------------------------


def read_metadata(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in (METADATA, FLAGGED_METADATA):
        rows += pq.read_table(root / file).to_pylist()
    return rows


def read_tif(path: Path) -> tuple[NDArray[Any], tuple[Any, ...]]:
    with rasterio.open(path) as source:
        return source.read(1), (source.crs.to_epsg(), source.transform.c, source.transform.f)


def test_v2_has_a_folder_a_partner_a_map_and_a_row_for_each_patch(written: dict[str, Path]) -> None:
    rows = read_metadata(written["v2"])
    expected = {METADATA, FLAGGED_METADATA}
    expected |= {f"{folder}/{SYNTHETIC_FILE}" for folder in ("BigEarthNet-S2", "BigEarthNet-S1", "Reference_Maps")}
    for row in rows:
        name, s1_name = row["patch_id"], row["s1_name"]
        scene, s1_scene = name.rsplit("_", 2)[0], s1_name.rsplit("_", 3)[0]
        s2_folder, s1_folder = f"BigEarthNet-S2/{scene}/{name}", f"BigEarthNet-S1/{s1_scene}/{s1_name}"
        expected |= {f"{s2_folder}/{name}_{band}.tif" for group in S2_GROUPS for band in group.bands}
        expected |= {f"{s1_folder}/{s1_name}_{band}.tif" for band in ("VV", "VH")}
        expected.add(f"Reference_Maps/{scene}/{name}/{name}_reference_map.tif")
    assert len(rows) == 12
    assert set(read_files(written["v2"])) == expected


def test_metadata_has_the_official_columns_and_says_what_the_v1_lists_say(
    written: dict[str, Path], lists: OfficialLists
) -> None:
    for file in (METADATA, FLAGGED_METADATA):
        table = pq.read_table(written["v2"] / file)
        assert table.schema.equals(SCHEMA)
        assert pq.read_metadata(written["v2"] / file).metadata is None
        assert table["patch_id"].to_pylist() == sorted(table["patch_id"].to_pylist())
    rows = read_metadata(written["v2"])
    for row in rows:
        name = row["s2v1_name"]
        pairing = lists.pairing_of[name]
        assert (row["s1_name"], row["country"]) == (pairing.s1_name, pairing.country)
        assert (row["contains_seasonal_snow"], row["contains_cloud_or_shadow"]) == (
            name in lists.snow,
            name in lists.cloud,
        )
        assert row["labels"] == sorted(set(row["labels"]))
        assert name not in lists.no_19
        parsed, parsed_v1 = parse_patch_name(row["patch_id"]), parse_patch_name(name)
        assert parsed is not None
        assert parsed_v1 is not None
        assert (parsed.dataset, parsed.tile) == ("v2", row["s1_name"].split("_")[-3])
        assert (parsed.satellite, parsed.column, parsed.row) == (
            *(parsed_v1.satellite, parsed_v1.column, parsed_v1.row),
        )
        assert row["patch_id"].split("_")[2][:8] == name.split("_")[2][:8]
    flagged = pq.read_table(written["v2"] / FLAGGED_METADATA).to_pylist()
    assert all(row["contains_seasonal_snow"] or row["contains_cloud_or_shadow"] for row in flagged)
    assert 0 < len(flagged) < 12


def test_maps_and_labels_agree_and_all_files_of_a_patch_lie_in_one_place(written: dict[str, Path]) -> None:
    name_of_code = {code: name for name, code in CORINE_CODES.items()}
    for row in read_metadata(written["v2"]):
        name = row["patch_id"]
        scene = name.rsplit("_", 2)[0]
        codes, place = read_tif(written["v2"] / f"Reference_Maps/{scene}/{name}/{name}_reference_map.tif")
        assert codes.shape == (120, 120)
        assert codes.dtype == np.uint16
        shown = [name_of_code[code] for code in np.unique(codes).tolist()]
        assert row["labels"] == sorted(to_labels_19(shown))
        for band in ("B02", "B05", "B01"):
            assert read_tif(written["v2"] / f"BigEarthNet-S2/{scene}/{name}/{name}_{band}.tif")[1] == place
        s1_name = row["s1_name"]
        s1_scene = s1_name.rsplit("_", 3)[0]
        assert read_tif(written["v2"] / f"BigEarthNet-S1/{s1_scene}/{s1_name}/{s1_name}_VV.tif")[1] == place
        assert place == tuple(locate_patch(s1_name.split("_")[-3], *map(int, s1_name.split("_")[-2:])))


def test_a_patch_shows_the_same_in_both_versions(written: dict[str, Path]) -> None:
    n_both = 0
    for row in read_metadata(written["v2"]):
        name, v1_name, s1_name = row["patch_id"], row["s2v1_name"], row["s1_name"]
        v1_folder = written["pairs"] / "BigEarthNet-v1.0" / v1_name
        if not v1_folder.exists():
            continue
        n_both += 1
        scene, s1_scene = name.rsplit("_", 2)[0], s1_name.rsplit("_", 3)[0]
        for band in ("B02", "B8A", "B09"):
            v2, _ = read_tif(written["v2"] / f"BigEarthNet-S2/{scene}/{name}/{name}_{band}.tif")
            v1, _ = read_tif(v1_folder / f"{v1_name}_{band}.tif")
            np.testing.assert_array_equal(v2, v1)
        for band in ("VV", "VH"):
            v2, _ = read_tif(written["v2"] / f"BigEarthNet-S1/{s1_scene}/{s1_name}/{s1_name}_{band}.tif")
            v1, _ = read_tif(written["pairs"] / f"BigEarthNet-S1-v1.0/{s1_name}/{s1_name}_{band}.tif")
            np.testing.assert_array_equal(v2, v1)
        labels = json.loads((v1_folder / annotation_file(v1_name)).read_bytes())["labels"]
        assert row["labels"] == sorted(to_labels_19(labels))
    assert n_both >= 5


@pytest.mark.parametrize(
    ("s1_name", "v1_name", "v2_name"),
    [
        (
            "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57",
            "S2A_MSIL2A_20170613T101031_26_57",
            "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
        ),
        (
            "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
            "S2A_MSIL2A_20170617T113321_4_55",
            "S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU_04_55",
        ),
        (
            "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
            "S2B_MSIL2A_20180204T94161_57_38",
            "S2B_MSIL2A_20180204T094159_N9999_R036_T35VPK_57_38",
        ),
    ],
)
def test_names_of_v2_are_derived_as_the_official_ones_look(s1_name: str, v1_name: str, v2_name: str) -> None:
    assert brief_of(s1_name, v1_name).v2_name == v2_name


def test_names_of_v2_are_unique_and_splits_keep_neighbours_together(lists: OfficialLists) -> None:
    briefs = choose_briefs(lists, "v2", (), 3_000, seed=0)
    assert len({brief.v2_name for brief in briefs}) == 3_000
    shares = {split: sum(brief.v2_split == split for brief in briefs) for split in ("train", "validation", "test")}
    assert sum(shares.values()) == 3_000
    assert 1_200 < shares["train"] < 1_800
    assert all(500 < shares[split] < 1_000 for split in ("validation", "test"))
    one = next(brief for brief in briefs if brief.parsed.column % 30 < 29 and brief.parsed.row % 30 < 29)
    column, row = one.parsed.column + 1, one.parsed.row + 1
    near = dataclasses.replace(one, name=f"{one.name.rsplit('_', 2)[0]}_{column}_{row}")
    assert near.v2_split == one.v2_split


def test_no_patch_of_v2_is_real_or_without_a_19_class_label(lists: OfficialLists, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a sample can have at most the 590,263 listed patches, not 590,264"):
        write_sample(tmp_path / "archive", 590_264, form=V2)
    summary = write_sample(tmp_path / "archive", 3, form=V2)
    assert (summary.n_real, summary.n_synthetic) == (0, 3)


def test_a_v2_sample_without_flagged_patches_has_an_empty_second_file(
    lists: OfficialLists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = dataclasses.replace(lists, snow=frozenset(), cloud=frozenset())
    monkeypatch.setattr(sample, "read_lists", lambda: clean)
    write_sample(tmp_path, 2, form=SampleForm("v2"))
    assert pq.read_table(tmp_path / FLAGGED_METADATA).equals(pa.Table.from_pylist([], SCHEMA))
    assert not (tmp_path / "BigEarthNet-S1").exists()


# -- Pixels of Sentinel-1 --------------------------------------------------------------------------------------------


def paint(label: str, seed: int = 0, **flags: bool) -> Painting:
    return paint_patch((label,), "Summer", np.random.Generator(np.random.PCG64(seed)), **flags)


def mean_of(label: str) -> NDArray[Any]:
    """Mean VV and VH over some patches of one class."""
    patches = [paint(label, seed).backscatter for seed in range(6)]
    return np.array([np.mean([patch[band] for patch in patches]) for band in ("VV", "VH")])


def test_water_is_dark_towns_are_bright_and_forests_scatter_volume() -> None:
    water, town, forest = map(mean_of, ("Water bodies", "Continuous urban fabric", "Broad-leaved forest"))
    pasture, field = mean_of("Pastures"), mean_of("Non-irrigated arable land")
    assert water[0] < -17 < -13 < pasture[0] < -8
    assert water[1] < -25
    assert town[0] > pasture[0] + 5
    assert forest[1] > pasture[1] + 2
    assert field[1] < forest[1] - 2


def test_radar_sees_through_clouds_and_wet_snow_darkens_it() -> None:
    clear, cloudy, snowy = (paint("Pastures", **flags).backscatter for flags in ({}, {"cloud": True}, {"snow": True}))
    assert cloudy["VV"].mean() == pytest.approx(clear["VV"].mean(), abs=0.1)
    assert snowy["VV"].mean() < clear["VV"].mean() - 1


# -- What it is for --------------------------------------------------------------------------------------------------


def test_pairs_convert_without_a_bad_patch(written: dict[str, Path], tmp_path: Path) -> None:
    root = written["pairs"]
    sources = Sources(root / "BigEarthNet-v1.0", root / "BigEarthNet-S1-v1.0")
    summary = convert_here(sources, tmp_path / "store", ConvertOptions())
    assert (summary.n_patches, summary.n_rejected) == (12, 0)
    alone = convert_here(written["plain"], tmp_path / "plain", ConvertOptions())
    assert alone.split_counts == summary.split_counts


def test_v2_converts_without_a_bad_patch(written: dict[str, Path], tmp_path: Path) -> None:
    root = written["v2"]
    sources = Sources(root / "BigEarthNet-S2", root / "BigEarthNet-S1", root / "Reference_Maps")
    summary = convert_here(sources, tmp_path / "store", ConvertOptions())
    assert (summary.n_patches, summary.n_rejected) == (12, 0)
    seasons = pq.read_table(tmp_path / "store" / "patches.parquet")["season"]
    assert seasons.null_count == 0


def test_the_command_line_writes_every_form(run_cli: RunCli, tmp_path: Path) -> None:
    for options, folders, written in (
        ([], None, "(6 real, 1 synthetic)"),
        (["--s1"], {"BigEarthNet-v1.0", "BigEarthNet-S1-v1.0"}, "(6 real, 1 synthetic)"),
        (
            ["--dataset", "v2"],
            {"BigEarthNet-S2", "BigEarthNet-S1", "Reference_Maps", METADATA, FLAGGED_METADATA},
            "(0 real, 7 synthetic)",
        ),
    ):
        out = tmp_path / "-".join(["sample", *options])
        ended = run_cli("sample", out, "--patches", "7", *options)
        assert ended.code == 0, ended.err
        assert written in ended.out
        found = {path.name for path in out.iterdir()}
        assert found == folders or (folders is None and len(found - {SYNTHETIC_FILE}) == 7)


def test_an_unknown_form_is_wrong_usage(run_cli: RunCli, tmp_path: Path) -> None:
    assert run_cli("sample", tmp_path / "out", "--dataset", "v3").code == 2
