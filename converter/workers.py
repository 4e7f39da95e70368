"""Workers of a dask cluster: which are there, and whether each is fit to work."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from distributed import Client, Worker, get_worker
from distributed.comm.core import CommClosedError

from bigearthnet import __version__
from bigearthnet.errors import ClusterError
from converter.events import OnEvent, Waiting

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

GOES_ON: Final = "What is finished is kept, the same command goes on"
LOOK_S: Final = 1.0
"""Time between two looks at which workers are there."""
_POLL_S: Final = 0.05


class Expected(NamedTuple):
    """What a worker must share with this process, as plain values: one of another version must be able to read them."""

    version: str
    python: str
    folders: tuple[str, ...]


class Workers:
    """The workers of a cluster, which may come and go.

    Args:
        client: Asks their scheduler.
        name: What errors call the scheduler.
        folders: What every worker must be able to see.
        wait_s: How long to wait, while there is none, for one to come.
        on_event: Called when a wait begins.
    """

    def __init__(self, client: Client, name: str, folders: Sequence[str], wait_s: float, on_event: OnEvent) -> None:
        self.expected = Expected(__version__, _name_python(), tuple(folders))
        self._client, self._name, self._wait_s, self._on_event = client, name, wait_s, on_event
        self._n_threads, self._looked_at = 0, -math.inf

    def check(self) -> int:
        """Wait for one, then check all and count them, which also makes them import what tasks need.

        Raises:
            ClusterError: There is none and none came in time, or one is not fit.
        """
        self.count_threads()
        n_fit = 0
        for worker, fault in self._client.run(_find_fault, self.expected, on_error="return").items():
            if isinstance(fault, OSError):
                continue  # it went in the meantime
            if isinstance(fault, BaseException):  # ImportError, or what dask makes of it
                raise ClusterError(f"{worker}: cannot import this package ({fault}); install it there") from fault
            if fault:
                raise ClusterError(f"{worker}: {fault}")
            n_fit += 1
        return n_fit

    def count_threads(self) -> int:
        """Count the threads of those that are there, as of the last look.

        Raises:
            ClusterError: There is none, and none came in time.
        """
        if time.monotonic() - self._looked_at < LOOK_S:
            return self._n_threads
        if not (n_threads := self._look()):
            self._on_event(Waiting(self._wait_s))
            deadline = time.monotonic() + self._wait_s
            while not (n_threads := self._look()):
                if time.monotonic() >= deadline:
                    raise ClusterError(
                        f"{self._name}: expected dask workers, found none in {self._wait_s:g} s (option worker-wait); "
                        f"start some. {GOES_ON}"
                    )
                time.sleep(_POLL_S)
        self._n_threads, self._looked_at = n_threads, time.monotonic()
        return n_threads

    def _look(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise CommClosedError(str(error)) from error


def run_there(expected: Expected, work: Callable[[Task], Outcome], task: Task) -> Outcome:
    """Run a task on a worker, which may have come only now: one that sees other files would call good patches bad.

    So would one whose file system went away meanwhile; then what it found is not to be believed.
    """
    _require_fit(expected)
    _end_profiling(get_worker())
    outcome = work(task)
    _require_fit(expected)
    return outcome


def _require_fit(expected: Expected) -> None:
    if fault := _find_fault(expected):
        raise ClusterError(f"{get_worker().address}: {fault}. {GOES_ON}")


def _end_profiling(worker: Worker) -> None:
    """Let dask no longer look, a hundred times a second, at what each thread does: nobody asks for it here.

    With Python 3.11 a worker hangs for good when a thread starts just then, and tasks start threads. Sources:
    https://github.com/python/cpython/issues/106883 and https://github.com/dask/distributed/issues/8616
    """
    profile = worker.periodic_callbacks.get("profile")
    if profile is None or not profile.is_running():
        return
    ended = threading.Event()

    def end() -> None:
        profile.stop()
        ended.set()

    worker.loop.add_callback(end)
    ended.wait()


def _find_fault(expected: Expected) -> str:
    """Say what this process lacks to be a worker; nothing if it is fit."""
    version, python, folders = expected
    if version != __version__:
        return f"expected version {version} of this package, found {__version__}; install the same there"
    if python != (found := _name_python()):
        return f"expected Python {python} as in the main process, found {found}; start workers from the same one"
    unseen = [folder for folder in folders if not _holds_anything(folder)]
    if not unseen:
        return ""
    return f"cannot see what is in {', '.join(unseen)}; mount it there, or use a path that all workers share"


def _holds_anything(folder: str) -> bool:
    """Tell whether a folder is there and not empty, as where a file system was mounted that is gone."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _name_python() -> str:
    """Name the version of Python as far as what it pickles depends on it."""
    return "{}.{}".format(*sys.version_info)
