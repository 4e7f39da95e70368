"""Run shard tasks on a dask cluster. Only this, `scheduler` and `workers` import dask.

At most a few tasks a worker are in flight, so the scheduler's memory does not grow with the archive. Dask runs a task
again when its worker dies; a task is safe to run twice, since it renames whole files into place.

Dask reports on stderr, with pages of tracebacks, what here is one error or none at all: a worker that is replaced, a
scheduler that went away, an interruption. So its logs are silenced, and Ctrl-C is kept from its processes.
"""

from __future__ import annotations

import ast
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Final

from distributed import Client, Future, LocalCluster, Worker, wait
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from bigearthnet.errors import ClusterError
from bigearthnet.machine import count_cores
from converter.events import OnEvent, ignore
from converter.interrupts import hold_interrupts
from converter.options import ClusterOptions
from converter.scheduler import CONNECT_SECONDS, find_scheduler
from converter.workers import GOES_ON, LOOK_S, Outcome, Task, Workers, run_there

_IN_FLIGHT_PER_THREAD: Final = 3
"""Tasks submitted ahead for each worker thread: enough that none waits for the scheduler."""

_POLL_S: Final = 0.05
_SILENT: Final = logging.CRITICAL + 1
"""A level that nothing is logged at."""


@dataclass(frozen=True)
class Cluster:
    """A running dask cluster, whose workers may come and go."""

    client: Client
    n_workers: int
    """Workers that were there at the start."""
    dashboard: str
    """URL of dask's own page of progress and load; empty where bokeh, which draws it, is not installed."""
    _workers: Workers

    def run(
        self, work: Callable[[Task], Outcome], tasks: Iterable[Task], on_outcome: Callable[[Outcome], None]
    ) -> None:
        """Run tasks, reporting each as it ends, in no particular order.

        Args:
            work: What to do with a task; it and its arguments and results must pickle.
            tasks: The tasks, all different; taken a few at a time, as workers become free.
            on_outcome: Called in this process with what `work` returned.

        Raises:
            ClusterError: A task keeps killing its worker, a worker lacks this version or a folder, or all are gone
                and none came in time. Errors of `work` itself are passed on.
        """
        waiting = iter(tasks)
        futures: set[Future[Outcome]] = set()
        try:
            while True:
                n_free = self._workers.count_threads() * _IN_FLIGHT_PER_THREAD - len(futures)
                futures.update(self._submit(work, task) for task in islice(waiting, max(n_free, 0)))
                if not futures:
                    return
                for future in _wait_for_any(futures):
                    try:
                        outcome = future.result(LOOK_S)
                    except TimeoutError:
                        if future.status == "error":  # of the task itself
                            raise
                        continue  # its worker has just gone, and the outcome with it: the task is run again
                    futures.discard(future)
                    on_outcome(outcome)
        except (CancelledError, CommClosedError):
            futures.clear()  # a lost scheduler cannot be asked what still runs
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"a worker died several times over one shard ({error}); it may have run out of memory: use fewer "
                f"workers or smaller shards. {GOES_ON}"
            ) from error
        except ImportError as error:
            raise ClusterError(
                f"a worker cannot import what it needs ({error}); install it there. {GOES_ON}"
            ) from error
        finally:
            self._settle(futures)

    def _submit(self, work: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        return self.client.submit(run_there, self._workers.expected, work, task, pure=False)

    def _settle(self, futures: Collection[Future[Outcome]]) -> None:
        """Return only when no worker runs any of the tasks: a task that writes must not outlive the run."""
        if not futures:
            return
        keys = {future.key for future in futures}
        with suppress(OSError, TimeoutError, CancelledError):  # the scheduler is gone, and its workers with it
            self.client.cancel(list(futures))
            while any(self.client.run(_is_running, keys).values()):
                time.sleep(_POLL_S)


def _wait_for_any(futures: Collection[Future[Outcome]]) -> Collection[Future[Outcome]]:
    """Return those that have ended, within the time after which workers are looked for."""
    try:
        ended: set[Future[Outcome]] = wait(futures, timeout=LOOK_S, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return ()
    return ended


def _is_running(keys: Collection[str], dask_worker: Worker) -> bool:
    return any(task.key in keys for task in dask_worker.state.executing)


@contextmanager
def open_cluster(options: ClusterOptions, folders: Sequence[str], on_event: OnEvent = ignore) -> Iterator[Cluster]:
    """Start a cluster on this machine, or connect to a running one.

    Worker processes are spawned, never forked: a forked child inherits the locks of threads it does not have.

    Args:
        options: Which processes work.
        folders: What every worker must be able to see.
        on_event: Called when there is no worker to go on with.

    Raises:
        ClusterError: The scheduler cannot be reached or has no workers, or its workers lack this version or a folder.
    """
    with _silence_logs(), ExitStack() as stack:
        address: str | LocalCluster
        if options.scheduler is None:
            address, name = stack.enter_context(_start_cluster(options.workers)), "the local cluster"
        else:
            address, name = find_scheduler(options.scheduler, options.worker_wait_s), options.scheduler
        client = stack.enter_context(_connect(address, name))
        workers = Workers(client, name, folders, options.worker_wait_s, on_event)
        has_dashboard = options.scheduler is not None or find_spec("bokeh") is not None
        yield Cluster(client, workers.check(), client.dashboard_link if has_dashboard else "", workers)


@contextmanager
def _start_cluster(n_workers: int | None) -> Iterator[LocalCluster]:
    """Start worker processes, and end them at once when they are not needed any more."""
    _require_guard()
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


def _require_guard() -> None:
    """Refuse to start processes for a script that would begin the same work anew in each of them.

    They import the script that Python was started with, under another name. Old versions of dask start them again and
    again when that fails.
    """
    main = sys.modules["__main__"]
    script, frame = getattr(main, "__file__", None), inspect.currentframe()
    while frame and (frame.f_globals is not vars(main) or frame.f_code.co_name != "<module>"):
        frame = frame.f_back
    if frame is None or script is None:  # a notebook, or python -c: there is nothing to import
        return
    if main.__spec__ is None and not os.path.isfile(script):
        raise ClusterError(f"{script}: worker processes import the script that calls this; save it as a file")
    for statement in ast.parse(Path(script).read_bytes()).body:
        if statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0) and not isinstance(statement, ast.If):
            raise ClusterError(
                f"{script}:{frame.f_lineno}: worker processes import this script, and would run it again; put this "
                "line below `if __name__ == '__main__':`"
            )


@contextmanager
def _connect(address: str | LocalCluster, name: str) -> Iterator[Client]:
    """Connect to a scheduler; if it goes away later, say so instead of what broke first."""
    with _mask_interrupts():
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(f"{name}: expected a dask scheduler, cannot connect: {error}") from error
    try:
        yield client
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(
            f"{name}: the connection to the dask scheduler was lost. What is finished is kept: once it runs again, or "
            "without it, the same command goes on"
        ) from error
    finally:
        with _mask_interrupts():
            client.close()


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
