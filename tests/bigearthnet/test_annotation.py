"""Reading the JSON of a patch: true ones as they are, and whatever else lies there as one clear error."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet.archive.annotation import read_annotation
from bigearthnet.archive.records import Annotation
from bigearthnet.errors import PatchError
from tests.archives import Archive

NAME = "S2A_MSIL2A_20170613T101031_87_48"
FILE = f"{NAME}_labels_metadata.json"


def read(folder: Path, content: bytes | str | dict[str, Any]) -> Annotation:
    data = json.dumps(content) if isinstance(content, dict) else content
    (folder / FILE).write_bytes(data.encode() if isinstance(data, str) else data)
    return read_annotation(NAME, str(folder), FILE)


def refuse(folder: Path, content: bytes | str | dict[str, Any]) -> str:
    with pytest.raises(PatchError) as raised:
        read(folder, content)
    assert (raised.value.patch_id, raised.value.file) == (NAME, FILE)
    return raised.value.reason


@pytest.fixture
def note(real: Archive) -> dict[str, Any]:
    return real.read_note(NAME)


def test_a_real_annotation_is_read_as_it_is(note: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, note)
    assert (
        list(found.labels)
        == note["labels"]
        == [
            *("Non-irrigated arable land", "Pastures", "Complex cultivation patterns"),
        ]
        or list(found.labels) == note["labels"]
    )
    assert (found.epsg, found.x_ul, found.y_ul) == (32633, 404_400.0, 5_342_400.0)
    assert (found.time, found.tile) == ("2017-06-13 10:10:31", "33UUP")
    assert found.partner is None


def test_keys_that_are_not_needed_are_tolerated(note: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, note | {"extra": {"deep": [1, None, {}]}, "": math.pi}) == read(tmp_path, note)


def test_the_order_of_labels_is_kept(note: dict[str, Any], tmp_path: Path) -> None:
    labels = ["Sea and ocean", "Airports", "Pastures"]
    assert read(tmp_path, note | {"labels": labels}).labels == tuple(labels)


def test_a_missing_tile_is_no_error(note: dict[str, Any], tmp_path: Path) -> None:
    for tile_source in (None, "", "somewhere", 7, "S2A_T33UUP"):
        assert read(tmp_path, note | {"tile_source": tile_source}).tile is None
    del note["tile_source"]
    assert read(tmp_path, note).tile is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", r"expected JSON, found 0 bytes"),
        ("{", r"expected JSON, found 1 bytes"),
        ('{"labels": ["Pastures"]', r"expected JSON, found 23 bytes"),
        (b"\xff\xfe{\x00}\x00", r"expected JSON, found 6 bytes"),
        (b"\xef\xbb\xbf{}", r"expected JSON, found 5 bytes"),
        ("[]", r"expected a JSON object, found a list"),
        ("null", r"expected a JSON object, found a NoneType"),
        ('"text"', r"expected a JSON object, found a str"),
        ("12", r"expected a JSON object, found a int"),
        ('{"a": 1, "a": 2}', r"a key occurs twice"),
        ('{"a": {"b": 1, "b": 1}}', r"a key occurs twice"),
        ('{"a": NaN}', r"NaN is not JSON"),
        ('{"a": -Infinity}', r"-Infinity is not JSON"),
        ("[" * 60_000, r"expected JSON, found 60,000 bytes"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, r"expected JSON, found 60,001 bytes"),
        ('{"a": ' + "9" * 5_000 + "}", r"expected JSON, found 5,007 bytes"),
        (" " * 65_537, r"expected about 1,200 bytes of JSON, found more than 65,536"),
        ("{}", r"expected 'labels' to be a list of class names, found None"),
    ],
    ids=range(18),
)
def test_what_is_not_the_expected_json_is_refused(content: bytes | str, reason: str, tmp_path: Path) -> None:
    assert reason in refuse(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": []}, "expected 'labels' to be a list of class names, found []"),
        ({"labels": "Pastures"}, "expected 'labels' to be a list of class names, found 'Pastures'"),
        ({"labels": {"Pastures": 1}}, "expected 'labels' to be a list of class names"),
        ({"labels": ["Pastures", 3]}, "expected 'labels' to be a list of class names"),
        ({"labels": [["Pastures"]]}, "expected 'labels' to be a list of class names"),
        (
            {"labels": ["Pastures", "Unicorn meadows"]},
            "expected labels of the 43-class nomenclature, found ['Unicorn meadows']",
        ),
        ({"labels": ["Pastures", "Pastures"]}, "expected each label once, found ['Pastures', 'Pastures']"),
        ({"labels": ["pastures"]}, "expected labels of the 43-class nomenclature, found ['pastures']"),
        (
            {"labels": ["Transitional woodland, shrub"]},
            "expected labels of the 43-class nomenclature, found ['Transitional woodland, shrub']",
        ),
        ({"coordinates": None}, "expected 'coordinates' to be an object, found None"),
        ({"coordinates": [1, 2, 3, 4]}, "expected 'coordinates' to be an object, found [1, 2, 3, 4]"),
        ({"coordinates": {}}, "expected 'coordinates' to hold ulx, uly, lrx and lry in metres, found {}"),
        (
            {"coordinates": {"ulx": "404400", "uly": 5342400, "lrx": 405600, "lry": 5341200}},
            "expected 'coordinates' to hold ulx, uly, lrx and lry in metres, found {'ulx': '404400'",
        ),
        (
            {"coordinates": {"ulx": True, "uly": 5342400, "lrx": 1201, "lry": 5341200}},
            "expected 'coordinates' to hold ulx, uly, lrx and lry in metres",
        ),
        (
            {"coordinates": {"ulx": 10**300, "uly": 5342400, "lrx": 10**300, "lry": 5341200}},
            "expected 'coordinates' to hold ulx, uly, lrx and lry in metres",
        ),
        (
            {"coordinates": {"ulx": 404400, "uly": 5342400, "lrx": 405600, "lry": 5341210}},
            "expected corners 1,200 m apart, found 1,200 by 1,190",
        ),
        (
            {"coordinates": {"ulx": 404400, "uly": 5341200, "lrx": 405600, "lry": 5342400}},
            "expected corners 1,200 m apart, found 1,200 by -1,200",
        ),
        ({"projection": None}, "expected 'projection' to be WKT with an EPSG code, found None"),
        ({"projection": "EPSG:32633"}, "expected 'projection' to be WKT with an EPSG code, found 'EPSG:32633'"),
        ({"projection": 'x,AUTHORITY["EPSG","٣٢٦٣٣"]]'}, "expected 'projection' to be WKT with an EPSG code"),
        ({"projection": 32633}, "expected 'projection' to be WKT with an EPSG code, found 32633"),
        ({"acquisition_date": None}, "to be YYYY-MM-DD HH:MM:SS, found None"),
        ({"acquisition_date": "2017-06-13"}, "to be YYYY-MM-DD HH:MM:SS, found '2017-06-13'"),
        ({"acquisition_date": "2017-13-13 10:10:31"}, "found '2017-13-13 10:10:31'"),
        ({"acquisition_date": "2017-06-13 10:10:61"}, "found '2017-06-13 10:10:61'"),
        ({"acquisition_date": "2017-06-13 10:10:31Z"}, "found '2017-06-13 10:10:31Z'"),
        ({"acquisition_date": "٢٠١٧-٠٦-١٣ ١٠:١٠:٣١"}, "to be YYYY-MM-DD HH:MM:SS, found"),
        ({"acquisition_date": 1497348631}, "found 1497348631"),
    ],
    ids=range(28),
)
def test_a_value_that_is_not_what_it_must_be_is_refused(
    note: dict[str, Any], change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert reason in refuse(tmp_path, note | change)


def test_a_long_value_does_not_flood_the_message(note: dict[str, Any], tmp_path: Path) -> None:
    assert len(refuse(tmp_path, note | {"labels": ["x" * 10_000]})) < 300
    assert len(refuse(tmp_path, note | {"projection": "x" * 10_000})) < 300
    assert len(refuse(tmp_path, note | {"acquisition_date": "x" * 10_000})) < 300
    assert len(refuse(tmp_path, note | {"coordinates": {"x" * 10_000: 1}})) < 300


def test_the_code_of_the_whole_crs_counts_not_that_of_a_part_of_it(note: dict[str, Any], tmp_path: Path) -> None:
    projection = note["projection"]
    assert 'AUTHORITY["EPSG","4326"]' in projection
    whole, _, _ = projection.rpartition(',AUTHORITY["EPSG"')
    assert "expected 'projection' to be WKT with an EPSG code" in refuse(tmp_path, note | {"projection": f"{whole}]"})


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused_and_hangs_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        (tmp_path / FILE).mkdir()
    elif kind == "fifo":
        os.mkfifo(tmp_path / FILE)
    with pytest.raises(PatchError) as raised:
        read_annotation(NAME, str(tmp_path), FILE)
    expected = {"missing": "the file is missing", "folder": "cannot be read", "fifo": "expected JSON, found 0 bytes"}
    assert expected[kind] in raised.value.reason


# -- Fuzz ------------------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def try_to_read(folder: Path, data: bytes) -> tuple[Annotation | None, PatchError | None]:
    try:
        return read(folder, data), None
    except PatchError as error:
        return None, error


def check(folder: Path, data: bytes) -> None:
    """Read anything: it is refused, or it is an annotation all of whose values are what they must be."""
    found, refused = try_to_read(folder, data)
    if refused is not None:
        assert refused.reason
        assert len(refused.reason) < 600
        assert str(refused).encode()
    if found is None:
        return
    content = json.loads(data)
    assert list(found.labels) == content["labels"]
    assert (found.x_ul, found.y_ul) == (content["coordinates"]["ulx"], content["coordinates"]["uly"])
    assert all(map(math.isfinite, (found.x_ul, found.y_ul)))
    assert str(found.epsg) in content["projection"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(folder: Path, data: bytes) -> None:
    check(folder, data)


@settings(max_examples=200)
@given(st.data())
def test_a_real_annotation_with_bytes_changed_is_refused_or_true_to_the_file(
    real: Archive, folder: Path, data: st.DataObject
) -> None:
    changed = bytearray(real.note(NAME).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    check(folder, bytes(changed))


@settings(max_examples=300)
@given(st.data())
def test_a_real_annotation_with_values_replaced_is_refused_or_true_to_the_file(
    real: Archive, folder: Path, data: st.DataObject
) -> None:
    content = real.read_note(NAME)
    target = data.draw(st.sampled_from([content, content["coordinates"]]))
    key = data.draw(st.sampled_from([*target, "corresponding_s2_patch", "acquisition_time"]))
    target[key] = data.draw(JSON_VALUES | st.sampled_from([1e400, -0.0, 5342400.5, 10**400, "\ud800"]))
    check(folder, json.dumps(content).encode())
