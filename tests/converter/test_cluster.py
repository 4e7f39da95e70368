"""Clusters: one's own, a running one, none at all, and workers that die."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from bigearthnet.errors import ClusterError
from converter.cluster import open_cluster
from converter.conversion import convert
from converter.events import Advanced, Event, Started
from converter.plan import ShardTask
from converter.task import Job, ShardOutcome
from tests.archives import read_files
from tests.conftest import SmallArchive


def test_a_cluster_of_ones_own_is_spawned_has_a_dashboard_and_leaves_no_process(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with open_cluster(1, None, [str(tmp_path)]) as cluster:
        assert cluster.n_workers == 1
        assert list(cluster.client.nthreads().values()) == [1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/status", cluster.dashboard)
        with urllib.request.urlopen(cluster.dashboard, timeout=30) as page:
            assert page.status == 200
        (worker,) = cluster.client.run(os.getpid).values()
        assert worker != os.getpid()
        assert "spawn" in command_of(psutil.Process(worker))
    left = [process for process in psutil.Process().children(recursive=True) if process not in before]
    _, alive = psutil.wait_procs([process for process in left if "resource_tracker" not in command_of(process)], 20)
    assert alive == []


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_a_running_cluster_is_used_and_left_running(scheduler: str, tmp_path: Path) -> None:
    for _ in range(2):
        with open_cluster(None, scheduler, [str(tmp_path)]) as cluster:
            assert cluster.n_workers == 2


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", "cannot connect: .*(Connection refused|Timed out)"),
        ("tcp://no-such-host.invalid:8786", "cannot connect: "),
        ("foo://head:8786", "cannot connect: unknown address scheme 'foo'"),
        ("tls://127.0.0.1:1", "cannot connect: TLS expects"),
    ],
)
def test_a_scheduler_that_cannot_be_reached_is_named(address: str, reason: str) -> None:
    assert re.match(f"{address}: expected a dask scheduler, {reason}.*; give the address that", refuse(address))


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_listens_and_is_no_scheduler_is_named(greeting: bytes) -> None:
    """Silent, or another protocol, whose first bytes are a length of exbibytes to dask."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                connection.sendall(greeting)
                while connection.recv(1_000):
                    pass
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        said = refuse(address)
        thread.join()
    assert said.startswith(f"{address}: expected a dask scheduler, what listens there does not answer as one; give")


def test_an_http_server_is_no_scheduler() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"tcp://127.0.0.1:{server.server_port}"
        said = refuse(address)
        server.shutdown()
        thread.join()
    assert said.startswith(f"{address}: expected a dask scheduler, what listens there does not answer as one; give")


def refuse(address: str) -> str:
    """Connect in a process of its own, which must be refused and leave nothing behind that keeps it; say why."""
    code = (
        "from converter import cluster; from bigearthnet.errors import ClusterError\n"
        "cluster._CONNECT_SECONDS = 2\n"
        "try:\n"
        f"    cluster.open_cluster(None, {address!r}, []).__enter__()\n"
        "except ClusterError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stderr == ""
    return ended.stdout


def test_a_scheduler_without_workers_is_named() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(ClusterError, match=f"{empty.scheduler_address}: expected dask workers, found none; start some"),
    ):
        open_cluster(None, empty.scheduler_address, []).__enter__()


def test_workers_that_cannot_see_a_folder_are_named(scheduler: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "only here")
    with pytest.raises(ClusterError, match=rf"tcp://.*: cannot see {missing}; use a path that all workers share"):
        open_cluster(None, scheduler, [str(tmp_path), missing]).__enter__()


@pytest.mark.timeout(120)
def test_a_worker_that_dies_is_replaced_and_the_store_is_the_same(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        if isinstance(event, Started) and event.n_workers:
            children = psutil.Process().children(recursive=True)
            workers = [child for child in children if child.pid not in before and child.num_threads() > 1]
            killed.extend(child.pid for child in workers)
        if isinstance(event, Advanced) and killed and event.n_done < event.n_total:
            os.kill(killed.pop(), signal.SIGKILL)
            killed.clear()
            done.append(event.n_done)

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    done: list[int] = []
    convert(small.archive.root, tmp_path / "store", small.options(workers=1, shard_size=4), kill_once)
    assert len(done) == 1
    assert read_files(tmp_path / "store") == read_files(store)


def die(_: Job, __: ShardTask) -> ShardOutcome:
    """Stand for a task that takes its worker down, as running out of memory does."""
    os._exit(1)


@pytest.mark.timeout(120)
def test_a_shard_that_keeps_killing_its_worker_is_one_clear_error(
    small: SmallArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.conversion.convert_shard", die)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(
            ClusterError, match=r"a worker died several times over one shard .*fewer workers or smaller shards"
        ),
    ):
        convert(small.archive.root, tmp_path / "store", small.options(workers=1))


def test_few_tasks_are_in_flight_however_many_there_are(
    small: SmallArchive, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler's memory must not grow with the archive."""
    submitted: list[object] = []
    n_done = 0
    real_submit = Client.submit

    def submit(self: Client, *args: Any, **kwargs: Any) -> Any:
        submitted.append(args)
        return real_submit(self, *args, **kwargs)

    def listen(event: Event) -> None:
        nonlocal n_done
        if isinstance(event, Advanced):
            n_done += 1
            assert len(submitted) - n_done < 2 * 4

    monkeypatch.setattr(Client, "submit", submit)
    convert(small.archive.root, tmp_path / "store", small.options(scheduler=scheduler, shard_size=1), listen)
    assert len(submitted) == n_done == 22
