"""Reading one band: the fast path and rasterio give the same bytes, and what a band is not is said plainly."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bigearthnet.archive.raster import read_band
from bigearthnet.archive.tiff import Georeference
from bigearthnet.bands import S1_10M, S2_10M, S2_20M, S2_60M, BandGroup
from bigearthnet.errors import PatchError
from tests.archives import ARRAYS, BANDS, Archive

GROUPS = {"s2_10m": S2_10M, "s2_20m": S2_20M, "s2_60m": S2_60M}
GROUP_OF = {band: GROUPS[array] for array, bands in ARRAYS.items() for band in bands}

NAME = "S2A_MSIL2A_20170613T101031_87_48"


@pytest.fixture
def raw(real: Archive, tmp_path: Path) -> Archive:
    """A copy of one real patch that may be damaged."""
    return real.copy(tmp_path / "raw", [NAME])


def read(
    archive: Archive, name: str, band: str, group: BandGroup | None = None, *, plain: bool = True
) -> tuple[NDArray[Any], Georeference]:
    group = group or GROUP_OF[band]
    out = np.full((group.size, group.size), 77, group.dtype)
    place = read_band(name, str(archive.folder(name)), f"{name}_{band}.tif", group, out, plain=plain)
    return out, place


def refuse(archive: Archive, band: str, group: BandGroup | None = None) -> str:
    """Return why a band cannot be read: the same for both ways of reading it."""
    reasons = set()
    for plain in (True, False):
        with pytest.raises(PatchError) as raised:
            read(archive, NAME, band, group, plain=plain)
        assert (raised.value.patch_id, raised.value.file) == (NAME, f"{NAME}_{band}.tif")
        reasons.add(raised.value.reason)
    (reason,) = reasons
    return reason


@pytest.fixture
def no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every import of rasterio fail."""
    monkeypatch.setitem(sys.modules, "rasterio", None)


def test_both_ways_read_every_real_band_as_rasterio_does(real: Archive) -> None:
    for name in real.names:
        corner = real.read_note(name)["coordinates"]
        for band in BANDS:
            expected = real.read_band(name, band)
            for plain in (True, False):
                pixels, place = read(real, name, band, plain=plain)
                assert pixels.dtype == expected.dtype
                np.testing.assert_array_equal(pixels, expected)
                assert (place.x_ul, place.y_ul) == (corner["ulx"], corner["uly"])
                assert place.pixel_m == GROUP_OF[band].pixel_m
                assert place.nodata is None
            with rasterio.open(real.tif(name, band)) as source:
                assert place.epsg == source.crs.to_epsg()


@pytest.mark.usefixtures("no_rasterio")
def test_plain_files_are_read_without_rasterio(raw: Archive) -> None:
    for band in BANDS:
        pixels, _ = read(raw, NAME, band)
        assert raw.tif(NAME, band).read_bytes().endswith(pixels.tobytes())
        with pytest.raises(ImportError):
            read(raw, NAME, band, plain=False)


KINDS: list[dict[str, Any]] = [
    {"compress": "deflate"},
    {"compress": "deflate", "predictor": 2},
    {"compress": "lzw", "predictor": 2},
    {"compress": "zstd"},
    {"compress": "packbits"},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "lzw"},
    {"ENDIANNESS": "BIG"},
    {"ENDIANNESS": "BIG", "compress": "deflate", "predictor": 2},
    {"BIGTIFF": "YES"},
    {"BIGTIFF": "YES", "ENDIANNESS": "BIG", "tiled": True, "blockxsize": 32, "blockysize": 32},
    {"blockysize": 7},
    {"photometric": "MINISWHITE"},
    {"nodata": 0},
    {"SPARSE_OK": True},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(f"{key}={value}" for key, value in kind.items()))
def test_any_legal_geotiff_gives_the_same_pixels_and_place(raw: Archive, kind: dict[str, Any]) -> None:
    for band in ("B02", "B8A", "B01"):
        before, place = read(raw, NAME, band)
        raw.rewrite_tif(NAME, band, **kind)
        for plain in (True, False):
            after, found = read(raw, NAME, band, plain=plain)
            np.testing.assert_array_equal(after, before)
            assert (found.epsg, found.x_ul, found.y_ul) == (place.epsg, place.x_ul, place.y_ul)
            assert found.nodata == kind.get("nodata")


@pytest.mark.parametrize(
    "kind",
    [{"compress": "lzw"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"ENDIANNESS": "BIG"}],
    ids=str,
)
@pytest.mark.usefixtures("no_rasterio")
def test_other_files_are_left_to_rasterio(raw: Archive, kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    raw.rewrite_tif(NAME, "B02", **kind)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError):
        read(raw, NAME, "B02")


