"""The page about a store: pandas counts its figures again, its pictures are drawn again, and a browser opens it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import enlarge_table
from bigearthnet.archive.records import Sources
from bigearthnet.errors import OptionError, OutputError, StoreError
from bigearthnet.labels import CORINE_CODES, LABELS_19, LABELS_43
from bigearthnet.look.picture import render_picture
from bigearthnet.names import SPLITS
from bigearthnet.store.images import read_layout
from bigearthnet.store.query import select_patches
from bigearthnet.store.summary import describe_store
from converter.finish import count_splits
from converter.report import ReportOptions, name_report, write_report
from converter.report.census import take_census
from converter.report.footprints import WIDTH, count_footprints, draw_map
from converter.report.gallery import N_CANDIDATES, Studio, choose_gallery
from converter.report.pixels import draw_sample, survey_pixels
from converter.report.variety import choose_varied, mark_kinds, standardise
from converter.staging import StageOptions, stage
from tests.archives import write_lists
from tests.browser import A4, DESKTOP, PHONE, Visitor
from tests.conftest import RunCli, SmallArchive
from tests.forms import ARRAYS_V2, convert_here, extract_pairs, write_v2, write_v2_lists
from tests.manifests import seal_again

FORMS: Final = ("v1", "rgb", "s1", "v2")
HOSTILE: Final = "<script>alert('&')</script>"
"""The name of a country, for all that a page knows."""
_VOID: Final = {"img", "link", "meta"}


class _PageParser(HTMLParser):
    """Builds a tree, and fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self._builder = TreeBuilder()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._builder.start(tag, {name: value or "" for name, value in attrs})
        self._open.append(tag)
        if tag in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()
        self._builder.end(tag)

    def handle_data(self, data: str) -> None:
        if self._open:
            self._builder.data(data)

    def close_tree(self) -> Element:
        self.close()
        assert not self._open
        return self._builder.close()


def read_text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


@dataclass(frozen=True)
class Report:
    """A store, its page, and what pandas reads of it."""

    store: Path
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> Element:
        parser = _PageParser()
        parser.feed(self.text)
        return parser.close_tree()

    @cached_property
    def rows(self) -> pd.DataFrame:
        columns = [name for name in pq.read_schema(self.store / "patches.parquet").names if name != "geometry"]
        rows: pd.DataFrame = pq.read_table(self.store / "patches.parquet", columns=columns).to_pandas()
        return rows

    @cached_property
    def attributes(self) -> dict[str, Any]:
        return dict(zarr.open_group(self.store / "images.zarr", mode="r").attrs)

    def section(self, name: str) -> Element:
        found = self.tree.find(f".//section[@id='{name}']")
        assert found is not None
        return found

    def tiles(self, element: Element) -> dict[str, str]:
        """Read the boxes with large figures, by their titles."""
        return {
            read_text(tile.findall("dt")[0]): read_text(tile.findall("dd")[0])
            for tile in element.findall(".//dl[@class='tiles']/div")
        }

    def table(self, section: str, kind: str) -> list[list[str]]:
        """Read the body of a table: of the first whose class or caption is so, the text of each cell."""
        for table in self.section(section).iter("table"):
            if table.get("class") == kind or any(read_text(one).startswith(kind) for one in table.findall("caption")):
                return [[read_text(cell) for cell in row] for part in table.findall("tbody") for row in part]
        raise AssertionError(f"no table {kind} in {section}")

    def columns(self, label: str) -> dict[str, int]:
        """Read the columns of a chart: what each says when it is pointed at."""
        for drawing in self.tree.iter("svg"):
            if (drawing.get("aria-label") or "").startswith(label):
                texts = [read_text(title).rsplit(": ", 1) for title in drawing.iter("title")]
                return {name.replace("\N{MINUS SIGN}", "-"): int(n.replace(",", "")) for name, n in texts}
        raise AssertionError(f"no chart {label}")


