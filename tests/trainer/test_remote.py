"""Stores behind an HTTP server that fails and lies, and behind a real S3 server, give the batches of the local one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bigearthnet.errors import MissingPackageError
from bigearthnet.store.cache import Cache
from converter.staging import StageOptions, stage
from tests.manifests import seal_again
from tests.servers import (
    Fault,
    HttpServer,
    S3Server,
    babble,
    break_off,
    compress,
    empty,
    fail,
    flip,
    lengthen,
    promise_less,
    reset,
    reset_in_the_middle,
    run_s3,
    send_chunks,
    serve,
    shorten,
    show_page,
    stall,
    stall_in_the_middle,
)
from trainer import OptionError, ReadError, RemoteError, Store, StoreError, Stream, open_store

pytest.importorskip("requests")
pytest.importorskip("botocore")


@pytest.fixture
def served(stores: dict[str, Path]) -> Iterator[HttpServer]:
    """The store with the default codec on a server without faults."""
    with serve(stores["lz4"]) as server:
        yield server


@pytest.fixture
def local(stores: dict[str, Path]) -> Store:
    """The same store in its folder."""
    return open_store(stores["lz4"])


def _assert_same_batches(remote: Store, local: Store, **options: Any) -> None:
    with (
        Stream(remote.select("train"), batch_size=12, **options) as there,
        Stream(local.select("train"), batch_size=12, **options) as here,
    ):
        for _ in range(2):
            for found, expected in zip(there, here, strict=True):
                assert found.keys() == expected.keys()
                for name, array in expected.items():
                    np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("order", ["global", "window", "sequential"])
def test_http_gives_the_batches_of_the_local_store_and_fetches_each_shard_once(
    served: HttpServer, local: Store, tmp_path: Path, order: str
) -> None:
    _assert_same_batches(served.open(tmp_path), local, order=order, window=2)
    _assert_same_batches(served.open(tmp_path), local, order=order, window=2)
    assert len(served.list_shards()) == len(set(served.list_shards())) > 0


def test_only_the_arrays_that_are_needed_are_fetched(served: HttpServer, local: Store, tmp_path: Path) -> None:
    _assert_same_batches(served.open(tmp_path), local, bands="s2_60m")
    assert {path.split("/")[2] for path in served.list_shards()} == {"s2_60m"}


FAULTS: dict[str, Sequence[Fault]] = {
    "503 three times": [fail(503)] * 3,
    "429 that asks for patience": [fail(429, Retry_After="1")],
    "503 that asks for patience until a date": [fail(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")],
    "503 that asks for nonsense": [fail(503, Retry_After="soon")],
    "each error of a server": [fail(status) for status in (408, 500, 502, 504)],
    "reset": [reset] * 2,
    "reset in the middle": [reset_in_the_middle] * 2,
    "broken off": [break_off] * 2,
    "stalled": [stall] * 2,
    "stalled in the middle": [stall_in_the_middle] * 2,
    "short": [shorten],
    "long": [lengthen],
    "wrong length": [promise_less],
    "empty": [empty],
    "web page": [show_page],
    "flipped bit": [flip],
    "compressed": [compress],
    "without length": [send_chunks],
    "all at once": [reset_in_the_middle, fail(503), stall, break_off, flip],
}


def test_a_server_that_asks_for_patience_gets_it(stores: dict[str, Path], tmp_path: Path) -> None:
    """The second attempt would come at once."""
    times: list[float] = []

    def ask(handler: Any, content: bytes) -> None:
        times.append(time.monotonic())
        handler.answer(b"", 429, {"Retry-After": "1"})

    def note(handler: Any, content: bytes) -> None:
        times.append(time.monotonic())
        handler.answer(content)

    with serve(stores["lz4"], [ask, note], at="manifest") as server:
        server.open(tmp_path)
    assert times[1] - times[0] >= 1


RESUMED = ("reset in the middle", "broken off", "stalled in the middle", "all at once")
"""Faults after which a fetch goes on where it was, if the server can."""


@pytest.mark.parametrize(
    ("fault", "ranges"), [*((fault, True) for fault in FAULTS), *((fault, False) for fault in RESUMED)]
)
def test_what_a_server_does_once_or_twice_changes_no_batch(
    stores: dict[str, Path], local: Store, tmp_path: Path, fault: str, ranges: bool
) -> None:
    with serve(stores["lz4"], FAULTS[fault], ranges=ranges) as server:
        _assert_same_batches(server.open(tmp_path), local, order="window", window=1, bands="s2_60m")
        assert server.ranged or not ranges or fault not in RESUMED


@pytest.mark.parametrize(
    "fault", ["503 three times", "reset in the middle", "broken off", "stalled", "short", "web page"]
)
def test_the_same_holds_for_the_table(stores: dict[str, Path], local: Store, tmp_path: Path, fault: str) -> None:
    with serve(stores["lz4"], FAULTS[fault], at="parquet") as server:
        assert server.open(tmp_path).attributes == local.attributes


@pytest.mark.parametrize("fault", [fail(503), reset, break_off, stall, stall_in_the_middle, compress])
def test_the_same_holds_for_the_manifest(stores: dict[str, Path], local: Store, tmp_path: Path, fault: Fault) -> None:
    with serve(stores["lz4"], [fault], at="manifest") as server:
        assert server.open(tmp_path).fingerprint == local.fingerprint


def test_a_manifest_without_end_is_refused(served: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigearthnet.store.server._MAX_BYTES", 1_000)
    with pytest.raises(StoreError, match=r"manifest.json: expected at most 1,000 bytes, found more"):
        served.open(tmp_path)


@pytest.mark.parametrize("fault", [shorten, empty, show_page, flip, promise_less])
def test_an_object_that_is_damaged_twice_is_refused_and_never_kept(
    stores: dict[str, Path], local: Store, tmp_path: Path, fault: Fault
) -> None:
    with serve(stores["lz4"], [fault] * 2, at="s2_60m/c/0/") as server:
        store = server.open(tmp_path)
        rows, out = np.array([0]), np.zeros((1, 2, 20, 20), np.uint16)
        reader = store.open_reader("s2_60m", ("B01", "B09"))
        url = f"{server.url}/images.zarr/s2_60m/c/0/0/0/0"
        with pytest.raises(StoreError, match=rf"{url}: its bytes are not .* expected [\d,]+.* twice; .*on the server"):
            reader.read(rows, out, None)
        assert not [path for path in tmp_path.rglob("s2_60m/c/**/*") if path.is_file()]
        reader.read(rows, out, None)  # the server has recovered
        expected = np.zeros_like(out)
        local.open_reader("s2_60m", ("B01", "B09")).read(rows, expected, None)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("fault", "message"), [(fail(503), "503 Service Unavailable"), (babble, r"BadStatusLine\('\\x1b\[31mred\\r\\n'\)")]
)
def test_a_server_that_fails_for_good_is_given_up(
    stores: dict[str, Path], tmp_path: Path, fault: Fault, message: str
) -> None:
    with serve(stores["lz4"]) as server:
        store = server.open(tmp_path, patience_s=1)
        server.faults += [fault] * 1000
        with pytest.raises(RemoteError, match=rf"gave up after \d+ attempts in 1 s \({message}\); see"):
            store.open_reader("s2_60m", ("B01",)).read(np.array([0]), np.zeros((1, 1, 20, 20), np.uint16), None)
        server.faults.clear()


def test_a_server_that_goes_is_given_up(stores: dict[str, Path], tmp_path: Path) -> None:
    with serve(stores["lz4"]) as server:
        store = server.open(tmp_path, patience_s=1)
    with pytest.raises(RemoteError, match=r"gave up after \d+ attempts .*ConnectionRefusedError"):
        store.open_reader("s2_60m", ("B01",)).read(np.array([0]), np.zeros((1, 1, 20, 20), np.uint16), None)


def test_a_server_that_is_restarted_in_mid_epoch_is_waited_for(
    stores: dict[str, Path], local: Store, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": 4, "order": "window", "window": 1, "prefetch_bytes": 1, "bands": "s2_60m"}
    with ExitStack() as stack, Stream(local.select("train"), **options) as expected:
        with serve(stores["lz4"]) as server:
            stream = stack.enter_context(Stream(server.open(tmp_path, cache_bytes=1).select("train"), **options))
            batches = zip(stream.forever(), expected.forever(), strict=True)
            next(batches)
        restart = threading.Timer(0.5, lambda: stack.enter_context(serve(stores["lz4"], port=server.server_port)))
        restart.start()
        for found, wanted in islice(batches, 2 * len(expected)):
            np.testing.assert_array_equal(found["s2_60m"], wanted["s2_60m"])
        restart.join()


def test_bytes_that_only_trickle_are_given_up(stores: dict[str, Path], tmp_path: Path) -> None:
    def trickle(handler: Any, content: bytes) -> None:
        handler.answer(content, share=0)
        while not handler.server.ended.wait(0.1):
            handler.wfile.write(b"x")

    with serve(stores["lz4"], [trickle]) as server:
        store = server.open(tmp_path, patience_s=1, stall_s=60)
        with pytest.raises(RemoteError, match=r"gave up after 1 attempts in 1 s \(.*too slow"):
            store.open_reader("s2_60m", ("B01",)).read(np.array([0]), np.zeros((1, 1, 20, 20), np.uint16), None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (fail(401), r"\(401 Unauthorized\); the credentials"),
        (fail(403), r"\(403 Forbidden\); the credentials"),
        (
            fail(400, b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"),
            r"\(400 Bad Request, ExpiredToken\); the credentials, or others of the storage_options, are wrong, expired",
        ),
        (fail(451), r"\(451 Unavailable For Legal Reasons\); see whether the URL is right"),
        (fail(302, Location="/manifest.json"), r"\(302 Found\); see whether the URL is right"),
    ],
)
def test_a_server_that_refuses_is_asked_once(
    stores: dict[str, Path], tmp_path: Path, answer: Fault, message: str
) -> None:
    with serve(stores["lz4"]) as server:
        server.faults += [answer] * 31
        server.at = "manifest"
        with pytest.raises(RemoteError, match=f"{server.url}/manifest.json: cannot be fetched .*{message}"):
            server.open(tmp_path)
        assert len(server.requests) in (1, 31)
        server.faults.clear()


def test_options_of_http_reach_the_server(stores: dict[str, Path], tmp_path: Path) -> None:
    seen = []

    def look(handler: Any, content: bytes) -> None:
        seen.append((handler.headers["Authorization"], handler.headers["X-Token"]))
        handler.answer(content)

    with serve(stores["lz4"], [look], at="manifest") as server:
        server.open(tmp_path, storage_options={"auth": ("user", "word"), "headers": {"X-Token": "abc"}})
        with pytest.raises(OptionError, match=r"storage_options of HTTP are auth, cert, headers, .* not key"):
            server.open(tmp_path, storage_options={"key": "abc"})
    assert seen == [("Basic dXNlcjp3b3Jk", "abc")]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_kept_shard_that_is_damaged_is_fetched_again(
    served: HttpServer, local: Store, tmp_path: Path, damage: str
) -> None:
    _assert_same_batches(served.open(tmp_path), local, bands="s2_60m")
    (kept,) = tmp_path.rglob("s2_60m/c/0/0/0/0")
    whole = kept.read_bytes()
    kept.write_bytes({"cut": whole[:-1], "flipped": b"x" * 200 + whole[200:], "emptied": b""}[damage])
    n_before = len(served.requests)
    _assert_same_batches(served.open(tmp_path), local, bands="s2_60m")
    assert kept.read_bytes() == whole
    assert served.list_shards()[-1:] == served.requests[n_before + 1 :] == ["/images.zarr/s2_60m/c/0/0/0/0"]


def test_a_damaged_shard_that_two_threads_open_at_once_is_fetched_again(
    served: HttpServer, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it last does not bring back what the other has found to be damaged."""
    row, out, expected = np.array([0]), np.zeros((1, 2, 20, 20), np.uint16), np.zeros((1, 2, 20, 20), np.uint16)
    local.open_reader("s2_60m", ("B01", "B09")).read(row, expected, None)
    served.open(tmp_path).open_reader("s2_60m", ("B01", "B09")).read(row, out, None)
    (kept,) = tmp_path.rglob("s2_60m/c/0/0/0/0")
    kept.write_bytes(b"x" * 200 + kept.read_bytes()[200:])
    store = served.open(tmp_path)
    reader, others = store.open_reader("s2_60m", ("B01", "B09")), store.open_reader("s2_60m", ("B01", "B09"))
    threads = [threading.Thread(target=others.read, args=(row, out, None))]
    open_object = store.objects.open

    def open_slowly(*args: Any) -> int:
        descriptor = open_object(*args)
        if threads:
            thread = threads.pop()
            thread.start()
            thread.join()
        return descriptor

    monkeypatch.setattr(store.objects, "open", open_slowly)
    for found in (out, np.zeros_like(out)):
        reader.read(row, found, None)
        np.testing.assert_array_equal(found, expected)