def test_float32_keeps_every_bit_of_infinities_and_nans(raw: Archive) -> None:
    pixels = np.random.default_rng(0).normal(-15, 10, (120, 120)).astype("float32")
    pixels[0, :4] = np.inf, -np.inf, np.nan, -0.0
    pixels.view("uint32")[1, 0] = 0x7FC0_BEEF
    for kind in ({}, {"compress": "deflate", "predictor": 3}):
        raw.rewrite_tif(NAME, "B02", pixels, **kind)
        for plain in (True, False):
            found, _ = read(raw, NAME, "B02", S1_10M, plain=plain)
            assert found.tobytes() == pixels.tobytes()


def test_extreme_values_are_kept(raw: Archive) -> None:
    pixels = np.zeros((120, 120), "uint16")
    pixels[0, :3] = 65_535, 32_768, 1
    for kind in ({}, {"nodata": 0}, {"compress": "lzw"}):
        raw.rewrite_tif(NAME, "B02", pixels, **kind)
        np.testing.assert_array_equal(read(raw, NAME, "B02")[0], pixels)


def test_files_beside_a_tif_do_not_change_what_it_says(raw: Archive) -> None:
    before, place = read(raw, NAME, "B02")
    raw.rewrite_tif(NAME, "B02", compress="deflate")
    path = raw.tif(NAME, "B02")
    path.with_suffix(".tfw").write_text("99\n0\n0\n-99\n0\n0\n")
    Path(f"{path}.aux.xml").write_text(
        "<PAMDataset><GeoTransform>0,99,0,0,0,-99</GeoTransform>"
        '<PAMRasterBand band="1"><NoDataValue>5</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    after, found = read(raw, NAME, "B02")
    np.testing.assert_array_equal(after, before)
    assert found == place


# -- What a band is not ----------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(raw: Archive) -> None:
    raw.tif(NAME, "B02").unlink()
    assert refuse(raw, "B02") == "the file is missing"


@pytest.mark.parametrize("kept", [0, 1, 8, 100, 392, 10_000, 29_191])
def test_a_truncated_file_is_refused_wherever_it_is_cut(raw: Archive, kept: int) -> None:
    path = raw.tif(NAME, "B02")
    path.write_bytes(path.read_bytes()[:kept])
    reason = refuse(raw, "B02")
    assert reason.startswith("expected a GeoTIFF of 120 x 120 uint16 pixels of 10 m")
    assert f"found {kept:,} bytes that cannot be read as one" in reason
    assert "extract it again" in reason


def test_a_truncated_compressed_file_is_refused(raw: Archive) -> None:
    raw.rewrite_tif(NAME, "B02", compress="deflate")
    path = raw.tif(NAME, "B02")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"found {len(content) // 2:,} bytes that cannot be read as one" in refuse(raw, "B02")


@pytest.mark.parametrize(
    ("pixels", "profile", "found"),
    [
        (np.zeros((60, 60), "uint16"), {}, "found 1 band(s) of 60 x 60 uint16"),
        (np.zeros((120, 119), "uint16"), {}, "found 1 band(s) of 119 x 120 uint16"),
        (np.zeros((121, 120), "uint16"), {"compress": "lzw"}, "found 1 band(s) of 120 x 121 uint16"),
        (np.zeros((120, 120), "float32"), {}, "found 1 band(s) of 120 x 120 float32"),
        (np.zeros((120, 120), "int16"), {}, "found 1 band(s) of 120 x 120 int16"),
        (np.zeros((120, 120), "uint8"), {}, "found 1 band(s) of 120 x 120 uint8"),
        (np.zeros((120, 120), "uint32"), {}, "found 1 band(s) of 120 x 120 uint32"),
    ],
    ids=str,
)
def test_another_size_or_type_is_refused(
    raw: Archive, pixels: NDArray[Any], profile: dict[str, Any], found: str
) -> None:
    raw.rewrite_tif(NAME, "B02", pixels, **profile)
    assert refuse(raw, "B02") == f"expected a GeoTIFF of 120 x 120 uint16 pixels of 10 m, {found}"


def test_several_bands_in_one_file_are_refused(raw: Archive) -> None:
    path = raw.tif(NAME, "B02")
    with rasterio.open(path) as source:
        profile = source.profile | {"count": 2}
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.zeros((2, 120, 120), "uint16"))
    assert refuse(raw, "B02").endswith("found 2 band(s) of 120 x 120 uint16")


@pytest.mark.parametrize(
    "transform",
    [(20, 0, 0, 0, -20, 0), (10, 0, 0, 0, 10, 0), (10, 0, 0, 0, -20, 0), (10, 1, 0, 0, -10, 0), (0, 10, 0, 10, 0, 0)],
    ids=str,
)
def test_pixels_of_another_size_or_direction_are_refused(raw: Archive, transform: tuple[float, ...]) -> None:
    raw.rewrite_tif(NAME, "B02", transform=rasterio.Affine(*transform))
    assert "pixels of 10 m, north up; found the transform" in refuse(raw, "B02")


