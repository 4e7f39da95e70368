"""How to stream, as one frozen record that checks itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from bigearthnet.errors import OptionError
from bigearthnet.machine import count_cores
from trainer.source.read import CHECKS, Check
from trainer.stream.order import ORDERS, Order

Turns = Literal["none", "each-quarter", "one-of-eight"]
"""`each-quarter` gives every patch in each of its four quarter turns, so an epoch is four times as long; `one-of-eight`
draws, for every patch and epoch, one of the eight symmetries of a square."""

TURNS: Final[tuple[Turns, ...]] = get_args(Turns)

TRAIN: Final = "train"
"""The split whose patches may be turned."""

_MAX_DEFAULT_THREADS: Final = 8


def count_threads() -> int:
    """Count the cores that this process may use, up to eight: more threads than that only wait for Python's lock."""
    return min(count_cores(), _MAX_DEFAULT_THREADS)


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What batches to make and how; every default is what most users want."""

    bands: str | Sequence[str] = "all"
    """Names of bands or of sets of bands: `all`, `rgb`, `s2` and so on (`Store.resolve_bands`). Only the arrays that
    hold them are read."""
    batch_size: int = 128
    """Patches of a batch, all hosts together."""
    seed: int = 0
    """Decides order and random turns."""
    order: Order = "global"
    """`global` shuffles all patches; `window` some shards at a time, for remote stores and spinning disks, which lose
    much by jumping; `sequential` is the order of the store, for evaluation."""
    window: int = 16
    """With `window`, shards that are shuffled together."""
    drop_last: bool = False
    """Leave out a last batch that is not full."""
    turns: Turns = "none"
    """Turn training patches while they are decoded, for models of any framework. A recipe's `augment` is another thing:
    layers of the model, which work on the device while it trains."""
    threads: int = field(default_factory=count_threads)
    """Threads that decode."""
    prefetch_bytes: int = 256 * 2**20
    """Decoded batches kept ready, in bytes; one batch at least."""
    check: Check = "first"
    """Compare the crc32c of a chunk when it is read for the `first` time since its shard was opened, `always`, or
    `never`. A disk is known to be sound after one epoch; the epochs after it are as fast as without checks."""
    host: int = 0
    """Which of the hosts this is, from 0."""
    n_hosts: int = 1
    """Hosts that share each batch."""

    def __post_init__(self) -> None:
        if not self.bands:
            raise OptionError("bands must name one band at least")
        if not isinstance(self.bands, str):
            object.__setattr__(self, "bands", tuple(self.bands))
        check_choice("order", self.order, ORDERS)
        check_choice("turns", self.turns, TURNS)
        check_choice("check", self.check, CHECKS)
        for name in ("batch_size", "window", "threads", "n_hosts"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("prefetch_bytes", "seed", "host"):
            check_at_least(name, getattr(self, name), 0)
        if self.host >= self.n_hosts:
            raise OptionError(f"host counts from 0: with {self.n_hosts} hosts it must be below that, not {self.host}")
        if self.batch_size % self.n_hosts:
            raise OptionError(
                f"a batch of {self.batch_size} patches cannot be shared equally by {self.n_hosts} hosts; "
                "choose a multiple"
            )


def check_hosts(options: StreamOptions, n_processes: int) -> None:
    """Refuse a stream that does not share its batches with the other processes of a training.

    Raises:
        OptionError: It has another number of hosts, so that patches would be trained on several times, or not at all.
    """
    if options.n_hosts != n_processes:
        raise OptionError(
            f"{n_processes} processes train together, but the stream is one of {options.n_hosts}: make it with "
            f"n_hosts={n_processes} and the rank of the process as host"
        )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an option that is not one of its choices."""
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse an option that is too small."""
    if value < least:
        raise OptionError(f"{name} must be at least {least}, not {value!r}")
