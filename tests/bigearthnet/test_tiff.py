"""The parser of plain headers: what it accepts, rasterio reads alike; everything else it leaves to rasterio."""

from __future__ import annotations

import logging
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from bigearthnet.archive.tiff import NotPlainError, PlainHeader, inflate_strips, parse_plain_header
from tests.archives import BANDS, Archive

SHORT, LONG, DOUBLE, ASCII = 3, 4, 12, 2
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, SAMPLE_FORMAT = 273, 277, 278, 279, 284, 339
PIXEL_SCALE, TIEPOINT, GEO_KEYS, NODATA = 33550, 33922, 34735, 42113


@pytest.fixture(autouse=True)
def quiet_gdal() -> Iterator[None]:
    """GDAL warns of every mutated header, which would drown the report of a failure."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@cache
def real_files(real: Archive) -> list[tuple[bytes, bytes]]:
    """Header and pixels of each real file."""
    files = []
    for name in real.names:
        for band, size in BANDS.items():
            content = real.tif(name, band).read_bytes()
            files.append((content[: -2 * size * size], content[-2 * size * size :]))
    return files


def entry_of(header: bytes, tag: int) -> int:
    """Find where the directory entry of a tag begins."""
    (n_tags,) = struct.unpack_from("<H", header, 8)
    return next(at for at in range(10, 10 + 12 * n_tags, 12) if struct.unpack_from("<H", header, at) == (tag,))


def replace_entry(header: bytes, tag: int, kind: int, count: int, value: int) -> bytes:
    changed = bytearray(header)
    struct.pack_into("<HHII", changed, entry_of(header, tag), tag, kind, count, value)
    return bytes(changed)


def replace_value(header: bytes, tag: int, index: int, form: str, value: float) -> bytes:
    """Replace one of the values that lie outside the directory."""
    changed = bytearray(header)
    (start,) = struct.unpack_from("<I", header, entry_of(header, tag) + 8)
    struct.pack_into(form, changed, start + index * struct.calcsize(form), value)
    return bytes(changed)


def open_with_rasterio(content: bytes) -> dict[str, Any] | None:
    """Read all that a plain header tells with rasterio; None if it cannot."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            MemoryFile(content) as memory,
            memory.open(driver="GTiff") as source,
        ):
            return {
                "count": source.count,
                "width": source.width,
                "height": source.height,
                "dtype": source.dtypes[0],
                "epsg": source.crs.to_epsg() if source.crs else None,
                "transform": source.transform[:6],
                "nodata": source.nodata,
                "pixels": source.read(1).tobytes(),
            }
    except (RasterioError, ValueError):
        return None


def check_against_rasterio(header: bytes, pixels: bytes) -> PlainHeader | None:
    """Parse a header, and if it is taken for plain, hold it against rasterio."""
    start = time.perf_counter()
    try:
        parsed = parse_plain_header(header)
    except NotPlainError:
        return None
    finally:
        assert time.perf_counter() - start < 0.5
    n_bytes = parsed.width * parsed.height * np.dtype(parsed.dtype).itemsize
    if parsed.is_deflated or parsed.data_offset != len(header) or n_bytes != len(pixels):
        return parsed  # the reader inflates such a file, or gives it to rasterio
    place = parsed.place
    assert open_with_rasterio(header + pixels) == {
        "count": 1,
        "width": parsed.width,
        "height": parsed.height,
        "dtype": parsed.dtype,
        "epsg": place.epsg,
        "transform": (place.pixel_m, 0, place.x_ul, 0, -place.pixel_m, place.y_ul),
        "nodata": place.nodata,
        "pixels": pixels,
    }
    return parsed


def test_every_real_header_is_plain_and_says_what_rasterio_says(real: Archive) -> None:
    assert len(real_files(real)) == 72
    for header, pixels in real_files(real):
        parsed = check_against_rasterio(header, pixels)
        assert parsed is not None
        assert parsed.data_offset == len(header)
        assert (parsed.dtype, parsed.place.nodata) == ("uint16", None)


def test_a_header_with_more_of_the_file_behind_it_parses_the_same(real: Archive) -> None:
    for header, pixels in real_files(real)[:12]:
        assert parse_plain_header(header + pixels[:1_000]) == parse_plain_header(header)


