"""Find a dask scheduler: by its address, or by the file that it writes."""

from __future__ import annotations

import asyncio
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distributed import Security
from distributed.comm.core import connect

from bigearthnet.errors import ClusterError
from bigearthnet.files import read_json

CONNECT_SECONDS: Final = 5
"""Time that a scheduler has to answer; one at work takes milliseconds."""
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class _SchedulerFile:
    """What this program needs of the file that `dask scheduler --scheduler-file` writes."""

    address: str


def find_scheduler(scheduler: str, wait_s: float) -> str:
    """Return the address of a scheduler that answers; one that is named by its file may still be starting."""
    if not scheduler.endswith(".json") and not os.path.isfile(scheduler):
        _greet(scheduler)
        return scheduler
    deadline = time.monotonic() + wait_s
    while True:
        try:
            address = read_json(Path(scheduler), _SchedulerFile).address
            _greet(address)
        except (OSError, ValueError, ClusterError) as error:
            if time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            reason = error.strerror if isinstance(error, OSError) else error
            raise ClusterError(
                f"{scheduler}: expected the file of `dask scheduler --scheduler-file` and one that answers, found none "
                f"in {wait_s:g} s (option worker-wait): {reason}"
            ) from error
        return address


def _greet(address: str) -> None:
    """Make sure that a dask scheduler answers: a client would wait for ever for whatever else listens there."""

    async def exchange_greetings() -> None:
        arguments = Security().get_connection_args("client")
        async with asyncio.timeout(CONNECT_SECONDS):
            comm = await connect(address, timeout=CONNECT_SECONDS / 2, **arguments)
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
        reason = re.sub(r"in <[^>]*>: ", "", reason)  # where in dask that was
        raise ClusterError(f"{address}: expected a dask scheduler, cannot connect: {reason}; {advice}") from error
