"""How fast are shards fetched from an HTTP server, against other clients and against the line? Rounds are interleaved.

  ours              compared with size and checksums, flushed to disk and kept
  obstore, fsspec   written to files as they come
  floor             http.client, into memory that is used again

Each fetches four shards at a time, of 5 to 15 MB, from a process on this machine that answers after some milliseconds.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c

from bigearthnet.store.cache import Cache
from bigearthnet.store.objects import StoredObject
from bigearthnet.store.remote import RemoteObjects
from bigearthnet.store.shard import hash_shard, write_shard

SHARD_SIZE = 256
THREADS = 4


def write_shards(folder: Path, n_shards: int) -> list[StoredObject]:
    """Write shards of noise."""
    chunks, wanted = random.Random(0), []
    for number in range(n_shards):
        pixels = [chunks.randbytes(chunks.randint(20_000, 60_000)) for _ in range(SHARD_SIZE)]
        sealed = [chunk + google_crc32c.value(chunk).to_bytes(4, "little") for chunk in pixels]
        path = folder / f"images.zarr/noise/c/{number}/0/0/0"
        write_shard(str(path), sealed, SHARD_SIZE)
        content = path.read_bytes()
        hash_content = partial(hash_shard, shard_size=SHARD_SIZE)
        key = path.relative_to(folder).as_posix()
        wanted.append(StoredObject(key, len(content), hash_content(content), hash_content))
    return wanted


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    latency_s: float

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.connection.sendfile((self.folder / self.answer()).open("rb"))

    def answer(self) -> str:
        time.sleep(self.latency_s)
        name = self.path.removeprefix("/")
        self.send_response(200)
        self.send_header("Content-Length", str((self.folder / name).stat().st_size))
        self.end_headers()
        self.wfile.flush()
        return name


def run_server(folder: Path, latency_s: float, port: Any) -> None:
    handler = type("Served", (Handler,), {"folder": folder, "latency_s": latency_s})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    port.send(server.server_port)
    server.serve_forever()


def fetch_ours(url: str, wanted: list[StoredObject], out: Path) -> None:
    objects = RemoteObjects(url, Cache(out, 2**40), {}, 20, 600)
    objects.bind("content")
    objects.fetch_ahead(wanted)
    for one in wanted:
        objects.path(one)


def fetch_obstore(url: str, wanted: list[StoredObject], out: Path) -> None:
    from obstore.store import HTTPStore

    store = HTTPStore(url, client_options={"allow_http": True})

    def fetch(number: int) -> None:
        with (out / str(number)).open("wb") as file:
            for piece in store.get(wanted[number].key).stream(2**20):
                file.write(piece)

    fetch_all(fetch, len(wanted))


def fetch_fsspec(url: str, wanted: list[StoredObject], out: Path) -> None:
    import fsspec

    files = fsspec.filesystem("http", skip_instance_cache=True)
    fetch_all(lambda number: files.get_file(f"{url}/{wanted[number].key}", str(out / str(number))), len(wanted))


def fetch_floor(url: str, wanted: list[StoredObject], _: Path) -> None:
    local = threading.local()

    def fetch(number: int) -> None:
        if not hasattr(local, "line"):
            local.line, local.memory = http.client.HTTPConnection(url.removeprefix("http://")), bytearray(2**20)
        local.line.request("GET", f"/{wanted[number].key}")
        with local.line.getresponse() as response:
            while response.readinto(local.memory):
                pass

    fetch_all(fetch, len(wanted))


def fetch_all(fetch: Callable[[int], object], n: int) -> None:
    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(fetch, range(n)))


CLIENTS = {"ours": fetch_ours, "obstore": fetch_obstore, "fsspec": fetch_fsspec, "floor": fetch_floor}


def measure(folder: Path, wanted: list[StoredObject], latency_ms: int, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=run_server, args=(folder / "served", latency_ms / 1000, there), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name, fetch in CLIENTS.items():
            out = folder / name
            out.mkdir()
            start, used = time.perf_counter(), time.process_time()
            fetch(url, wanted, out)
            times[name].append((time.perf_counter() - start, time.process_time() - used))
            shutil.rmtree(out)
    server.kill()
    floor = statistics.median(wall for wall, _ in times["floor"])
    for name, found in times.items():
        wall, processor = (statistics.median(column) for column in zip(*found, strict=True))
        rate = sum(one.n_bytes for one in wanted) / wall / 1e6
        print(f"{latency_ms:3} ms  {name:8} {rate:6,.0f} MB/s  {floor / wall:.2f} of the floor  CPU {processor:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=int, nargs="*", default=[0, 30])
    parser.add_argument("--folder", type=Path, help="where it works (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        wanted = write_shards(Path(folder, "served"), options.shards)
        for latency_ms in options.latency_ms:
            measure(Path(folder), wanted, latency_ms, options.rounds)
    os._exit(0)  # fsspec's loop would be waited for


if __name__ == "__main__":
    main()