def test_float32_and_nodata_as_gdal_writes_them_are_plain() -> None:
    profile = {"driver": "GTiff", "width": 120, "height": 120, "count": 1, "crs": "EPSG:32633"}
    transform = rasterio.Affine(10, 0, 399_960, 0, -10, 5_300_040)
    for dtype, nodata in (("float32", None), ("float32", np.nan), ("float32", -9999.0), ("uint16", 0)):
        with MemoryFile() as memory:
            pixels = np.arange(120 * 120, dtype=dtype).reshape(120, 120)
            with memory.open(**profile, dtype=dtype, nodata=nodata, transform=transform) as target:
                target.write(pixels, 1)
            content = bytes(memory.getbuffer())
        parsed = parse_plain_header(content[: -pixels.nbytes])
        assert (parsed.width, parsed.height, parsed.dtype) == (120, 120, dtype)
        assert (parsed.place.epsg, parsed.place.x_ul, parsed.place.y_ul, parsed.place.pixel_m) == (
            32633,
            399_960,
            5_300_040,
            10,
        )
        assert content[parsed.data_offset :] == pixels.tobytes()
        if nodata is None:
            assert parsed.place.nodata is None
        else:
            assert parsed.place.nodata == pytest.approx(nodata, nan_ok=True)


@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [
        (COMPRESSION, SHORT, 1, 5),
        (COMPRESSION, SHORT, 1, 32_946),
        (PHOTOMETRIC, SHORT, 1, 0),
        (SAMPLES, SHORT, 1, 2),
        (PLANAR, SHORT, 1, 2),
        (BITS, SHORT, 1, 8),
        (SAMPLE_FORMAT, SHORT, 1, 2),
        (ROWS_PER_STRIP, SHORT, 1, 0),
        (ROWS_PER_STRIP, SHORT, 1, 33),
        (WIDTH, SHORT, 1, 119),
        (WIDTH, DOUBLE, 1, 300),
        (WIDTH, ASCII, 1, 120),
        (WIDTH, SHORT, 2, 120),
        (WIDTH, SHORT, 0, 120),
        (WIDTH, SHORT, 0xFFFF_FFFF, 120),
        (HEIGHT, SHORT, 1, 119),
        (HEIGHT, LONG, 1, 0xFFFF_FFFF),
        (STRIP_BYTES, LONG, 1, 8_160),
        (STRIP_OFFSETS, LONG, 4, 0xFFFF_FFF0),
        (PIXEL_SCALE, DOUBLE, 2, 264),
        (TIEPOINT, DOUBLE, 5, 200),
        (GEO_KEYS, SHORT, 31, 200),
    ],
)
def test_a_header_with_one_tag_changed_is_not_plain(real: Archive, tag: int, kind: int, count: int, value: int) -> None:
    header = next(header for header, pixels in real_files(real) if len(pixels) == 2 * 120 * 120)
    with pytest.raises(NotPlainError):
        parse_plain_header(replace_entry(header, tag, kind, count, value))


def test_deflated_strips_are_inflated_only_if_they_hold_exactly_their_rows(real: Archive) -> None:
    header, pixels = next(pair for pair in real_files(real) if len(pair[1]) == 2 * 20 * 20)
    for rows, fits in ((pixels, True), (pixels[:-1], False), (pixels + b"\0", False), (b"", False)):
        strip = zlib.compress(rows)
        changed = replace_entry(header, COMPRESSION, SHORT, 1, 8)
        file = replace_entry(changed, STRIP_BYTES, LONG, 1, len(strip)) + strip
        parsed = parse_plain_header(file)
        assert parsed.is_deflated
        if fits:
            assert inflate_strips(file, parsed) == pixels
            read = open_with_rasterio(file)
            assert read is not None
            assert read["pixels"] == pixels
            for place in range(len(header), len(file)):
                damaged = file[:place] + bytes([file[place] ^ 4]) + file[place + 1 :]
                with pytest.raises(NotPlainError):
                    inflate_strips(damaged, parsed)
        else:
            with pytest.raises(NotPlainError):
                inflate_strips(file, parsed)


@pytest.mark.timeout(10)
def test_a_giant_height_of_one_row_a_strip_is_refused_at_once(real: Archive) -> None:
    """Building a list of four thousand million strips would take minutes and all memory."""
    header, _ = real_files(real)[0]
    giant = replace_entry(replace_entry(header, HEIGHT, LONG, 1, 0x0FFF_FFFF), ROWS_PER_STRIP, SHORT, 1, 1)
    start = time.perf_counter()
    with pytest.raises(NotPlainError):
        parse_plain_header(giant)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(
    ("tag", "index", "form", "value"),
    [
        (PIXEL_SCALE, 0, "<d", -10.0),
        (PIXEL_SCALE, 1, "<d", 20.0),
        (PIXEL_SCALE, 0, "<d", float("nan")),
        (TIEPOINT, 0, "<d", 1.0),
        (TIEPOINT, 3, "<d", float("nan")),
        (TIEPOINT, 4, "<d", float("inf")),
        (GEO_KEYS, 0, "<H", 2),
        (GEO_KEYS, 3, "<H", 8),
        (STRIP_OFFSETS, 1, "<I", 9_000),
    ],
)
def test_a_header_with_one_value_changed_is_not_plain(
    real: Archive, tag: int, index: int, form: str, value: float
) -> None:
    header = next(header for header, pixels in real_files(real) if len(pixels) == 2 * 120 * 120)
    with pytest.raises(NotPlainError):
        parse_plain_header(replace_value(header, tag, index, form, value))