def test_a_kept_shard_that_is_damaged_again_is_named_with_its_url(served: HttpServer, tmp_path: Path) -> None:
    store = served.open(tmp_path)
    reader = store.open_reader("s2_60m", ("B01",), check="always")
    out = np.zeros((1, 1, 20, 20), np.uint16)
    for _ in range(2):
        reader.read(np.array([0]), out, None)
        (kept,) = tmp_path.rglob("s2_60m/c/0/0/0/0")
        with kept.open("r+b") as file:  # the mapping sees it
            file.write(b"x" * 200)
    with pytest.raises(ReadError, match="crc32c") as error:
        reader.read(np.array([0]), out, None)
    for part in (f"{served.url}/images.zarr/s2_60m/c/0/0/0/0", str(kept), "patch 0", "choose another cache_dir"):
        assert part in str(error.value)
    assert "convert" not in str(error.value)


def test_the_cache_stays_within_its_limit(served: HttpServer, local: Store, tmp_path: Path) -> None:
    limit = 3_000_000
    _assert_same_batches(served.open(tmp_path, cache_bytes=limit), local, order="window", window=1)
    assert _measure_files(tmp_path.glob("**/c/**/*")) <= limit
    assert len(served.list_shards()) > len(set(served.list_shards()))


def _measure_files(paths: Iterable[Path]) -> int:
    """Count the bytes of files, some of which may be removed meanwhile: what was asked for ahead is still fetched."""
    n_bytes = 0
    for path in paths:
        with suppress(FileNotFoundError):
            n_bytes += path.stat().st_size if path.is_file() else 0
    return n_bytes


