"""What docs/queries.md asks is answered rightly: by plain Python over the rows, or by rasterio, GDAL and pyproj."""

from __future__ import annotations

import csv
import sqlite3
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio.warp
import shapely

from bigearthnet.labels import LABELS_19
from tests.documents import Block, find_blocks, find_commands
from tests.forms import official_lists
from tests.samples import N_PATCHES, Samples

BLOCKS = find_blocks("queries.md", "sql", "python")

Rows = list[dict[str, Any]]
Check = Callable[[Any, Rows, Samples], None]
CHECKS: dict[tuple[str, str, int], Check] = {}
"""The check of each block's answer, by heading, language and number."""


def checks(heading: str, language: str, number: int = 0) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[heading, language, number] = check
        return check

    return register


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_answer_is_right(block: Block, samples: Samples, in_samples: Path) -> None:
    for earlier in BLOCKS:
        if (earlier.heading, earlier.language) == (block.heading, block.language) and earlier.number < block.number:
            earlier.run()
    for written in ("footprints.gpkg", "patches-of-the-paper.csv"):
        if block.number == 0:
            (in_samples / written).unlink(missing_ok=True)
    CHECKS[block.heading, block.language, block.number](block.run(), samples.rows("sample-store"), samples)


def test_every_block_has_a_check_and_every_check_a_block() -> None:
    assert {(block.heading, block.language, block.number) for block in BLOCKS} == CHECKS.keys()
    assert len({block.heading for block in BLOCKS}) >= 15


def test_the_commands_make_every_store_that_is_asked(samples: Samples) -> None:
    made = {words[2] if words[1] == "sample" else words[3] for words in find_commands("queries.md")}
    assert made == {*N_PATCHES, "data/sample-store", "data/pairs-store", "data/v2-store"}
    for store in ("sample-store", "pairs-store", "v2-store"):
        assert any(f"data/{store}/" in block.code for block in BLOCKS)
        assert len(samples.rows(store)) >= 20


def recommended(rows: Rows, split: str | None = None) -> Rows:
    return [row for row in rows if row["recommended"] and split in (None, row["split"])]


def indices(rows: Rows) -> list[int]:
    assert rows, "the question must have an answer, or the check could not fail"
    return [row["index"] for row in rows]


# -- Which patches ---------------------------------------------------------------------------------------------------


@checks("Patches of a class in a country and season", "sql")
def check_class(answer: Any, rows: Rows, samples: Samples) -> None:
    found = [
        row
        for row in recommended(rows)
        if (row["country"], row["season"]) == ("Finland", "Summer") and "Coniferous forest" in row["labels_19"]
    ]
    assert answer.fetchall() == [(row["index"], row["patch_id"], row["labels_19"]) for row in found]
    assert indices(found)


@checks("Patches with all, or with any, of some classes", "sql")
def check_all_or_any(answer: Any, rows: Rows, samples: Samples) -> None:
    wanted = {"Mixed forest", "Inland waters"}
    expected = [
        (row["index"], wanted <= set(row["labels_19"])) for row in recommended(rows) if wanted & {*row["labels_19"]}
    ]
    assert answer.fetchall() == expected
    assert {both for _, both in expected} == {True, False}


