"""Files that were made to do harm: each is a rejected patch with a reason, found in little time and memory."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bigearthnet.archive.raster import read_band
from bigearthnet.archive.records import Sources
from bigearthnet.bands import S2_60M
from bigearthnet.errors import PatchError
from converter.conversion import convert
from converter.verify.verification import VerifyOptions, verify
from tests.archives import Archive
from tests.conftest import SmallArchive

SHORT, LONG, DOUBLE = 3, 4, 12

Entry = tuple[int, int, int, int]


def make_tiff(entries: list[Entry], next_directory: int = 0, order: str = "<", tail: bytes = b"") -> bytes:
    """Write a classic TIFF of one directory by hand."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = b"".join(struct.pack(f"{order}HHII", *entry) for entry in sorted(entries))
    return (
        mark + struct.pack(f"{order}IH", 8, len(entries)) + directory + struct.pack(f"{order}I", next_directory) + tail
    )


def plain(**changes: Entry) -> list[Entry]:
    """Return the entries of a 120 x 120 uint16 image in one strip, with some replaced; it has no georeference."""
    entries = {
        "width": (256, SHORT, 1, 120),
        "height": (257, SHORT, 1, 120),
        "bits": (258, SHORT, 1, 16),
        "compression": (259, SHORT, 1, 1),
        "photometric": (262, SHORT, 1, 1),
        "offsets": (273, LONG, 1, 200),
        "samples": (277, SHORT, 1, 1),
        "rows": (278, SHORT, 1, 120),
        "sizes": (279, LONG, 1, 28_800),
        "format": (339, SHORT, 1, 1),
    }
    return list((entries | changes).values())


def make_bomb(n_tile: int) -> bytes:
    """Write a deflate GeoTIFF of 120 x 120 pixels in one tile that explodes to `n_tile` x `n_tile` zeros."""
    squeezer = zlib.compressobj(9)
    row = bytes(2 * n_tile)
    packed = b"".join([*(squeezer.compress(row) for _ in range(n_tile)), squeezer.flush()])
    kept = [entry for entry in plain(compression=(259, SHORT, 1, 8)) if entry[0] not in (273, 278, 279)]
    tiles = [(322, LONG, 1, n_tile), (323, LONG, 1, n_tile), (324, LONG, 1, 400), (325, LONG, 1, len(packed))]
    head = make_tiff(kept + tiles)
    return head + bytes(400 - len(head)) + packed


PIXELS = bytes(28_800)
BIG = 0xFFFF_FFFF

TIFFS: dict[str, bytes] = {
    "empty": b"",
    "text": b"<html>404</html>" * 50,
    "pixels beyond the file": make_tiff(plain(offsets=(273, LONG, 1, BIG - 10)), tail=PIXELS),
    "directory beyond the file": b"II*\0" + struct.pack("<I", BIG) + PIXELS,
    "directory that is its own next": make_tiff(plain(), next_directory=8, tail=PIXELS),
    "strips beyond the file": make_tiff(
        plain(offsets=(273, LONG, 120, BIG - 480), rows=(278, SHORT, 1, 1)), tail=PIXELS
    ),
    "2^32 strips": make_tiff(plain(offsets=(273, LONG, BIG, 8), sizes=(279, LONG, BIG, 8)), tail=PIXELS),
    "2^32 bits a sample": make_tiff(plain(bits=(258, SHORT, BIG, 8)), tail=PIXELS),
    "2^32 rows": make_tiff(plain(height=(257, LONG, 1, BIG)), tail=PIXELS),
    "2^31 columns": make_tiff(plain(width=(256, LONG, 1, 2**31)), tail=PIXELS),
    "65,535 samples": make_tiff(plain(samples=(277, SHORT, 1, 65_535)), tail=PIXELS),
    "a strip of 4 GiB": make_tiff(plain(sizes=(279, LONG, 1, BIG)), tail=PIXELS),
    "compressed strip of 4 GiB": make_tiff(
        plain(compression=(259, SHORT, 1, 8), sizes=(279, LONG, 1, BIG)), tail=PIXELS
    ),
    "big-endian without georeference": make_tiff(
        [(256, SHORT, 1, 120 << 16), (257, SHORT, 1, 120 << 16), (258, SHORT, 1, 16 << 16)], order=">", tail=PIXELS
    ),
    "little-endian marked as big": b"MM\0*" + make_tiff(plain(), tail=PIXELS)[4:],
    "BigTIFF with 2^60 entries": b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**60) + PIXELS,
    "BigTIFF directory beyond the file": b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63) + PIXELS,
    "tile of a gigapixel": make_tiff(
        [
            *(entry for entry in plain(compression=(259, SHORT, 1, 8)) if entry[0] not in (273, 278, 279)),
            *((322, LONG, 1, 65_520), (323, LONG, 1, 65_520), (324, LONG, 1, 300), (325, LONG, 1, 28_000)),
        ],
        tail=PIXELS,
    ),
    "tile of a megapixel that explodes": make_bomb(4_080),
    "tile that explodes beyond all bounds": make_bomb(16_000),
    "65,535 entries": b"II*\0" + struct.pack("<IH", 8, 65_535) + PIXELS,
}