def test_stores_that_share_a_cache_stay_within_its_limit_and_nothing_else_goes(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    """The oldest files of all are somebody's own, in the same folder and behind links in it."""
    own = Path(shutil.copytree(stores["none"], tmp_path / "cache" / "own"))
    elsewhere = Path(shutil.copytree(stores["none"], tmp_path / "elsewhere"))
    (tmp_path / "cache" / "link").symlink_to(elsewhere)
    shutil.copy(own / "manifest.json", elsewhere / "CACHEDIR.TAG")
    limit = 3_000_000
    kept = 0
    for codec in ("lz4", "zstd"):
        with serve(stores[codec]) as server:
            store = server.open(tmp_path / "cache", cache_bytes=limit)
            folder = tmp_path / "cache" / store.fingerprint
            shutil.copy(folder / "CACHEDIR.TAG", elsewhere)
            (folder / "images.zarr/linked/c").mkdir(parents=True)
            (folder / "images.zarr/linked/c/0").symlink_to(elsewhere / "images.zarr/s2_10m/c/0")
            (folder / "images.zarr/linked/c/1").symlink_to(elsewhere / "images.zarr/s2_10m/c/1/0/0/0")
            (folder / "images.zarr/linked/c/notes.txt").write_text("mine")
            for path in tmp_path.rglob("*"):
                os.utime(path, (0, 0), follow_symlinks=False)
            _assert_same_batches(store, open_store(stores[codec]), order="window", window=1)
            assert len(list(folder.glob("images.zarr/linked/c/*"))) == 3
        kept = _measure_files(folder.glob("images.zarr/s2_*/c/*/0/0/0"))
    assert 0 < kept <= limit
    assert len({path.parents[6] for path in tmp_path.glob("cache/*/images.zarr/s2_*/c/*/0/0/0")} - {own}) == 2
    for folder in (own, elsewhere):
        _assert_same_batches(open_store(folder), open_store(stores["none"]))


def test_two_processes_may_share_a_cache(served: HttpServer, tmp_path: Path) -> None:
    code = (
        "import sys, hashlib, trainer\n"
        "store = trainer.open_store(sys.argv[1], cache_dir=sys.argv[2], cache_bytes=int(sys.argv[3]))\n"
        "digest = hashlib.sha256()\n"
        "with trainer.Stream(store.select('train'), batch_size=12, order='window', window=1) as stream:\n"
        "    for _ in range(2):\n"
        "        for batch in stream:\n"
        "            digest.update(batch['s2_10m'].tobytes())\n"
        "print(digest.hexdigest())"
    )
    command = [sys.executable, "-c", code, served.url, str(tmp_path), "3000000"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [run.communicate(timeout=120)[0].strip() for run in runs]
    assert found[0] == found[1] != ""
    assert [run.returncode for run in runs] == [0, 0]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_what_another_process_is_fetching_is_not_removed_to_make_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1)
    cache.bind("content")
    folder = tmp_path / "content/images.zarr/s2_10m/c/7"
    folder.mkdir(parents=True)
    for name in (".0.0123abcd", ".0.4567cdef", ".notes"):
        (folder / name).write_bytes(b"part of a shard")
    for name in (".0.4567cdef", ".notes"):
        os.utime(folder / name, (0, 0))
    for number in range(2):
        with cache.add(f"images.zarr/s2_10m/c/{number}/0/0/0") as file:
            file.write(b"a shard")
    kept = {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*") if path.is_file()}
    assert kept == {"1/0/0/0", "7/.0.0123abcd", "7/.notes"}


def test_nothing_half_fetched_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    cache.bind("content")

    def fetch() -> None:
        with cache.add("shard") as file:
            file.write(b"pix")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fetch()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["CACHEDIR.TAG"]


def test_a_store_that_was_written_anew_never_meets_its_old_shards(stores: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stores["lz4"], tmp_path / "served"))
    with serve(folder) as server:
        _assert_same_batches(server.open(tmp_path / "cache"), open_store(stores["lz4"]))
        shutil.rmtree(folder)
        shutil.copytree(stores["none"], folder)
        assert open_store(stores["none"]).fingerprint != open_store(stores["lz4"]).fingerprint
        _assert_same_batches(server.open(tmp_path / "cache"), open_store(stores["none"]))


def test_a_table_with_the_same_content_in_other_bytes_is_fetched_anew(
    stores: dict[str, Path], local: Store, tmp_path: Path
) -> None:
    """The fingerprint, which names the folder of the cache, is of the content alone."""
    folder = Path(shutil.copytree(stores["lz4"], tmp_path / "served"))
    with serve(folder) as server:
        server.open(tmp_path / "cache")
        pq.write_table(pq.read_table(folder / "patches.parquet"), folder / "patches.parquet", compression="gzip")
        seal_again(folder)
        _assert_same_batches(server.open(tmp_path / "cache"), local)
    (kept,) = (tmp_path / "cache").rglob("patches.parquet")
    assert kept.read_bytes() == (folder / "patches.parquet").read_bytes()


def test_damage_of_small_files_on_the_server_and_in_the_cache_is_noticed(
    copy_store: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy_store("lz4")
    with serve(folder) as server:
        server.open(tmp_path / "cache")
        (kept,) = (tmp_path / "cache").rglob("patches.parquet")
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1])
        server.open(tmp_path / "cache")
        assert kept.read_bytes() == whole
        for name in ("patches.parquet", "images.zarr/zarr.json"):
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content + b" ")
            with pytest.raises(StoreError, match=f"{server.url}/{name}: .*on the server is damaged"):
                server.open(tmp_path / "another cache")
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("fingerprint", ["../" * 8 + "tmp/elsewhere", "/tmp/elsewhere", "..", "", "A" * 32])
def test_a_fingerprint_that_is_none_never_becomes_a_path(
    fingerprint: str, copy_store: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy_store("lz4")
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content["fingerprint"] = fingerprint
    checksum = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content | {"checksum": checksum}, separators=(",", ":")))
    with serve(folder) as server, pytest.raises(StoreError, match="does not describe a store"):
        server.open(tmp_path / "cache" / "deep")
    assert not (tmp_path / "cache").exists()


