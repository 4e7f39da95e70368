"""Run shard tasks on a dask cluster. The only importer of dask.

At most a few tasks a worker are in flight, so the scheduler's memory does not grow with the archive. Dask runs a task
again when its worker dies; a task is safe to run twice, since it renames whole files into place.

Dask reports on stderr, with pages of tracebacks, what here is one error or none at all: a worker that is replaced, a
scheduler that went away, an interruption. So its logs are silenced, and Ctrl-C is kept from its processes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from typing import Final, TypeVar

from distributed import Client, Future, LocalCluster, Security, Worker, as_completed
from distributed.comm.core import CommClosedError, connect
from distributed.scheduler import KilledWorker

from bigearthnet import __version__
from bigearthnet.errors import ClusterError
from bigearthnet.machine import count_cores
from converter.interrupts import hold_interrupts

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

_IN_FLIGHT_PER_THREAD: Final = 3
"""Tasks submitted ahead for each worker thread: enough that none waits for the scheduler."""

_CONNECT_SECONDS: Final = 5
"""Time that a scheduler has to answer; one at work takes milliseconds."""
_POLL_S: Final = 0.05

_SILENT: Final = logging.CRITICAL + 1
"""A level that nothing is logged at."""


@dataclass(frozen=True)
class Cluster:
    """A running dask cluster."""

    client: Client
    n_workers: int
    dashboard: str
    """URL of dask's own page of progress and load."""

    def run(
        self, work: Callable[[Task], Outcome], tasks: Iterable[Task], on_outcome: Callable[[Outcome], None]
    ) -> None:
        """Run tasks, reporting each as it ends, in no particular order.

        Args:
            work: What to do with a task; it and its arguments and results must pickle.
            tasks: The tasks, all different; taken a few at a time, as workers become free.
            on_outcome: Called in this process with what `work` returned.

        Raises:
            ClusterError: A task keeps killing its worker. Errors of `work` itself are passed on.
        """
        n_threads = max(1, sum(self.client.nthreads().values()))
        waiting = iter(tasks)
        futures = {self._submit(work, task) for task in islice(waiting, n_threads * _IN_FLIGHT_PER_THREAD)}
        ended = as_completed(futures)
        try:
            for future in ended:
                futures.discard(future)
                on_outcome(future.result())
                for task in islice(waiting, 1):
                    submitted = self._submit(work, task)
                    futures.add(submitted)
                    ended.add(submitted)
        except (CancelledError, CommClosedError):
            futures.clear()  # a lost scheduler cannot be asked what still runs
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"a worker died several times over one shard ({error}); it may have run out of memory: use fewer "
                "workers or smaller shards. What is finished is kept, the same command goes on"
            ) from error
        finally:
            self._settle(futures)

    def _submit(self, work: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        return self.client.submit(work, task, pure=False)

    def _settle(self, futures: Collection[Future[Outcome]]) -> None:
        """Return only when no worker runs any of the tasks: a task that writes must not outlive the run."""
        if not futures:
            return
        keys = {future.key for future in futures}
        with suppress(OSError, TimeoutError, CancelledError):  # the scheduler is gone, and its workers with it
            self.client.cancel(list(futures))
            while any(self.client.run(_is_running, keys).values()):
                time.sleep(_POLL_S)


def _is_running(keys: Collection[str], dask_worker: Worker) -> bool:
    return any(task.key in keys for task in dask_worker.state.executing)


@contextmanager
def open_cluster(n_workers: int | None, scheduler: str | None, folders: Sequence[str]) -> Iterator[Cluster]:
    """Start a cluster on this machine, or connect to a running one.

    Args:
        n_workers: Worker processes to start, one a core if None. They are spawned, never forked: a forked child
            inherits the locks of threads it does not have.
        scheduler: Address of a running scheduler, such as `tcp://head:8786`; no worker is started then.
        folders: What every worker must be able to see.

    Raises:
        ClusterError: The scheduler cannot be reached or has no workers, or its workers lack this version or a folder.
    """
    with _silence_logs(), ExitStack() as stack:
        address = stack.enter_context(_start_cluster(n_workers)) if scheduler is None else scheduler
        yield stack.enter_context(_connect(address, scheduler or "the local cluster", folders))


@contextmanager
def _start_cluster(n_workers: int | None) -> Iterator[LocalCluster]:
    """Start worker processes, and end them at once when they are not needed any more."""
    with _mask_interrupts():
        try:
            cluster = LocalCluster(
                n_workers=n_workers or count_cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=_SILENT,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"worker processes cannot be started: {error}; try fewer workers") from error
    try:
        yield cluster
    finally:
        with _mask_interrupts():
            cluster.close()


@contextmanager
def _connect(address: str | LocalCluster, name: str, folders: Sequence[str]) -> Iterator[Cluster]:
    """Connect to a scheduler; if it goes away later, say so instead of what broke first."""
    if isinstance(address, str):
        _greet(address)
    with _mask_interrupts():
        try:
            client = Client(address, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(f"{name}: expected a dask scheduler, cannot connect: {error}") from error
    try:
        yield _check_workers(client, name, folders)
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(
            f"{name}: the connection to the dask scheduler was lost. What is finished is kept: once it runs again, or "
            "without it, the same command goes on"
        ) from error
    finally:
        with _mask_interrupts():
            client.close()


def _greet(address: str) -> None:
    """Make sure that a dask scheduler answers: a client would wait for ever for whatever else listens there."""

    async def exchange_greetings() -> None:
        arguments = Security().get_connection_args("client")
        async with asyncio.timeout(_CONNECT_SECONDS):
            comm = await connect(address, timeout=_CONNECT_SECONDS / 2, **arguments)
        comm.abort()

    advice = "give the address that `dask scheduler` prints, and see that it runs"
    try:
        with ThreadPoolExecutor(1) as thread:  # in a notebook this one has a loop of its own
            thread.submit(asyncio.run, exchange_greetings()).result()
    except (TimeoutError, MemoryError) as error:  # silence, or the text of another protocol taken for a length
        raise ClusterError(
            f"{address}: expected a dask scheduler, what listens there does not answer as one; {advice}"
        ) from error
    except Exception as error:  # whatever else the bytes of another protocol lead to
        reason = str(error.__cause__ or "") or str(error)  # the cause has no text if the last attempt had no time left
        raise ClusterError(f"{address}: expected a dask scheduler, cannot connect: {reason}; {advice}") from error


@contextmanager
def _silence_logs() -> Iterator[None]:
    """Keep what dask and its libraries log in this process from stderr; they give many loggers a level of their own."""
    libraries = {"asyncio", "bokeh", "distributed", "tornado"}
    names = libraries | {name for name in logging.root.manager.loggerDict if name.partition(".")[0] in libraries}
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _mask_interrupts() -> Iterator[None]:
    """Put Ctrl-C off while a cluster starts or ends, which takes seconds and cannot be cut short cleanly.

    A terminal sends it to every process in the foreground. Processes that are started meanwhile, and the threads that
    will replace them, inherit a mask that keeps it from them: this process alone decides what it means.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _start_resource_tracker()
    with hold_interrupts():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_resource_tracker() -> None:
    """Start the process that multiprocessing needs now, since it undoes the mask; it need not tell of our death."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _check_workers(client: Client, name: str, folders: Sequence[str]) -> Cluster:
    """Ask every worker what it sees, which also makes it import what tasks need before the first one comes."""
    if not client.nthreads():
        raise ClusterError(f"{name}: expected dask workers, found none; start some and run the same command again")
    try:
        seen = client.run(_look_around, list(folders))
    except ImportError as error:
        raise ClusterError(f"{name}: its workers cannot import this package ({error}); install it there") from error
    for worker, (version, missing) in seen.items():
        if version != __version__:
            raise ClusterError(f"{worker}: expected version {__version__} of this package, found {version}")
        if missing:
            raise ClusterError(f"{worker}: cannot see {', '.join(missing)}; use a path that all workers share")
    return Cluster(client, len(seen), client.dashboard_link)


def _look_around(folders: list[str]) -> tuple[str, list[str]]:
    return __version__, [folder for folder in folders if not os.path.isdir(folder)]