@pytest.mark.parametrize("key", [1024, 1025, 3072])
def test_a_header_without_one_of_the_needed_geokeys_is_not_plain(real: Archive, key: int) -> None:
    header, _ = real_files(real)[0]
    (start,) = struct.unpack_from("<I", header, entry_of(header, GEO_KEYS) + 8)
    at = next(at for at in range(start + 8, start + 64, 8) if struct.unpack_from("<H", header, at) == (key,))
    changed = bytearray(header)
    struct.pack_into("<H", changed, at, 3_999)
    with pytest.raises(NotPlainError):
        parse_plain_header(bytes(changed))


@pytest.mark.parametrize("other", [b"MM\0*", b"II+\0", b"\x89PNG", b"II*"])
def test_another_kind_of_file_is_not_plain(real: Archive, other: bytes) -> None:
    header, _ = real_files(real)[0]
    with pytest.raises(NotPlainError):
        parse_plain_header(other + header[len(other) :] if len(other) == 4 else other)


def test_every_cut_of_a_header_is_not_plain(real: Archive) -> None:
    header, _ = real_files(real)[0]
    for length in range(len(header)):
        with pytest.raises(NotPlainError):
            parse_plain_header(header[:length])


# -- Fuzz ------------------------------------------------------------------------------------------------------------

INTERESTING = st.sampled_from(
    [0, 1, 2, 3, 8, 16, 20, 60, 120, 255, 256, 9001, 9102, 32629, 32767, 65535, 2**31, 2**32 - 1]
)


@given(st.binary(max_size=600))
def test_random_bytes_are_never_taken_for_a_header(content: bytes) -> None:
    with pytest.raises(NotPlainError):
        parse_plain_header(content)


@settings(max_examples=300)
@given(st.data())
def test_a_header_with_random_bytes_changed_is_refused_or_read_as_rasterio_reads_it(
    real: Archive, data: st.DataObject
) -> None:
    header, pixels = real_files(real)[data.draw(st.integers(0, 71))]
    changed = bytearray(header)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    check_against_rasterio(bytes(changed), pixels)


@settings(max_examples=300)
@given(st.data())
def test_a_header_with_tags_changed_is_refused_or_read_as_rasterio_reads_it(real: Archive, data: st.DataObject) -> None:
    header, pixels = real_files(real)[data.draw(st.integers(0, 71))]
    changed = bytearray(header)
    (n_tags,) = struct.unpack_from("<H", header, 8)
    for _ in range(data.draw(st.integers(1, 3))):
        at = 10 + 12 * data.draw(st.integers(0, n_tags - 1))
        tag, kind, count, value = struct.unpack_from("<HHII", header, at)
        field = data.draw(st.sampled_from(["tag", "kind", "count", "value"]))
        if field == "tag":
            tag = data.draw(st.sampled_from([254, 255, 266, 270, 274, 282, 317, 320, 322, 338, 42112, NODATA, 65000]))
        elif field == "kind":
            kind = data.draw(st.integers(0, 17))
        elif field == "count":
            count = data.draw(st.integers(0, 40) | INTERESTING)
        else:
            value = data.draw(st.integers(0, len(header)) | INTERESTING)
        struct.pack_into("<HHII", changed, at, tag, kind, count, value)
    check_against_rasterio(bytes(changed), pixels)


@settings(max_examples=300)
@given(st.data())
def test_a_header_with_geokeys_changed_is_refused_or_read_as_rasterio_reads_it(
    real: Archive, data: st.DataObject
) -> None:
    header, pixels = real_files(real)[data.draw(st.integers(0, 71))]
    changed = bytearray(header)
    (start,) = struct.unpack_from("<I", header, entry_of(header, GEO_KEYS) + 8)
    keys = [1024, 1025, 1026, 2048, 2049, 2050, 2052, 2054, 2056, 2057, 3072, 3073, 3074, 3075, 3076, 3082, 4096, 4099]
    for _ in range(data.draw(st.integers(1, 2))):
        at = start + 8 * data.draw(st.integers(1, 7))
        key, location, count, value = struct.unpack_from("<4H", header, at)
        field = data.draw(st.sampled_from(["key", "location", "value"]))
        if field == "key":
            key = data.draw(st.sampled_from(keys))
        elif field == "location":
            location = data.draw(st.sampled_from([0, 34735, 34736, 34737]))
        else:
            value = data.draw(st.sampled_from([0, 1, 2, 4326, 7030, 9002, 9036, 9102, 9105, 16030, 32633, 32767, 5030]))
        struct.pack_into("<4H", changed, at, key, location, count, value)
    check_against_rasterio(bytes(changed), pixels)
