"""What is fuzzed: each target takes any bytes and raises only if the converter misbehaves."""

from __future__ import annotations

import json
import logging
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.tarballs import make_tar

PATCH: Final = "S2A_MSIL2A_20170613T101031_87_48"


@dataclass(frozen=True)
class Target:
    """One reader of foreign bytes."""

    modules: tuple[str, ...]
    """What to measure coverage of."""
    make: Callable[[], Callable[[bytes], None]]
    """Import the reader and return what runs it on some bytes."""


def read_example() -> dict[str, bytes]:
    """Return the files of the six real patches."""
    from bigearthnet.archive.lists import packaged_example

    with tarfile.open(packaged_example("S2")) as archive:
        return {
            member.name: file.read()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


def make_seeds(target: str) -> list[bytes]:
    """Return true inputs to begin with."""
    files = read_example()
    if target == "annotation":
        return [content for name, content in files.items() if name.endswith(".json")]
    if target == "receipt":
        return [json.dumps({"shard": 0, "digest": "d", "objects": [], "facts": [], "statistics": {}}).encode()]
    if target == "tar":
        notes = [(name, content) for name, content in files.items() if name.endswith(".json")][:2]
        long = [("x" * 120 + name, content) for name, content in notes]
        return [
            make_tar([*notes, *long], form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        ]
    bands = [content for name, content in files.items() if name.endswith("_B01.tif")]
    return [content[:-800] for content in bands] if target == "tiff" else bands


def make_tiff() -> Callable[[bytes], None]:
    from bigearthnet.archive.tiff import NotPlainError, parse_plain_header

    def run(content: bytes) -> None:
        try:
            header = parse_plain_header(content)
        except NotPlainError:
            return
        assert header.dtype in ("uint16", "float32")
        assert 1024 <= header.place.epsg < 32767

    return run


def make_band() -> Callable[[bytes], None]:
    """Whatever the fast reader takes, rasterio must read alike; whatever both refuse is a rejected patch."""
    import numpy as np

    from bigearthnet.archive.raster import read_band
    from bigearthnet.archive.tiff import Georeference
    from bigearthnet.bands import S2_60M, BandGroup
    from bigearthnet.errors import PatchError

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    folder = tempfile.mkdtemp(prefix="fuzz-")
    group: BandGroup = S2_60M

    def read(out: np.ndarray[tuple[int, int], np.dtype[np.uint16]], *, plain: bool) -> Georeference | None:
        try:
            return read_band(PATCH, folder, "band.tif", group, out, plain=plain)
        except PatchError:
            return None

    def run(content: bytes) -> None:
        (Path(folder) / "band.tif").write_bytes(content)
        fast, slow = (np.zeros((group.size, group.size), np.uint16) for _ in range(2))
        found, truth = read(fast, plain=True), read(slow, plain=False)
        assert repr(found) == repr(truth)
        if found is not None:
            assert (fast == slow).all()

    return run


def make_annotation() -> Callable[[bytes], None]:
    from bigearthnet.archive.annotation import read_annotation
    from bigearthnet.errors import PatchError
    from bigearthnet.labels import LABELS_43

    folder = tempfile.mkdtemp(prefix="fuzz-")

    def run(content: bytes) -> None:
        (Path(folder) / "note.json").write_bytes(content)
        try:
            note = read_annotation(PATCH, folder, "note.json")
        except PatchError:
            return
        assert set(note.labels) <= set(LABELS_43)
        assert abs(note.x_ul) < 1e8
        assert abs(note.y_ul) < 1e8

    return run


def make_receipt() -> Callable[[bytes], None]:
    from bigearthnet.archive.records import Source
    from converter.plan import ShardTask
    from converter.receipt import read_receipt, receipt_path

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    task = ShardTask(0, (Source(PATCH, s2=PATCH),), 1, "d")

    def run(content: bytes) -> None:
        receipt_path(folder, 0).write_bytes(content)
        assert read_receipt(folder, folder, task) is None

    return run


def make_walk() -> Callable[[bytes], None]:
    """Whatever the archive says of its members, they are somewhere in it, one after another."""
    import io

    from bigearthnet.archive.tar import TarError, TarWalk

    def run(content: bytes) -> None:
        walk = TarWalk(io.BytesIO(content))
        before = 0
        try:
            for member in walk:
                data = walk.read_content()
                assert len(data) == member.size
                assert data in content
                assert before < walk.position <= len(content)
                before = walk.position
        except TarError:
            return
        assert walk.position == len(content)

    return run


TARGETS: Final = {
    "tiff": Target(("bigearthnet.archive.tiff",), make_tiff),
    "band": Target(("bigearthnet.archive.tiff", "bigearthnet.archive.raster"), make_band),
    "tar": Target(("bigearthnet.archive.tar",), make_walk),
    "annotation": Target(("bigearthnet.archive.annotation",), make_annotation),
    "receipt": Target(("converter.receipt",), make_receipt),
}
