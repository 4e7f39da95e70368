"""The facts of BigEarthNet, against the tables that its authors publish."""

from __future__ import annotations

import pytest
from bigearthnet_common.constants import NEW_LABELS, OLD2NEW_LABELS_DICT, OLD_LABELS
from hypothesis import given
from hypothesis import strategies as st

from bigearthnet.bands import choose_groups
from bigearthnet.errors import OptionError
from bigearthnet.labels import LABEL_19_OF_43, LABELS_19, LABELS_43, to_labels_19
from bigearthnet.names import annotation_file, band_file, parse_patch_name
from tests.archives import ARRAYS, BANDS


def test_the_classes_are_those_that_the_authors_publish() -> None:
    assert (len(LABELS_43), len(LABELS_19)) == (43, 19)
    assert set(LABELS_43) == set(OLD_LABELS)
    assert set(LABELS_19) == set(NEW_LABELS)
    assert LABEL_19_OF_43 == OLD2NEW_LABELS_DICT
    assert sum(label is None for label in LABEL_19_OF_43.values()) == 11


def test_the_classes_are_in_corine_order() -> None:
    assert (LABELS_43[0], LABELS_43[-1]) == ("Continuous urban fabric", "Sea and ocean")
    assert LABELS_19 == (
        "Urban fabric",
        "Industrial or commercial units",
        "Arable land",
        "Permanent crops",
        "Pastures",
        "Complex cultivation patterns",
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Agro-forestry areas",
        "Broad-leaved forest",
        "Coniferous forest",
        "Mixed forest",
        "Natural grassland and sparsely vegetated areas",
        "Moors, heathland and sclerophyllous vegetation",
        "Transitional woodland, shrub",
        "Beaches, dunes, sands",
        "Inland wetlands",
        "Coastal wetlands",
        "Inland waters",
        "Marine waters",
    )


@given(st.lists(st.sampled_from(LABELS_43)))
def test_labels_translate_without_repeats_and_in_order(labels: list[str]) -> None:
    found = to_labels_19(tuple(labels))
    assert set(found) == {OLD2NEW_LABELS_DICT[label] for label in labels} - {None}
    assert list(found) == [label for label in LABELS_19 if label in found]


def test_files_are_named_after_their_patch() -> None:
    name = "S2A_MSIL2A_20170613T101031_87_48"
    assert band_file(name, "B8A") == f"{name}_B8A.tif"
    assert annotation_file(name) == f"{name}_labels_metadata.json"


def test_a_v1_name_tells_satellite_and_place_but_no_time() -> None:
    found = parse_patch_name("S2B_MSIL2A_20180204T94161_57_3")
    assert found is not None
    assert (found.sensor, found.dataset, found.satellite, found.column, found.row) == ("s2", "v1", "S2B", 57, 3)
    assert (found.tile, found.time) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "S2B_MSIL2A_20180204T94161_57_٣",
        "S2B_MSIL2A_２0180204T94161_57_3",
        "S2A_MSIL2A_20170613T101031_N9999_R022_T३३UUP_75_43",
        "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_𝟜𝟠",
        "S2B_MSIL2A_20180204T94161_57_3\n",
    ],
)
def test_a_name_with_other_digits_or_signs_is_none(name: str) -> None:
    assert parse_patch_name(name) is None


@pytest.mark.parametrize(
    ("name", "sensor", "dataset", "tile"),
    [
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43", "s2", "v2", "33UUP"),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", "s1", None, "33UUP"),
    ],
)
def test_other_names_tell_tile_and_time(name: str, sensor: str, dataset: str | None, tile: str) -> None:
    found = parse_patch_name(name)
    assert found is not None
    assert (found.sensor, found.dataset, found.tile) == (sensor, dataset, tile)
    assert found.time == ("2017-06-13 10:10:31" if sensor == "s2" else "2017-06-13 16:50:43")


def test_all_bands_make_the_arrays_of_the_format_in_native_order() -> None:
    groups = {group.name: group for group in choose_groups(["all"])}
    assert {name: groups[name].bands for name in ARRAYS} == ARRAYS
    for name, bands in ARRAYS.items():
        assert {groups[name].size for _ in bands} == {BANDS[band] for band in bands}
        assert groups[name].size * groups[name].pixel_m == 1_200


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (["rgb"], {"s2_10m": ("B02", "B03", "B04")}),
        (["B8A", "b11", "B02"], {"s2_10m": ("B02",), "s2_20m": ("B8A", "B11")}),
        (["60m", "B01"], {"s2_60m": ("B01", "B09")}),
        (["VH"], {"s1_10m": ("VH",)}),
    ],
)
def test_bands_are_chosen_by_name_or_set_and_keep_their_order(
    asked: list[str], stored: dict[str, tuple[str, ...]]
) -> None:
    assert {group.name: group.bands for group in choose_groups(asked)} == stored


@pytest.mark.parametrize("asked", [["B10"], ["rgb", "B13"], [""], []])
def test_unknown_bands_and_none_are_refused(asked: list[str]) -> None:
    with pytest.raises(OptionError, match=r"no band .*; choose from B02"):
        choose_groups(asked)
