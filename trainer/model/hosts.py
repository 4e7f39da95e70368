"""Processes, on one host or several, that train one model together, through `jax.distributed`.

Their devices share each batch, see `trainer.model.devices`. Between two calls each process has its own copy of all
values, which are equal, so that none waits for another: the first alone writes files.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import EXIT_INTERRUPTED, BigEarthNetError, OptionError, RunError

T = TypeVar("T")

_COUNTS: Final = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Where `srun` and `mpirun` say how many processes they started; JAX finds the rest where they say it."""

_PIECE_BYTES: Final = 2**28
"""What is told at once: JAX counts in 32 bits."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this one is, before it has met the others."""

    n_ranks: int = 1
    coordinator: str | None = None
    """`host:port` where the first listens; None if SLURM or Open MPI say it, with the rank."""
    rank: int | None = None


def find_place(coordinator: str | None = None, rank: int | None = None, ranks: int | None = None) -> Place:
    """Find this process's place: as named, or as `srun` or `mpirun` say.

    Args:
        coordinator: `host:port` where the first process listens.
        rank: From 0.
        ranks: How many there are; 1 for a training alone, whatever started it.

    Raises:
        OptionError: They do not go together.
    """
    if ranks == 1 and coordinator is None and not rank:
        return Place()
    if coordinator is None and rank is None and ranks is None:
        counts = [os.environ[name] for name in _COUNTS if os.environ.get(name, "").isdecimal()]
        return Place(int(counts[0]) if counts else 1)
    if coordinator is None or rank is None or ranks is None or not 0 <= rank < ranks:
        raise OptionError(
            "expected coordinator (host:port of the first process), rank and ranks together, with a rank from 0 to "
            f"ranks - 1; found {coordinator}, {rank} and {ranks}"
        )
    return Place(ranks, coordinator, rank)


def join(place: Place, backend: str) -> None:
    """Meet the other processes, before JAX does anything else.

    Args:
        place: Of this one.
        backend: That of Keras.

    Raises:
        OptionError: The backend cannot train in several processes.
        RunError: The others are not there.
    """
    if place.n_ranks == 1:
        return
    if backend != "jax":
        raise OptionError(
            f"{place.n_ranks} processes train together only with Keras on JAX, not on {backend}: set "
            "KERAS_BACKEND=jax, or give each --ranks 1 for a training of its own"
        )
    import jax  # noqa: PLC0415 - other backends do without

    jax.config.update("jax_enable_preemption_service", False)  # or SIGTERM would be taken note of, and no more
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    named = {} if place.coordinator is None else {"num_processes": place.n_ranks, "process_id": place.rank}
    try:
        jax.distributed.initialize(place.coordinator, **named)
        Hosts(jax.process_index(), jax.process_count()).do_first(lambda: None)  # now, while nobody hears Gloo say so
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"expected {place.n_ranks} processes of this training to meet, they did not ({_shorten(error)}); start "
            "all at once, and see that they reach one another (without GPUs, by the address of each host's own name)"
        ) from error


@contextmanager
def end_together(place: Place) -> Iterator[None]:
    """End at once when something goes wrong, without the leave of the others, who then end too."""
    try:
        yield
    except BaseException as error:
        if place.n_ranks == 1:
            raise
        code, text = 1, f"Error: {error}"
        if isinstance(error, KeyboardInterrupt):
            code, text = EXIT_INTERRUPTED, "Interrupted"
        elif type(error).__module__.startswith("jax"):
            text = (
                f"Error: another process of this training has ended, or cannot be reached ({_shorten(error)}). The "
                "same command goes on from the last saved state, also with another number of processes"
            )
        elif not isinstance(error, BigEarthNetError):
            text = traceback.format_exc()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        os._exit(code)


class Hosts:
    """The processes that train together, of which this is one.

    Args:
        rank: Which of them, from 0.
        n: How many.
    """

    def __init__(self, rank: int = 0, n: int = 1) -> None:
        self.rank, self.n = rank, n

    @property
    def is_first(self) -> bool:
        """Whether this one writes files."""
        return self.rank == 0

    def do_first(self, work: Callable[[], T]) -> T:
        """Let the first process do something, and return what it returned to all; an error of it is raised by all."""
        if self.n == 1:
            return work()
        outcome: tuple[bool, Any] | None = None
        if self.is_first:
            try:
                outcome = True, work()
            except BigEarthNetError as error:
                outcome = False, error
        is_well, value = pickle.loads(self._tell(pickle.dumps(outcome)))  # noqa: S301 - of this very training
        if not is_well:
            raise value
        return value  # type: ignore[no-any-return]

    def _tell(self, content: bytes) -> bytes:
        """Return what the first process says."""
        from jax.experimental import multihost_utils  # noqa: PLC0415 - other backends do without

        n_bytes = int(multihost_utils.broadcast_one_to_all(np.array([len(content)]))[0])
        told = np.zeros(n_bytes, np.uint8)
        if self.is_first:
            told[:] = np.frombuffer(content, np.uint8)
        pieces = (told[start : start + _PIECE_BYTES] for start in range(0, n_bytes, _PIECE_BYTES))
        return b"".join(np.asarray(multihost_utils.broadcast_one_to_all(piece)).tobytes() for piece in pieces)

    def take_part(self, n_items: int) -> slice:
        """Return this process's share of some items that all share."""
        ends = np.linspace(0, n_items, self.n + 1).astype(int)
        return slice(int(ends[self.rank]), int(ends[self.rank + 1]))

    def gather(self, part: NDArray[np.float32], n_items: int) -> NDArray[np.float32]:
        """Return what all have made of their shares, shape (item, ...)."""
        if self.n == 1:
            return part
        from jax.experimental import multihost_utils  # noqa: PLC0415 - see above

        filled = np.zeros((-(-n_items // self.n), *part.shape[1:]), np.float32)
        filled[: len(part)] = part
        parts = np.asarray(multihost_utils.process_allgather(filled))
        shares = [Hosts(rank, self.n).take_part(n_items) for rank in range(self.n)]
        return np.concatenate([part[: share.stop - share.start] for part, share in zip(parts, shares, strict=True)])


def find_hosts() -> Hosts:
    """Find the processes that this one has met; see `join`."""
    import keras  # noqa: PLC0415 - takes long

    if keras.config.backend() != "jax":
        return Hosts()
    import jax  # noqa: PLC0415 - other backends do without

    return Hosts(jax.process_index(), jax.process_count())


def _shorten(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