@pytest.fixture(scope="module")
def stores(small: SmallArchive, store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished stores: v1.0; three bands of it, of which a patch was bad; Sentinel-1 alone; v2.0 with everything."""
    folder = tmp_path_factory.mktemp("stores")
    spoiled = small.archive.copy(folder / "spoiled")
    spoiled.tif(small.train[0], "B03").unlink()
    pairs = [
        (f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i}_{i}", name, HOSTILE, "Summer")
        for i, name in enumerate(small.names)
    ]
    options = small.options(
        lists=write_lists(folder / "lists", pairs), bands=("rgb",), on_bad="skip", max_bad=0.5, shard_size=8
    )
    convert_here(spoiled.root, folder / "rgb", options)
    pairs_archive = extract_pairs(folder / "pairs")
    convert_here(Sources(s1=pairs_archive.s1.root), folder / "s1", pairs_archive.options())
    v2 = write_v2(folder / "archive")
    convert_here(v2.sources, folder / "v2", small.options(lists=write_v2_lists(folder / "v2-lists", v2)))
    return {"v1": store, "rgb": folder / "rgb", "s1": folder / "s1", "v2": folder / "v2"}


@pytest.fixture(scope="module")
def reports(stores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder = tmp_path_factory.mktemp("reports")
    for form, store in stores.items():
        write_report(store, folder / f"{form}.html", ReportOptions(sample=8))
    return {form: Report(store, folder / f"{form}.html") for form, store in stores.items()}


@pytest.fixture(params=FORMS)
def report(request: pytest.FixtureRequest, reports: dict[str, Report]) -> Report:
    found: Report = reports[request.param]
    return found


def format_share(part: float, whole: float) -> str:
    percent = 100 * part / whole if whole else 0
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def test_the_headline_counts_are_those_of_the_table_and_the_rejects(report: Report) -> None:
    tiles = report.tiles(report.tree.findall("./body/header")[0])
    rows, expected = report.rows, {"rgb": 1}.get(report.path.stem, 0)
    assert tiles["Patches"] == str(len(rows))
    assert tiles["Recommended"] == str(rows.recommended.sum())
    assert tiles["Rejected"] == str(expected)
    assert tiles.get("Tiles", "0") == str(rows.tile.nunique())
    n_classes = [rows.labels.explode().nunique()] if report.path.stem != "v2" else []
    assert tiles["Classes"] == " and ".join(map(str, [*n_classes, rows.labels_19.explode().nunique()]))
    assert f"{len(rows) + expected} found = {len(rows)} converted + {expected} rejected" in read_text(
        report.section("patches")
    )
    n_published = 549_488 if report.path.stem == "v2" else 590_326
    assert f"{n_published - len(rows) - expected:,} were not in the archive" in read_text(report.section("patches"))


def test_a_rejected_patch_is_told_with_its_reason(reports: dict[str, Report]) -> None:
    rejected = pq.read_table(reports["rgb"].store / "rejected.parquet").to_pylist()
    assert reports["rgb"].table("patches", "Why") == [[row["reason"], row["file"], "1"] for row in rejected]
    assert "Why patches" not in reports["v1"].text


def test_splits_are_those_of_the_table(report: Report) -> None:
    rows = report.rows
    found = report.table("patches", "splits")
    names = [*SPLITS, *(["in no split"] if rows.split.isna().any() else [])]
    assert [row[0] for row in found] == names
    for name, n_recommended, share, n_others in found:
        chosen = rows[rows.split.isna() if name == "in no split" else rows.split == name]
        assert [n_recommended, n_others] == [str(chosen.recommended.sum()), str((~chosen.recommended).sum())]
        assert share == format_share(chosen.recommended.sum(), rows.recommended.sum())


def test_classes_are_counted_as_pandas_counts_them(report: Report) -> None:
    n_patches = len(report.rows)
    counts = report.rows.labels_19.explode().value_counts()
    expected = [
        [f"{i + 1}{name}", str(counts.get(name, 0)), format_share(counts.get(name, 0), n_patches)]
        for i, name in enumerate(LABELS_19)
    ]
    assert report.table("classes", "The 19 classes") == expected
    if report.path.stem == "v2":
        assert "The 43 classes" not in report.text
        return
    counts = report.rows.labels.explode().value_counts().reindex(LABELS_43, fill_value=0)
    ranked = counts.sort_values(ascending=False, kind="stable")
    assert report.table("classes", "The 43 classes") == [
        [f"{CORINE_CODES[str(name)]}{name}", str(n), format_share(n, n_patches)] for name, n in ranked.items()
    ]


def test_labels_a_patch_are_counted(report: Report) -> None:
    for column, n_classes in (("labels_19", 19), *([("labels", 43)] if report.path.stem != "v2" else [])):
        sizes = report.rows[column].map(len)
        expected = sizes.value_counts().reindex(range(sizes.min(), sizes.max() + 1), fill_value=0)
        found = report.columns(f"Patches by number of labels of {n_classes} ")
        assert found == {str(size): n for size, n in expected.items()}
        assert f"{sizes.mean():.2f} of {n_classes} on average" in report.text


def test_balance_is_the_share_of_the_recommended_patches_of_a_split(report: Report) -> None:
    recommended = report.rows[report.rows.recommended]
    for name, row in zip(LABELS_19, report.table("balance", "bars balance"), strict=True):
        assert name in row[0]
        for split, share in zip(SPLITS, row[1:], strict=True):
            labels = recommended[recommended.split == split].labels_19
            assert share == format_share(labels.map(lambda found: name in found).sum(), len(labels))  # noqa: B023


def test_classes_that_occur_together_are_the_product_of_the_multi_hot_matrix(report: Report) -> None:
    hot = np.array([[name in labels for name in LABELS_19] for labels in report.rows.labels_19], int)
    together = hot.T @ hot
    cells = [row.findall("td") for row in report.section("together").findall(".//tbody/tr")]
    for i, j in product(range(19), range(19)):
        cell, n, whole = cells[i][j], together[i, j], together[i, i]
        if i == j:
            assert cell.get("title") == f"{LABELS_19[i]}: {n} patches"
            continue
        assert cell.get("title") == f"{LABELS_19[i]} with {LABELS_19[j]}: {n} of {whole} patches"
        assert read_text(cell) == (str(int(100 * n / whole + 0.5) or "<1") if n else "")


def test_countries_and_seasons_are_a_cross_table(report: Report) -> None:
    rows = report.rows[["country", "season"]].fillna("Unknown")
    heads = [read_text(cell) for cell in report.section("where").findall(".//table/thead/tr/th")][2:]
    expected = pd.crosstab(rows.country, rows.season)
    assert sorted(heads) == sorted(expected.columns)
    found = {name: [int(n) for n in counts] for name, *counts in report.table("where", "Patches by country")}
    assert found == {name: [counts.sum(), *counts[heads]] for name, counts in expected.iterrows()}
    totals = [int(read_text(cell)) for cell in report.section("where").findall(".//tfoot/tr/td")]
    assert totals == [len(rows), *expected[heads].sum()]


def test_months_are_those_of_the_sensing(report: Report) -> None:
    times = report.rows.s2_time.fillna(report.rows.s1_time)
    months = times.dt.tz_localize(None).dt.to_period("M")
    every = pd.period_range(months.min(), months.max(), freq="M")
    expected = months.value_counts().reindex(every, fill_value=0)
    names = every.strftime("%b") if len(every) <= 12 else every.strftime("%Y-%m")
    assert report.columns("Patches by month") == dict(zip(names, expected, strict=True))
    satellites = ", ".join(f"{name} {n}" for name, n in report.rows.satellite.value_counts().sort_index().items())
    assert (f"month of sensing: {satellites}" in report.text) == (report.path.stem != "s1")


def test_time_lags_are_told_where_both_sensors_are(reports: dict[str, Report]) -> None:
    assert all("days from" not in reports[form].text for form in ("v1", "rgb", "s1"))
    rows = reports["v2"].rows
    days = (rows.s1_time - rows.s2_time).dt.total_seconds() / 86_400
    edges = np.arange(np.floor(days.min() * 2), np.floor(days.max() * 2) + 2) / 2
    counts, _ = np.histogram(days, edges)
    names = [f"{first:g} to {last:g}" for first, last in pairwise(edges)]
    assert reports["v2"].columns("Patches by days") == dict(zip(names, counts, strict=True))
    words = f"from {days.min():.1f} to {days.max():.1f} days after Sentinel-2, {days.median():.1f} days in the median"
    assert words.replace("-", "\N{MINUS SIGN}") in read_text(reports["v2"].section("when")).replace(
        "Sentinel-", "Sentinel\N{MINUS SIGN}"
    )


def test_snow_and_cloud_are_counted(report: Report) -> None:
    rows = report.rows
    tiles = report.tiles(report.section("snow"))
    assert tiles["Seasonal snow"] == str(rows.contains_seasonal_snow.sum())
    assert tiles["Cloud or shadow"] == str(rows.contains_cloud_or_shadow.sum())
    assert tiles["Clean"] == str((~rows.contains_seasonal_snow & ~rows.contains_cloud_or_shadow).sum())


def test_statistics_and_provenance_are_those_of_the_store(report: Report) -> None:
    attributes = report.attributes
    found = {band: values for band, *values in report.table("pixels", "statistics")}
    assert list(found) == list(attributes["statistics"])
    for band, values in found.items():
        known = (attributes["statistics"][band][key] for key in ("mean", "std", "min", "max"))
        expected = ["–" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:,.1f}" for x in known]
        assert [value.replace("\N{MINUS SIGN}", "-") for value in values] == expected
    zeros = report.rows.zero_pixels
    told = f"{(zeros > 0).sum()} patches have zeros" if (zeros > 0).any() else "No patch has a zero"
    assert (told in report.text) == zeros.notna().any()
    provenance = report.section("provenance")
    assert report.tree.findall(".//section")[0] is provenance
    words = read_text(provenance)
    for key in ("fingerprint", "dataset", "license", "citation", "converter_version"):
        assert attributes[key] in words
    options = attributes["options"]
    assert f"--codec {options['codec']} --shard-size {options['shard_size']} --bands {options['bands'][0]}" in words
    finished = pd.Timestamp((report.store / "manifest.json").stat().st_mtime, unit="s")
    assert f"Finished{finished:%Y-%m-%d %H:%M} UTC" in words.replace("Finished ", "Finished")
    assert "real: the archive bore no note" in words
    for array, row in zip(describe_store(report.store)["arrays"], report.table("arrays", "Pixels as"), strict=True):
        assert row[:4] == [
            array["name"],
            " × ".join(map(str, array["shape"])),
            array["dtype"],
            " ".join(array["bands"]),
        ]


def decode(image: Element) -> NDArray[Any]:
    kind, _, content = (image.get("src") or "").partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def test_pictures_are_those_of_the_patches_they_name(report: Report) -> None:
    images = list(report.tree.iter("img"))
    planes: dict[str, Any] = {}
    for name, array in zarr.open_group(report.store / "images.zarr", mode="r").arrays():
        if name in ARRAYS_V2:
            pixels = np.asarray(array[:])
            bands = pixels.swapaxes(0, 1) if pixels.ndim == 4 else [pixels]
            planes |= dict(zip(array.attrs["bands"], bands, strict=True))  # type: ignore[arg-type]

    def draw(kind: str, index: int) -> NDArray[Any]:
        return render_picture(kind, {band: plane[index] for band, plane in planes.items()}).astype(int)

    index_of = dict(zip(report.rows.patch_id, report.rows.index, strict=True))
    titles = {"true colour": "rgb", "near infrared": "false-colour", "Sentinel-1": "s1", "CORINE": "map"}
    assert len(images) >= 3
    for image in images:
        title, _, rest = (image.get("alt") or "").partition(" of patch ")
        name = rest.partition(",")[0]
        kind = next(kind for start, kind in titles.items() if title.startswith(start))
        shown = decode(image)
        off = [np.abs(shown - draw(kind, index)).mean() for index in range(len(report.rows))]
        # Noise loses much to WebP, but a picture of another patch is still further off.
        assert np.argmin(off) == index_of[name]
        assert kind != "map" or min(off) == 0
        labels = report.rows.loc[index_of[name], "labels"]
        assert (image.get("alt") or "").endswith(": " + "; ".join(labels))


def test_each_class_is_shown_by_patches_that_carry_it(report: Report) -> None:
    gallery = choose_gallery(report.store, LABELS_19)
    carriers = report.rows.labels_19.explode()
    assert list(gallery.of_class) == [name for name in LABELS_19 if name in set(carriers)]
    studio = Studio(report.store, read_layout(report.store, report.attributes))
    shown = [[read_text(one) for one in part] for part in report.section("gallery").findall("./div[@class='gallery']")]
    assert len(shown) == len(gallery.of_class)
    for (name, candidates), captions in zip(gallery.of_class.items(), shown, strict=True):
        able = set(carriers.index[carriers == name])
        clean = able & set(report.rows.index[report.rows.recommended])
        assert {one.index for one in candidates} == (clean or able)  # there are fewer than are looked at
        selected = studio.select(candidates)
        assert len({one.index for one in selected}) == len(captions) == min(len(candidates), 12)
        assert captions == [
            f"{one.country or ''} {(one.date or '')[:7]}".strip().replace("-", "\u2011") for one in selected
        ]


def test_candidates_come_from_every_country_and_season(store: Path, tmp_path: Path, monkeypatch: Any) -> None:
    rows = pd.DataFrame(pq.read_table(store / "patches.parquet").drop_columns("geometry").to_pylist())
    rows = rows[rows.recommended].explode("labels_19")
    monkeypatch.setattr("converter.report.gallery.N_CANDIDATES", 3)
    found = {name: len(of) for name, of in choose_gallery(store, LABELS_19).of_class.items()}
    assert max(found.values()) == 3
    for name, candidates in choose_gallery(store, LABELS_19).of_class.items():
        kinds = set(zip(*(rows[rows.labels_19 == name][key] for key in ("country", "season")), strict=True))
        drawn = {(one.country, one.season) for one in candidates}
        assert len(drawn) == min(len(kinds), 3)


def test_the_first_chosen_is_typical_and_every_other_the_farthest_of_all() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate(
        [mark_kinds(rng.integers(0, 4, 40).tolist(), 1.0), standardise(rng.normal(size=(40, 3)))], axis=1
    )
    chosen = choose_varied(features, 12)
    assert len(set(chosen)) == 12
    apart = np.linalg.norm(features[:, None] - features, axis=-1)
    centre = np.linalg.norm(features - features.mean(axis=0), axis=-1)
    assert centre[chosen[0]] == centre.min()
    for n in range(1, 12):
        assert apart[chosen[n], chosen[:n]].min() == pytest.approx(apart[:, chosen[:n]].min(axis=1).max())
    drawn = rng.choice(40, 12, replace=False).tolist()
    least = [apart[np.ix_(few, few)][~np.eye(12, dtype=bool)].min() for few in (chosen, drawn)]
    assert least[0] > least[1]


def test_two_kinds_are_as_far_apart_as_is_said_and_what_is_alike_is_taken_in_order() -> None:
    kinds = mark_kinds(["Finland", None, "Finland"], 0.7)
    assert np.linalg.norm(kinds[0] - kinds[1]) == pytest.approx(0.7)
    assert np.array_equal(kinds[0], kinds[2])
    assert np.array_equal(standardise(np.full((3, 2), 5.0)), np.zeros((3, 2)))
    assert choose_varied(np.zeros((3, 2)), 12) == [0, 1, 2]
    assert choose_varied(np.array([[0.0], [0.0], [9.0]]), 2) == [0, 2]


def test_a_flagged_patch_stands_beside_a_clean_one_of_its_place_or_country(
    report: Report, stores: dict[str, Path], tmp_path: Path
) -> None:
    rows = report.rows
    flags = {"snowy": rows.contains_seasonal_snow, "cloudy": rows.contains_cloud_or_shadow}
    gallery = choose_gallery(report.store, LABELS_19)
    for name, flag in flags.items():
        pairs = getattr(gallery, name)
        assert {pair.flagged.index for pair in pairs} <= set(rows.index[flag])
        assert len(pairs) == min(flag.sum(), 4)
        for pair in pairs:
            assert not any(found[pair.clean.index] for found in flags.values())
            clean = ~flags["snowy"] & ~flags["cloudy"]
            if (clean & (rows.country == pair.flagged.country)).any():
                assert pair.clean.country == pair.flagged.country


def test_the_same_place_is_preferred_to_the_same_country(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    copy.mkdir()
    (copy / "images.zarr").symlink_to(store / "images.zarr")
    table = pq.read_table(store / "patches.parquet")
    rows = table.to_pylist()
    (snowy,) = (row for row in rows if row["contains_seasonal_snow"])
    other = next(row for row in rows if row["recommended"] and row["country"] != snowy["country"])
    other |= {name: snowy[name] for name in ("epsg", "x_ul", "y_ul")}
    pq.write_table(table.from_pylist(rows, table.schema), copy / "patches.parquet")
    shutil.copy(store / "manifest.json", copy)
    seal_again(copy)
    (pair,) = choose_gallery(copy, LABELS_19).snowy
    assert pair.same_place
    assert pair.clean is not None
    assert pair.clean.patch_id == other["patch_id"]


def test_histograms_count_the_pixels_of_the_sample(report: Report) -> None:
    layout = read_layout(report.store, report.attributes)
    sample = draw_sample(report.store, 3)
    train = report.rows[report.rows.recommended & (report.rows.split == "train")]
    candidates = train if len(train) else report.rows
    assert sample.is_train == bool(len(train))
    assert sample.n_candidates == len(candidates)
    assert set(sample.indices) <= set(candidates.index)
    assert len(sample.indices) == min(3, len(candidates))
    calls: list[tuple[int, int]] = []
    survey = survey_pixels(
        report.store, layout, report.attributes["statistics"], sample, lambda *done: calls.append(done)
    )
    n_reads = 3 * len(layout.groups)
    assert calls == [(n + 1, n_reads) for n in range(n_reads)]
    found = {histogram.band: histogram for histogram in survey.histograms}
    assert list(found) == [band for band in layout.bands if band != "reference_map"]
    for group in layout.groups:
        pixels = np.asarray(zarr.open_array(report.store / "images.zarr" / group.name, mode="r"))[list(sample.indices)]
        if group.sensor == "map":
            shares = {code: n / pixels.size for code, n in Counter(pixels.ravel().tolist()).items()}
            assert {cover.code: cover.share for cover in survey.cover} == pytest.approx(shares)
            continue
        for band, values in zip(group.bands, pixels.swapaxes(0, 1), strict=True):
            histogram = found[band]
            edges = np.linspace(histogram.first, histogram.last, len(histogram.counts) + 1)
            assert np.array_equal(histogram.counts, np.histogram(values, edges)[0])
            assert histogram.n_pixels == values.size
            assert histogram.counts.sum() >= 0.995 * values.size
            assert histogram.mean == report.attributes["statistics"][band]["mean"]


def test_footprints_are_counted_in_the_nearest_hexagon_of_an_equal_area_grid(report: Report) -> None:
    boxes = pd.DataFrame(report.rows.bbox.tolist())
    laea = pyproj.Proj("+proj=laea +lat_0=52 +lon_0=10 +R=6371000")
    x, y = laea((boxes.xmin + boxes.xmax) / 2, (boxes.ymin + boxes.ymax) / 2)
    points = np.stack([x, y], axis=-1) / 1_000
    found = count_footprints(report.store)
    apart = np.linalg.norm(points[:, None] - found.centres, axis=-1)
    assert apart.min(axis=1).max() <= found.cell_km / np.sqrt(3) + 1e-6
    nearest = np.bincount(apart.argmin(axis=1), minlength=len(found.centres))
    assert np.array_equal(nearest, found.counts)
    assert found.counts.sum() == len(report.rows)
    for country, (west, south, east, north) in found.countries.items():
        inside = points[report.rows.country == country]
        assert (west, south, east, north) == pytest.approx((*inside.min(axis=0), *inside.max(axis=0)))


def test_the_map_has_every_hexagon_once_and_every_country_inside(report: Report) -> None:
    footprints = count_footprints(report.store)
    drawn = draw_map(footprints)
    assert sum(step.path.count("M") for step in drawn.steps) == len(footprints.counts)
    for step in drawn.steps:
        assert step.path.count("M") == ((footprints.counts >= step.least) & (footprints.counts <= step.most)).sum()
    assert {text.text for text in drawn.names} == set(footprints.countries)
    assert all(0 < text.x < WIDTH and 0 < text.y < drawn.height for text in drawn.names)


def test_a_table_of_every_published_patch_is_counted_and_shown(store: Path, tmp_path: Path) -> None:
    rows = enlarge_table(store, tmp_path, 590_326)
    metadata = json.loads((store / "images.zarr" / "zarr.json").read_text())
    metadata["attributes"]["splits"] = count_splits(rows.filter(rows["recommended"])["split"].to_pylist())
    for node in metadata["consolidated_metadata"]["metadata"].values():
        node["shape"] = [590_326 if length == 22 else length for length in node["shape"]]
    (tmp_path / "images.zarr").mkdir()
    (tmp_path / "images.zarr" / "zarr.json").write_text(json.dumps(metadata))
    shutil.copy(store / "manifest.json", tmp_path)
    seal_again(tmp_path)
    assert pq.read_schema(tmp_path / "patches.parquet").equals(pq.read_schema(store / "patches.parquet"))
    attributes = dict(zarr.open_group(store / "images.zarr", mode="r").attrs)
    assert take_census(tmp_path, attributes).n_patches == 590_326
    assert count_footprints(tmp_path).counts.sum() == 590_326
    assert max(draw_sample(tmp_path, 256).indices) > 200_000
    assert len(select_patches(tmp_path, n=5)) == 5
    gallery = choose_gallery(tmp_path, LABELS_19)
    assert len(gallery.snowy) == len(gallery.cloudy) == 4
    assert all(pair.clean for pair in (*gallery.snowy, *gallery.cloudy))
    assert {len(candidates) for candidates in gallery.of_class.values()} == {N_CANDIDATES}


def test_a_part_names_its_whole_and_what_was_chosen_but_not_where_that_lay(store: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    stage(store, part, StageOptions(splits=("train",), where=("country <> '<b>'",)))
    write_report(part, tmp_path / "page.html", ReportOptions(sample=1))
    report = Report(part, tmp_path / "page.html")
    words = read_text(report.section("provenance"))
    assert report.attributes["part_of"]["whole"] in words
    assert "train" in words
    assert "country <> '<b>'" in words
    assert str(store) not in report.text


def test_names_are_text_and_never_markup(reports: dict[str, Report]) -> None:
    report = reports["rgb"]
    assert set(report.rows.country) == {HOSTILE}
    assert "<script" not in report.text
    assert report.table("where", "Patches by country")[0][0] == HOSTILE


def test_the_same_store_gives_the_same_page_and_another_seed_another(
    reports: dict[str, Report], tmp_path: Path
) -> None:
    store = reports["rgb"].store
    write_report(store, tmp_path / "again.html", ReportOptions(sample=8))
    assert (tmp_path / "again.html").read_bytes() == reports["rgb"].path.read_bytes()
    write_report(store, tmp_path / "other.html", ReportOptions(sample=8, seed=1))
    assert (tmp_path / "other.html").read_bytes() != reports["rgb"].path.read_bytes()


def test_a_page_is_not_replaced_unless_that_is_said(stores: dict[str, Path], tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "s1").symlink_to(stores["s1"])
    store, page = tmp_path / "s1", tmp_path / "s1-report.html"
    assert name_report(store) == page
    assert run_cli("report", store, "--sample", "1").out == f"Wrote {page}\n"
    page.write_text("mine")
    assert "already there; replace it with the option overwrite" in run_cli("report", store).error
    assert page.read_text() == "mine"
    assert run_cli("report", store, "--overwrite", "--sample", "1").code == 0
    assert "BigEarthNet v1.0" in page.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"s1", "s1-report.html"}


def test_what_is_no_store_or_no_place_for_a_page_is_a_clear_error(stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a finished store"):
        write_report(tmp_path, tmp_path / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(stores["s1"], tmp_path / "file" / "page.html", ReportOptions(sample=1))
    with pytest.raises(OptionError, match="sample of at least one"):
        ReportOptions(sample=0)


def test_a_table_of_other_images_is_refused(stores: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "images.zarr").symlink_to(stores["s1"] / "images.zarr")
    (tmp_path / "patches.parquet").symlink_to(stores["v2"] / "patches.parquet")
    shutil.copy(stores["s1"] / "manifest.json", tmp_path)
    with pytest.raises(StoreError, match=r"patches\.parquet: its bytes are not those that were written"):
        write_report(tmp_path, tmp_path / "page.html")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_browser_shows_the_page_without_fault(report: Report, width: int, visit: Visitor) -> None:
    visited = visit(report.path, width=width)
    assert visited.list_faults() == []
    assert not visited.page.query_selector("script")
    broken = "links => links.filter(one => !document.querySelector(one.getAttribute('href'))).length"
    assert visited.page.eval_on_selector_all("nav a", broken) == 0


@pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False), (PHONE, True)])
def test_the_page_keeps_nobody_out(reports: dict[str, Report], visit: Visitor, width: int, dark: bool) -> None:
    assert visit(reports["v2"].path, width=width, dark=dark).list_barriers() == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_shade_of_the_table_can_be_read(reports: dict[str, Report], visit: Visitor, dark: bool) -> None:
    opened = visit(reports["v2"].path, dark=dark)
    assert opened.measure_contrast(".matrix tbody td:not(.same)", "--v", [n / 20 for n in range(21)]) > 4.5


def test_the_page_fits_on_paper_in_light_colours_and_tears_nothing(reports: dict[str, Report], visit: Visitor) -> None:
    page = visit(reports["v2"].path, width=A4, dark=True).page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".pair").count() > 0
    for kept in ("figure", ".pairs", ".gallery", ".strip", ".map", "#inside", "#together"):
        breaks = page.eval_on_selector_all(kept, "all => all.map(one => getComputedStyle(one).breakInside)")
        assert set(breaks) == {"avoid"}, kept
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_dark_mode_has_other_colours_and_enough_contrast(reports: dict[str, Report], visit: Visitor) -> None:
    colours = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
    seen = {}
    for dark in (False, True):
        page = visit(reports["v2"].path, dark=dark).page
        seen[dark] = [_luminance(text) for text in page.eval_on_selector("body", colours)]
    (light_back, light_ink), (dark_back, dark_ink) = seen[False], seen[True]
    # WCAG 2 asks for 7 at its highest level.
    assert (light_back + 0.05) / (light_ink + 0.05) > 7
    assert (dark_ink + 0.05) / (dark_back + 0.05) > 7


def _luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)`, by the formula of WCAG 2."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
