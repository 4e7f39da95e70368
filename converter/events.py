"""What happens during a conversion, as records sent to a callback; nothing in the library prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bigearthnet.archive.catalogue import Archive
from converter.plan import Plan


@dataclass(frozen=True)
class Scanned:
    """Patch folders are being found."""

    n_found: int


@dataclass(frozen=True)
class Planned:
    """The plan is made; nothing has been written."""

    archive: Archive
    plan: Plan


@dataclass(frozen=True)
class Started:
    """Workers are up and about to begin."""

    n_workers: int
    dashboard: str
    """URL of dask's own page of progress and load."""
    n_done: int
    """Patches that an earlier run has already finished."""
    n_total: int
    startup_s: float


@dataclass(frozen=True)
class Advanced:
    """One more shard has ended."""

    n_done: int
    """Patches on disk, those of an earlier run included."""
    n_rejected: int
    n_total: int


@dataclass(frozen=True)
class Finishing:
    """Every shard is there; statistics, coordinates and table are being written."""


Event = Scanned | Planned | Started | Advanced | Finishing

OnEvent = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Take no notice of an event."""