def corners_of(row: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Compute the longitudes and latitudes of a patch's corners from its projected ones."""
    west, north = row["x_ul"], row["y_ul"]
    lon, lat = rasterio.warp.transform(
        f"EPSG:{row['epsg']}",
        "OGC:CRS84",
        [west, west, west + 1_200, west + 1_200],
        [north, north - 1_200, north - 1_200, north],
    )
    return lon, lat


def bounds_of(row: dict[str, Any]) -> tuple[float, float, float, float]:
    lon, lat = corners_of(row)
    return min(lon), min(lat), max(lon), max(lat)


@checks("Patches within a box", "sql")
def check_within_box(answer: Any, rows: Rows, samples: Samples) -> None:
    boxes = [(row, bounds_of(row)) for row in rows]
    found = [row for row, (w, s, e, n) in boxes if w >= 20 and e <= 26 and s >= 60 and n <= 63]
    assert answer.fetchall() == [(row["index"], row["patch_id"]) for row in found]
    assert 1 <= len(indices(found)) < len(rows)


@checks("Patches within a box", "python")
def check_touching_box(answer: Any, rows: Rows, samples: Samples) -> None:
    boxes = [(row, bounds_of(row)) for row in rows]
    found = [row for row, (w, s, e, n) in boxes if e >= 20 and w <= 26 and n >= 60 and s <= 63]
    assert answer["index"].tolist() == indices(found)


@checks("The nearest patches to a point, in metres", "python")
def check_nearest(answer: Any, rows: Rows, samples: Samples) -> None:
    """The shortest geodesic to a metre of each edge."""
    geod = pyproj.Geod(ellps="WGS84")
    metres = {}
    for row in rows:
        outline = shapely.get_coordinates(shapely.segmentize(shapely.from_wkb(row["geometry"]), 1e-5))
        start = np.broadcast_to([24.94, 60.17], outline.shape)
        metres[row["patch_id"]] = geod.inv(*start.T, *outline.T)[2].min()
    nearest = sorted(metres, key=lambda name: float(metres[name]))[:5]
    assert answer["patch_id"].tolist() == nearest
    np.testing.assert_allclose(answer["metres"], [metres[name] for name in nearest], atol=1, rtol=1e-4)


def places_of(rows: Rows) -> dict[tuple[str, int, int], Rows]:
    places = defaultdict(list)
    for row in rows:
        places[row["tile"], row["column"], row["row"]].append(row)
    return places


@checks("The same place in other seasons", "sql")
def check_revisits(answer: Any, rows: Rows, samples: Samples) -> None:
    found = {place: seen for place, seen in places_of(rows).items() if len(seen) > 1}
    assert answer.fetchall() == [
        (*place, [row["season"] for row in found[place]], [row["index"] for row in found[place]])
        for place in sorted(found)
    ]
    assert len(found) == 2


def test_as_many_places_were_seen_again_as_the_document_says() -> None:
    seasons = defaultdict(list)
    for name, pairing in official_lists().pairing_of.items():
        place = (pairing.s1_name.split("_")[-3], *name.split("_")[-2:])
        seasons[place].append(pairing.season)
    assert len(seasons) == 259_172
    assert sum(len(set(found)) > 1 for found in seasons.values()) == 160_740
    assert max(map(len, seasons.values())) == 4


@checks("Patches of some tiles, scene by scene", "sql")
def check_scenes(answer: Any, rows: Rows, samples: Samples) -> None:
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row["tile"] in ("35VPK", "34VDM", "29SND"):
            scene = counts[row["tile"], row["s2_time"].astimezone(UTC).date()]
            scene[0] += 1
            scene[1] += row["recommended"]
    expected = sorted((-n, *scene, n_recommended) for scene, (n, n_recommended) in counts.items())
    assert answer.fetchall() == [(tile, day, -n, n_recommended) for n, tile, day, n_recommended in expected]
    assert len(expected) > 3


@checks("A small draw, the same number from each country", "sql")
def check_draw(answer: Any, rows: Rows, samples: Samples) -> None:
    countries = sorted({row["country"] for row in recommended(rows, "train")})
    expected = [
        (row["index"], country)
        for country in countries
        for row in [row for row in recommended(rows, "train") if row["country"] == country][:3]
    ]
    assert answer.fetchall() == expected


# -- How many --------------------------------------------------------------------------------------------------------


@checks("Class balance of the splits", "python")
def check_balance(answer: Any, rows: Rows, samples: Samples) -> None:
    found = {row["labels_19"]: row for row in answer.to_dicts()}
    assert answer["train"].to_list() == sorted(answer["train"], reverse=True)
    assert found.keys() == {label for row in recommended(rows) for label in row["labels_19"]}
    for split in ("train", "validation", "test"):
        chosen = recommended(rows, split)
        for label, shares in found.items():
            assert shares[split] == pytest.approx(sum(label in row["labels_19"] for row in chosen) / len(chosen))


def pairs_in(rows: Rows) -> Counter[tuple[str, str]]:
    return Counter(pair for row in rows for pair in combinations(sorted(row["labels_19"]), 2))


@checks("Classes that occur together", "sql")
def check_pairs(answer: Any, rows: Rows, samples: Samples) -> None:
    expected = sorted((-n, *pair) for pair, n in pairs_in(recommended(rows)).items())
    assert answer.fetchall() == [(one, other, -n) for n, one, other in expected]


@checks("Classes that occur together", "python")
def check_matrix(answer: Any, rows: Rows, samples: Samples) -> None:
    pairs, alone = pairs_in(rows), Counter(label for row in rows for label in row["labels_19"])
    assert set(answer.index) == set(answer.columns) == set(alone)
    for one in alone:
        for other in alone:
            expected = alone[one] if one == other else pairs[min(one, other), max(one, other)]
            assert answer.loc[one, other] == expected


@checks("Labels per patch", "python")
def check_cardinality(answer: Any, rows: Rows, samples: Samples) -> None:
    expected = Counter((name, len(row[name])) for row in rows for name in ("labels", "labels_19"))
    assert answer.rows() == [(*key, expected[key]) for key in sorted(expected)]


@checks("Snow by country and season", "python")
def check_snow(answer: Any, rows: Rows, samples: Samples) -> None:
    groups = defaultdict(list)
    for row in rows:
        groups[row["country"], row["season"]].append(row["contains_seasonal_snow"])
    expected = {key: sum(snow) / len(snow) for key, snow in groups.items()}
    found = {(country, season): share for season in answer for country, share in answer[season].dropna().items()}
    assert found == pytest.approx(expected)
    assert any(0 < share < 1 for share in expected.values())


@checks("Patches a month", "python")
def check_months(answer: Any, rows: Rows, samples: Samples) -> None:
    expected = Counter(row["s2_time"].astimezone(UTC).isoformat()[:7] for row in rows)
    assert answer.rows() == sorted(expected.items())


@checks("The days between Sentinel-1 and Sentinel-2", "sql")
def check_days(answer: Any, rows: Rows, samples: Samples) -> None:
    days = [
        (row["s1_time"] - row["s2_time"]).total_seconds() / 86_400
        for row in samples.rows("pairs-store")
        if row["has_s1"]
    ]
    (found,) = answer.fetchall()
    assert found == pytest.approx(
        (min(days), statistics.median(days), max(days), sum(abs(n_days) > 1 for n_days in days))
    )
    assert min(days) < 0 < max(days)


@checks("What was left out, and why", "sql")
def check_rejects(answer: Any, rows: Rows, samples: Samples) -> None:
    ((patch_id, file, reason),) = answer.fetchall()
    assert patch_id not in {row["patch_id"] for row in rows}
    assert not (samples.v1.root / patch_id / file).exists()
    assert reason == "the file is missing"


# -- Splits ----------------------------------------------------------------------------------------------------------


@checks("How far test patches are from training patches", "python")
def check_distances(answer: Any, rows: Rows, samples: Samples) -> None:
    """Every test patch against every training patch, projected by GDAL."""

    def outline(row: dict[str, Any]) -> shapely.Polygon:
        return shapely.Polygon(np.transpose(rasterio.warp.transform("OGC:CRS84", "EPSG:3035", *corners_of(row))))

    train = np.array([outline(row) for row in recommended(rows, "train")])
    metres = [shapely.distance(train, outline(row)).min() for row in recommended(rows, "test")]
    expected = [len(metres), np.mean(metres), min(metres), np.median(metres), max(metres)]
    np.testing.assert_allclose(answer[["count", "mean", "min", "50%", "max"]], expected, atol=0.1)


@checks("Training patches of v1.0 that v2.0 tests on", "sql")
def check_versions(answer: Any, rows: Rows, samples: Samples) -> None:
    tested = {row["s2v1_name"]: row["patch_id"] for row in recommended(samples.rows("v2-store"), "test")}
    expected = [
        (row["patch_id"], tested[row["patch_id"]]) for row in recommended(rows, "train") if row["patch_id"] in tested
    ]
    assert answer.fetchall() == expected
    assert expected


# -- From rows to pixels ---------------------------------------------------------------------------------------------


@checks("Vegetation index by season", "python")
def check_vegetation(answer: Any, rows: Rows, samples: Samples) -> None:
    groups = defaultdict(list)
    for row in recommended(rows):
        if "Mixed forest" in row["labels_19"]:
            red, infrared = (samples.v1.read_band(row["patch_id"], band).astype(np.float64) for band in ("B04", "B08"))
            groups[row["season"]].append(np.mean((infrared - red) / (infrared + red)))
    assert answer.to_dict() == pytest.approx({season: np.mean(found) for season, found in groups.items()}, rel=1e-5)
    assert len(groups) > 1


@checks("From pixels to the table", "python")
def check_brightness(answer: Any, rows: Rows, samples: Samples) -> None:
    groups = defaultdict(list)
    for row in rows:
        pixels = samples.v1.read_band(row["patch_id"], "B11")
        groups[row["contains_seasonal_snow"]].append(pixels.mean() / 10_000)
    assert dict(answer.rows()) == pytest.approx({snow: np.mean(found) for snow, found in groups.items()})
    assert groups.keys() == {True, False}


@checks("Hectares of each CORINE class", "python")
def check_hectares(answer: Any, rows: Rows, samples: Samples) -> None:
    counts: Counter[int] = Counter()
    for row in samples.rows("v2-store"):
        counts.update(samples.read_array("v2-store", row, "reference_map").ravel().tolist())
    assert answer == pytest.approx({code: n * 0.01 for code, n in counts.items()})


@checks("Targets for scikit-learn", "python")
def check_targets(answer: Any, rows: Rows, samples: Samples) -> None:
    from sklearn.preprocessing import MultiLabelBinarizer

    expected = MultiLabelBinarizer(classes=LABELS_19).fit_transform([row["labels_19"] for row in rows])
    np.testing.assert_array_equal(answer, expected)


# -- Taking something along ------------------------------------------------------------------------------------------


def of_the_paper(rows: Rows) -> Rows:
    return [row for row in recommended(rows) if row["country"] in ("Austria", "Switzerland")]


@checks("The patches of a paper", "sql", 0)
def check_list(answer: Any, rows: Rows, samples: Samples) -> None:
    with open(samples.root / "patches-of-the-paper.csv") as file:
        found = list(csv.reader(file))
    assert found == [["patch_id", "split"], *sorted([row["patch_id"], row["split"]] for row in of_the_paper(rows))]


@checks("The patches of a paper", "sql", 1)
def check_list_back(answer: Any, rows: Rows, samples: Samples) -> None:
    assert [row[0] for row in answer.fetchall()] == indices(of_the_paper(rows))


@checks("Footprints for QGIS", "python")
def check_footprints(answer: Any, rows: Rows, samples: Samples) -> None:
    with sqlite3.connect(samples.root / "footprints.gpkg") as connection:
        found = connection.execute("select patch_id, tile, geom from footprints order by fid").fetchall()
        ((name,),) = connection.execute(
            "select srs_name from gpkg_geometry_columns join gpkg_spatial_ref_sys using (srs_id)"
        ).fetchall()
    connection.close()
    assert [row[:2] for row in found] == [(row["patch_id"], row["tile"]) for row in rows]
    header = 8 + 4 * 8  # GeoPackage's own, with an envelope
    assert [row[2][header:] for row in found] == [shapely.to_wkb(shapely.from_wkb(row["geometry"])) for row in rows]
    assert "84" in name
