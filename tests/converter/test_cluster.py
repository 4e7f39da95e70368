"""Clusters: one's own, a running one, none at all, and workers that die."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster, get_worker

from bigearthnet import __version__
from bigearthnet.errors import ClusterError
from converter.cluster import open_cluster
from converter.conversion import convert
from converter.events import Advanced, Event, Started, Waiting
from converter.options import ClusterOptions
from converter.plan import ShardTask
from converter.task import Job, ShardOutcome
from tests.archives import read_files
from tests.conftest import SmallArchive


def test_a_cluster_of_ones_own_is_spawned_has_a_dashboard_and_leaves_no_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    with open_cluster(ClusterOptions(workers=1), []) as cluster:
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


def test_no_thread_of_a_worker_is_looked_at_while_others_start(scheduler: str) -> None:
    """With Python 3.11 that can stop the worker, and so the conversion, for good."""
    found: list[bool] = []
    with open_cluster(ClusterOptions(scheduler=scheduler), []) as cluster:
        cluster.run(is_profiled, range(3), found.append)
    assert found == [False] * 3


def is_profiled(_: int) -> bool:
    return get_worker().periodic_callbacks["profile"].is_running()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_a_running_cluster_is_used_and_left_running(scheduler: str) -> None:
    for _ in range(2):
        with open_cluster(ClusterOptions(scheduler=scheduler), []) as cluster:
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
    refused = refuse(address)
    assert re.match(f"{address}: expected a dask scheduler, {reason}.*; give the address that", refused)
    assert "object at" not in refused


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
        "from converter import scheduler; scheduler.CONNECT_SECONDS = 2\n"
        "from bigearthnet.errors import ClusterError; from converter.cluster import ClusterOptions, open_cluster\n"
        "try:\n"
        f"    open_cluster(ClusterOptions(scheduler={address!r}), []).__enter__()\n"
        "except ClusterError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stderr == ""
    return ended.stdout


def test_a_scheduler_without_workers_is_named() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(ClusterError, match=f"{empty.scheduler_address}: expected dask workers, found none in 0.1 s"),
    ):
        open_cluster(ClusterOptions(scheduler=empty.scheduler_address, worker_wait_s=0.1), []).__enter__()


def test_workers_that_cannot_see_a_folder_are_named(scheduler: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "only here")
    with pytest.raises(ClusterError, match=rf"tcp://.*: cannot see what is in {missing}; mount it there, or use"):
        open_cluster(ClusterOptions(scheduler=scheduler), [str(Path(__file__).parent), missing]).__enter__()


def test_what_a_worker_found_while_a_folder_went_away_is_not_believed(scheduler: str, tmp_path: Path) -> None:
    mounted, outcomes = tmp_path / "mounted", list[bool]()
    (mounted / "patch").mkdir(parents=True)
    with (
        open_cluster(ClusterOptions(scheduler=scheduler), [str(mounted)]) as cluster,
        pytest.raises(ClusterError, match=f"cannot see what is in {mounted}"),
    ):
        cluster.run(unmount, [mounted], outcomes.append)
    assert outcomes == []


def unmount(folder: Path) -> bool:
    """Leave a folder as `umount` does."""
    (folder / "patch").rmdir()
    return True


@contextmanager
def start(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of dask's own programs, in a session of its own."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen([sys.executable, *map(str, command)], **silent) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def worker_of(scheduler: Path | str, *before: object) -> tuple[object, ...]:
    """Spell the command of a worker of one thread."""
    found = ["--scheduler-file", scheduler] if isinstance(scheduler, Path) else [scheduler]
    return *(before or ("-m", "dask", "worker")), *found, "--no-nanny", "--nthreads", "1", "--no-dashboard"


@pytest.mark.timeout(120)
def test_the_scheduler_of_a_file_and_its_workers_may_come_late_and_go(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    """As on a batch system: the conversion waits for all of them, and goes on when the only worker was preempted."""
    file = tmp_path / "scheduler.json"
    happened: list[str] = []
    with ExitStack() as stack:
        workers: list[subprocess.Popen[bytes]] = []

        def act(event: Event) -> None:
            if isinstance(event, Waiting):
                happened.append("waiting")
                workers.append(stack.enter_context(start(*worker_of(file))))
            if isinstance(event, Advanced) and event.n_done < event.n_total and len(workers) == 1:
                happened.append("killed")
                os.killpg(workers[0].pid, signal.SIGKILL)
                workers[0].wait()

        def start_scheduler() -> None:
            command = ("-m", "dask", "scheduler", "--scheduler-file", file, "--port", 0, "--no-dashboard")
            stack.enter_context(start(*command, "--host", "127.0.0.1"))

        timer = threading.Timer(1, start_scheduler)
        timer.start()
        convert(small.archive.root, tmp_path / "store", small.options(scheduler=str(file), shard_size=4), act)
        timer.join()
    assert happened == ["waiting", "killed", "waiting"]
    assert read_files(tmp_path / "store") == read_files(store)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("[]", "Expected `object`"), ("{", "truncated"), ('{"address": "tcp://127.0.0.1:1"}', "")],
)
def test_a_scheduler_file_that_leads_nowhere_is_named(content: str | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ClusterError, match=f"{file}: expected the file of .* found none in 0 s .*: .*{reason}"):
        open_cluster(ClusterOptions(scheduler=str(file), worker_wait_s=0), []).__enter__()


DASK_WORKER = "from distributed.cli.dask_worker import main; main()"
OLD = f"import bigearthnet; bigearthnet.__version__ = '0.0.1'; {DASK_WORKER}"
OTHER = f"import converter.workers; converter.workers._name_python = lambda: '3.99'; {DASK_WORKER}"
BARE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("bigearthnet", "converter"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
{DASK_WORKER}
"""