def test_a_raster_without_a_place_is_refused(raw: Archive) -> None:
    raw.rewrite_tif(NAME, "B02", crs=None)
    assert "in a CRS with an EPSG code, found None" in refuse(raw, "B02")


def test_an_epsg_code_that_does_not_exist_is_refused(raw: Archive) -> None:
    """Taken as it lies, it would only be found out when outlines are computed, after the last shard."""
    path = raw.tif(NAME, "B02")
    content, key = path.read_bytes(), struct.pack("<4H", 3072, 0, 1, 32633)
    assert content.count(key) == 1
    path.write_bytes(content.replace(key, struct.pack("<4H", 3072, 0, 1, 9999)))
    assert "in a CRS with an EPSG code, found" in refuse(raw, "B02")


def test_a_crs_without_an_epsg_code_is_refused(raw: Archive) -> None:
    raw.rewrite_tif(NAME, "B02", crs="+proj=tmerc +lat_0=1 +lon_0=17.3 +ellps=GRS80 +units=m")
    assert "in a CRS with an EPSG code, found" in refuse(raw, "B02")


@pytest.mark.parametrize("content", [b"", b"not a tif", b"\0" * 30_000, b"\x89PNG\r\n\x1a\n" + b"\0" * 40_000])
def test_what_is_no_tif_is_refused(raw: Archive, content: bytes) -> None:
    raw.tif(NAME, "B02").write_bytes(content)
    assert f"found {len(content):,} bytes that cannot be read as one" in refuse(raw, "B02")


def test_a_file_that_is_too_large_for_a_band_is_refused_unread(raw: Archive) -> None:
    raw.rewrite_tif(NAME, "B02", compress="deflate")
    os.truncate(raw.tif(NAME, "B02"), 10**12)
    assert "expected at most 16,777,216 bytes, found 1,000,000,000,000" in refuse(raw, "B02")


def test_an_image_of_another_format_is_refused_though_gdal_could_read_it(raw: Archive) -> None:
    path = raw.tif(NAME, "B02")
    with rasterio.open(path) as source:
        profile, pixels = source.profile, source.read()
    path.unlink()
    kept = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")}
    with rasterio.open(path, "w", driver="ENVI", **kept) as target:
        target.write(pixels)
    assert "cannot be read as one" in refuse(raw, "B02")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["folder", "fifo", "loop"])
def test_what_is_no_regular_file_is_refused_and_hangs_nothing(raw: Archive, kind: str) -> None:
    path = raw.tif(NAME, "B02")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    assert {"folder": "directory", "fifo": "regular file", "loop": "symbolic links"}[kind] in refuse(raw, "B02")


def test_a_link_to_the_file_is_followed(raw: Archive) -> None:
    before, _ = read(raw, NAME, "B02")
    path = raw.tif(NAME, "B02")
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    np.testing.assert_array_equal(read(raw, NAME, "B02")[0], before)


def test_trailing_bytes_do_not_shift_the_pixels(raw: Archive) -> None:
    before, _ = read(raw, NAME, "B02")
    with raw.tif(NAME, "B02").open("ab") as file:
        file.write(b"\0" * 10)
    np.testing.assert_array_equal(read(raw, NAME, "B02")[0], before)


@pytest.mark.timeout(30)
def test_a_block_of_hundreds_of_megabytes_is_refused_before_it_is_allocated(raw: Archive) -> None:
    raw.rewrite_tif(NAME, "B02", tiled=True, blockxsize=8_192, blockysize=8_192, compress="deflate")
    assert "found blocks of (8192, 8192)" in refuse(raw, "B02")


def test_a_damaged_file_is_refused_or_read_as_rasterio_reads_it(
    real: Archive, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever bytes a file has, reading it gives the pixels that rasterio gives, or a PatchError."""
    archive = real.copy(tmp_path_factory.mktemp("fuzz"), [NAME])
    archive.rewrite_tif(NAME, "B01", compress="deflate", predictor=2)
    archive.rewrite_tif(NAME, "B09", tiled=True, blockxsize=16, blockysize=16, ENDIANNESS="BIG")
    whole = {band: archive.tif(NAME, band).read_bytes() for band in ("B01", "B09")}

    @settings(max_examples=200)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        band = data.draw(st.sampled_from(["B01", "B09"]))
        changed = bytearray(whole[band])
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, min(600, len(changed)) - 1))] = data.draw(st.integers(0, 255))
        archive.tif(NAME, band).write_bytes(changed)
        try:
            pixels, _ = read(archive, NAME, band)
        except PatchError:
            return
        np.testing.assert_array_equal(pixels, archive.read_band(NAME, band))

    check()