def test_a_shard_that_is_missing_on_the_server_is_named(copy_store: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_store("lz4")
    (folder / "images.zarr/s2_20m/c/0/0/0/0").unlink()
    with (
        serve(folder) as server,
        Stream(server.open(tmp_path / "cache").select("train"), order="window") as stream,
        pytest.raises(ReadError, match=r"s2_20m, shard 0 .*missing"),
    ):
        next(iter(stream))


def test_what_is_not_a_store_on_a_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server:
        with pytest.raises(StoreError, match="finished store"):
            server.open(tmp_path)
        for name in ("cache_bytes", "stall_s", "patience_s"):
            with pytest.raises(OptionError, match=f"{name} must be positive"):
                server.open(tmp_path, **{name: 0})
    with pytest.raises(RemoteError, match="cannot be fetched"):
        open_store("http://127.0.0.1:1/store", cache_dir=tmp_path, patience_s=0.1)
    with pytest.raises(StoreError, match="nothing-known://store: expected a folder, or a URL"):
        open_store("nothing-known://store", cache_dir=tmp_path)


def test_what_is_kept_has_the_permissions_of_any_new_file(served: HttpServer, tmp_path: Path) -> None:
    served.open(tmp_path / "cache")
    (tmp_path / "new").touch()
    assert {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()} == {
        (tmp_path / "new").stat().st_mode
    }


def test_a_server_needs_packages_that_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(MissingPackageError, match=r"s3://bucket/store: .*botocore.*; pip install .*\[remote\]"):
        open_store("s3://bucket/store", cache_dir=tmp_path)


def test_a_local_store_may_be_given_as_a_url(stores: dict[str, Path]) -> None:
    assert open_store(stores["lz4"].as_uri()).name == str(stores["lz4"])


@pytest.mark.parametrize("at", ["manifest", "parquet", "s2_20m/c/"])
def test_ctrl_c_ends_a_program_that_waits_for_a_stalled_server(
    stores: dict[str, Path], tmp_path: Path, at: str
) -> None:
    """It would wait for ten minutes."""
    with serve(stores["lz4"], [stall] * 20, at=at) as server:
        program = subprocess.Popen(
            [sys.executable, "-m", "trainer", "bench", server.url],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        )
        assert server.stalling.wait(60)
        time.sleep(1)  # until its main thread waits, too: Python may lose a thread whose start is interrupted
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=60)
        assert (program.returncode, err) == (130, "\n\nInterrupted.\n")
        server.faults.clear()