@pytest.mark.timeout(120)
def test_a_worker_of_another_version_is_named_at_the_start_and_when_it_comes_late(
    small: SmallArchive, tmp_path: Path
) -> None:
    reason = rf"tcp://.*: expected version {__version__} of this package, found 0.0.1"
    with pytest.raises(ClusterError, match=reason):
        convert_with_late_worker(OLD, small, tmp_path / "store", reason)


def test_a_worker_of_another_python_is_named(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        start(*worker_of(cluster.scheduler_address, "-c", OTHER)),
        pytest.raises(ClusterError, match=r"tcp://.*: expected Python 3\.\d+ as in the main process, found 3\.99"),
    ):
        open_cluster(ClusterOptions(scheduler=cluster.scheduler_address), [str(tmp_path)]).__enter__()


@pytest.mark.timeout(120)
def test_a_worker_without_the_package_is_named_at_the_start_and_takes_no_part_when_it_comes_late(
    small: SmallArchive, store: Path, tmp_path: Path
) -> None:
    reason = "tcp://.*: cannot import this package .*No module named 'converter'.*; install it there"
    convert_with_late_worker(BARE, small, tmp_path / "store", reason)
    assert read_files(tmp_path / "store") == read_files(store)


def convert_with_late_worker(code: str, small: SmallArchive, store: Path, reason: str) -> None:
    """Convert with a good worker, to which another comes that would have been refused at the start."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        ExitStack() as stack,
    ):
        address = cluster.scheduler_address
        options = ClusterOptions(scheduler=address)

        def add() -> None:
            stack.enter_context(start(*worker_of(address, "-c", code)))
            with Client(address) as client:
                client.wait_for_workers(2)

        with start(*worker_of(address, "-c", code)) as early, Client(address) as client:
            client.wait_for_workers(2)
            with pytest.raises(ClusterError, match=reason):
                open_cluster(options, []).__enter__()
            os.killpg(early.pid, signal.SIGKILL)
            while len(client.nthreads()) > 1:
                time.sleep(0.05)

        convert(
            small.archive.root,
            store,
            small.options(scheduler=address, shard_size=4),
            lambda event: add() if isinstance(event, Started) else None,
        )


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


@pytest.mark.parametrize("piped", [False, True])
def test_a_script_that_workers_cannot_import_is_told_before_any_is_started(
    piped: bool, small: SmallArchive, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    paths = (str(small.archive.root), str(tmp_path / "store"), str(small.lists))
    script.write_text(
        "import sys; from pathlib import Path; from converter.conversion import ConvertOptions, convert\n"
        f"raw, store, lists = {paths!r}\n"
        "convert(raw, store, ConvertOptions(lists=Path(lists), workers=1))\n"
    )
    command = [sys.executable, "-" if piped else str(script)]
    ended = subprocess.run(
        command, input=script.read_text() if piped else "", capture_output=True, text=True, check=False, timeout=60
    )
    *_, last = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1, "that of the script itself"
    assert last.endswith(
        "<stdin>: worker processes import the script that calls this; save it as a file"
        if piped
        else f"{script}:3: worker processes import this script, and would run it again; put this line below "
        "`if __name__ == '__main__':`"
    )