NOTES: dict[str, bytes] = {
    "NaN": b'{"labels": ["Pastures"], "coordinates": {"ulx": NaN}}',
    "1e300": b'{"labels": ["Pastures"], "coordinates": {"ulx": 1e300, "uly": 1e300, "lrx": 1e300, "lry": 1e300}}',
    "1e999": b'{"labels": ["Pastures"], "coordinates": {"ulx": 1e999, "uly": -1e999, "lrx": 1e999, "lry": 0}}',
    "depth": b"[" * 60_000,
    "depth of objects": b'{"a":' * 13_000,
    "duplicate keys": b'{"labels": ["Pastures"], "labels": ["Airports"]}',
    "a number of 60,000 digits": b'{"a": ' + b"9" * 60_000 + b"}",
    "path in a label": b'{"labels": ["../../../etc/passwd"]}',
    "lone surrogate": b'{"labels": ["\\ud800"]}',
    "gigabytes": b"\0" * 100_000,
}

PROBE = """
import json, os, resource, sys, time
from pathlib import Path
import numpy as np
from bigearthnet.archive.annotation import read_annotation
from bigearthnet.bands import S2_10M
from bigearthnet.errors import PatchError
from bigearthnet.archive.raster import read_band
folder, out = sys.argv[1], np.empty((120, 120), np.uint16)
def measure(name, read):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        read()
        reason = None
    except PatchError as error:
        reason = error.reason
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"name": name, "reason": reason, "seconds": time.perf_counter() - start, "grown": grown}
def read_tif(name):
    return lambda: read_band("patch", folder, name, S2_10M, out)
def read_json(name):
    return lambda: read_annotation("patch", folder, name)
names = sorted(os.listdir(folder))
measure("real.tif", read_tif("real.tif"))  # loads GDAL
limit = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(json.dumps([measure(name, (read_json if name.endswith(".json") else read_tif)(name)) for name in names]))
"""


@pytest.fixture
def hostile(real: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of every hostile file, and of what is no file."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name, content in TIFFS.items():
        (folder / f"{name}.tif").write_bytes(content)
    for name, content in NOTES.items():
        (folder / f"{name}.json").write_bytes(content)
    for suffix in ("tif", "json"):
        os.mkfifo(folder / f"fifo.{suffix}")
        (folder / f"folder.{suffix}").mkdir()
        (folder / f"device.{suffix}").symlink_to("/dev/zero")
        (folder / f"loop.{suffix}").symlink_to(f"loop.{suffix}")
        (folder / f"nowhere.{suffix}").symlink_to("../../nowhere")
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(folder)  # the path of a socket must be short
            listener.bind(f"socket.{suffix}")
    (folder / "real.tif").write_bytes(b"II*\1" + real.tif(real.names[0], "B02").read_bytes()[4:])
    return folder


def test_every_hostile_file_is_refused_with_a_reason_in_little_time_and_memory(hostile: Path) -> None:
    """In a process that may allocate 300 MB more than GDAL takes by itself: a crash or a hang would be seen too."""
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, hostile],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    assert len(found) == len(TIFFS) + len(NOTES) + 13
    assert [one["name"] for one in found if not one["reason"]] == []
    assert [one for one in found if one["seconds"] > 2] == []
    assert [one for one in found if one["grown"] > 100_000_000] == []
    assert ended.stderr == ""


def test_an_archive_full_of_hostile_files_ends_in_a_true_store_of_the_rest(
    small: SmallArchive, scheduler: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = small.archive.copy(tmp_path / "raw")
    rest, good = small.names[:20:2], [*small.names[1:20:2], *small.names[20:]]
    for name, content in zip(rest, list(TIFFS.values())[2:], strict=False):
        raw.tif(name, "B03").write_bytes(content)
    for name, content in zip(rest, NOTES.values(), strict=False):
        raw.note(name).write_bytes(content)
    options = small.options(scheduler=scheduler, on_bad="skip", max_bad=1.0)
    summary = convert(raw.root, tmp_path / "store", options)
    assert (summary.n_patches, summary.n_rejected) == (len(good), len(rest))
    rejected = pq.read_table(tmp_path / "store" / "rejected.parquet").to_pylist()
    assert [row["patch_id"] for row in rejected] == sorted(rest)
    assert all(row["file"] and row["reason"] for row in rejected)
    found = verify(
        tmp_path / "store",
        VerifyOptions(against=Sources(raw.root), lists=small.lists, scheduler=scheduler, reader="rasterio"),
    )
    assert (found.faults, found.n_compared) == ([], len(good))
    assert capfd.readouterr().err == ""


def test_a_crs_that_is_no_text_is_a_reason_like_any_other(real: Archive, tmp_path: Path) -> None:
    """Rasterio decodes its name unasked and raises no error of its own; found by the fuzzer."""
    content = bytearray(real.tif(real.names[0], "B01").read_bytes())
    content[312:316] = content[339:343] = b"\xff" * 4
    (tmp_path / "band.tif").write_bytes(content)
    with pytest.raises(PatchError, match=r"cannot be read as one .*utf-8"):
        read_band("patch", str(tmp_path), "band.tif", S2_60M, np.empty((20, 20), np.uint16))