def test_ctrl_c_ends_a_script_that_does_not_close_its_stream(stores: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, trainer\n"
        "stream = trainer.Stream(trainer.open_store(sys.argv[1], cache_dir=sys.argv[2]).select(), batch_size=12)\n"
        "list(stream)"
    )
    with serve(stores["lz4"], [stall] * 20) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stalling.wait(60)
        time.sleep(1)  # until its main thread waits, too: Python may lose a thread whose start is interrupted
        script.send_signal(signal.SIGINT)
        _, err = script.communicate(timeout=60)
        assert script.returncode == -signal.SIGINT
        assert err.endswith("KeyboardInterrupt\n")
        server.faults.clear()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    """A running S3 server."""
    with run_s3(tmp_path / "weed") as server:
        yield server


@pytest.mark.filterwarnings("default")  # botocore's own deprecations
def test_s3_gives_the_batches_of_the_local_store(
    stores: dict[str, Path], local: Store, s3: S3Server, tmp_path: Path
) -> None:
    s3.upload(stores["lz4"], "bucket")
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "storage_options": s3.options}
    _assert_same_batches(open_store("s3://bucket/store", **options), local, order="window", window=2)
    stage("s3://bucket/store", tmp_path / "part", StageOptions(recommended=False), storage_options=s3.options)
    _assert_same_batches(open_store(tmp_path / "part"), local, order="window", window=2)
    with pytest.raises(StoreError, match="finished store"):
        open_store("s3://bucket/nothing", **options)
    options["storage_options"] = s3.options | {"aws_secret_access_key": "wrong"}
    with pytest.raises(RemoteError, match=r"\(403 Forbidden, SignatureDoesNotMatch\); the credentials"):
        open_store("s3://bucket/store", **options)
    options["storage_options"] = s3.options | {"aws_access_key_id": "unknown"}
    with pytest.raises(RemoteError, match=r"\(403 Forbidden, InvalidAccessKeyId\); the credentials"):
        open_store("s3://bucket/store", **options)
    options["storage_options"] = {"endpoint_url": s3.options["endpoint_url"], "anonymous": True}
    with pytest.raises(RemoteError, match=r"\(403 Forbidden, AccessDenied\); the credentials"):
        open_store("s3://bucket/store", **options)
    options["storage_options"] = {"endpoint": s3.options["endpoint_url"]}
    with pytest.raises(OptionError, match=r"storage_options: .*'endpoint'"):
        open_store("s3://bucket/store", **options)
