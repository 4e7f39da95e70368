"""What is fuzzed: each target takes any bytes and raises only if this project misbehaves."""

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
    if target in ("manifest", "images", "table"):
        return [make_store()[target]]
    if target == "state":
        return [make_state()]
    if target == "record":
        return [make_record()]
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


def make_store() -> dict[str, bytes]:
    """Return manifest, metadata and table of a store of two patches, without pixels."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bigearthnet.bands import S2_60M
    from bigearthnet.labels import LABELS_19
    from bigearthnet.store.images import write_metadata
    from bigearthnet.store.layout import Layout
    from bigearthnet.store.manifest import build_manifest, encode_manifest

    summary = {"mean": 1.0, "std": 1.0, "min": 0, "max": 2, "count": 800}
    attributes = {
        "format": "bigearthnet-store",
        "format_version": 2,
        "fingerprint": "0" * 32,
        "converter_version": "0",
        "dataset": "BigEarthNet v2.0",
        "license": "",
        "citation": "",
        "labels_43": [],
        "labels_19": [*LABELS_19],
        "options": {"codec": "lz4", "shard_size": 2, "bands": ["B01", "B09"]},
        "counts": {"expected": 2, "found": 2, "converted": 2, "rejected": 0},
        "splits": {"train": [0, 1], "validation": [1, 1], "test": [1, 2]},
        "statistics": {"B01": summary, "B09": summary},
    }
    names = np.array([PATCH, PATCH + "0"], object)
    coordinates = {"patch_id": names, "epsg": np.array([32633] * 2), "x_ul": np.zeros(2), "y_ul": np.zeros(2)}
    labels = [[LABELS_19[0]], [LABELS_19[1], LABELS_19[2]]]
    rows = {"index": pa.array([0, 1], pa.int32()), "patch_id": names, "labels": labels, "labels_19": labels}
    table = pa.table({**rows, "split": ["train", "test"], "recommended": [True] * 2, "has_s1": [False] * 2})
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        store = Path(folder)
        write_metadata(store, Layout("v2", (S2_60M,), "lz4", 2), coordinates, attributes)
        pq.write_table(table, store / "patches.parquet", compression="none", store_schema=False)
        manifest = encode_manifest(build_manifest(store, "0" * 32, {"found": 2}, {}))
        return {
            "manifest": manifest.rpartition(b',"checksum":')[0] + b"}",
            "images": (store / "images.zarr/zarr.json").read_bytes(),
            "table": (store / "patches.parquet").read_bytes(),
        }


def make_state() -> bytes:
    """Return the saved state of a training of two variables."""
    import numpy as np

    from trainer.run.folder import Position, RunFolder

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        RunFolder(folder).save_state("d", Position(), [np.zeros(3, np.float32), np.zeros((), np.int32)])
        return (Path(folder) / "state.npz").read_bytes()


def make_record() -> bytes:
    """Return what a run says of itself."""
    from dataclasses import asdict

    from trainer.run.folder import RunRecord
    from trainer.run.recipe import Recipe

    record = RunRecord(
        recipe=Recipe(),
        fingerprint="0" * 32,
        train="0" * 32,
        validation="0" * 32,
        store="s",
        command="c",
        n_patches={"train": 9, "validation": 4},
        bands={"s2_60m": ("B01", "B09")},
        classes=("a", "b"),
        versions={"numpy": "2"},
        provenance={"dataset": "BigEarthNet v1.0", "counts": {"expected": 3}},
    )
    return json.dumps(asdict(record)).encode()


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


def make_manifest() -> Callable[[bytes], None]:
    """Whatever a manifest says over a true checksum."""
    import hashlib

    from bigearthnet.errors import StoreError
    from bigearthnet.store.manifest import read_manifest
    from bigearthnet.store.objects import LocalObjects

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def run(content: bytes) -> None:
        checksum = hashlib.sha256(content).hexdigest().encode()
        (folder / "manifest.json").write_bytes(content[:-1] + b',"checksum":"' + checksum + b'"}')
        try:
            manifest = read_manifest(LocalObjects(folder))
        except StoreError:
            return
        for path in (*manifest.files, *manifest.shards):
            assert folder in (folder / path).resolve().parents

    return run


def make_images() -> Callable[[bytes], None]:
    from bigearthnet.store.arrays import describe_images

    def run(content: bytes) -> None:
        try:
            _, arrays = describe_images(content)
        except ValueError:
            return
        for info in arrays:
            assert 0 < info.plane_bytes * len(info.bands) <= 16 * 2**20
            assert info.shard_key(0).startswith(f"images.zarr/{info.name}/c/")

    return run


def make_table() -> Callable[[bytes], None]:
    """Whatever is taken for the table of a store gives each row its index and its labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bigearthnet.errors import StoreError
    from bigearthnet.store.rows import check_rows

    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "patches.parquet"
    attributes = json.loads(make_store()["images"])["attributes"]

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            check_rows(path, attributes, 2)
        except StoreError:
            return
        try:
            rows = pq.read_table(path, columns=["index", "labels_19"]).to_pylist()
        except pa.ArrowException:
            return  # it refuses some metadata that DuckDB does not read
        assert [row["index"] for row in rows] == [0, 1]
        assert all(set(row["labels_19"]) <= set(attributes["labels_19"]) for row in rows)

    return run


def make_state_reader() -> Callable[[bytes], None]:
    import numpy as np

    from bigearthnet.errors import RunError
    from trainer.run.folder import RunFolder

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    variables = [np.zeros(3, np.float32), np.zeros((), np.int32)]

    def run(content: bytes) -> None:
        (folder / "state.npz").write_bytes(content)
        try:
            saved = RunFolder(folder).load_state("d", variables)
        except RunError:
            return
        assert saved is not None
        assert saved[0].epoch == len(saved[0].history)

    return run


def make_record_reader() -> Callable[[bytes], None]:
    from bigearthnet.errors import RunError
    from trainer.run.folder import RunFolder

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def run(content: bytes) -> None:
        (folder / "run.json").write_bytes(content)
        try:
            record = RunFolder(folder).read_record()
        except RunError:
            return
        assert record.recipe.epochs >= 1
        assert len(record.digest) == 32

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
    "manifest": Target(("bigearthnet.store.manifest",), make_manifest),
    "images": Target(("bigearthnet.store.arrays",), make_images),
    "table": Target(("bigearthnet.store.rows",), make_table),
    "state": Target(("trainer.run.folder",), make_state_reader),
    "record": Target(("trainer.run.recipe", "trainer.run.folder"), make_record_reader),
}
