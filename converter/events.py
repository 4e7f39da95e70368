"""What happens during a conversion, as records sent to a callback; nothing in the library prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bigearthnet.archive.catalogue import Archive
from bigearthnet.bands import Sensor
from bigearthnet.lock import Watching
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
    scan_s: float = 0.0
    """Seconds for finding and describing the patches; 0 of an archive file, which is read by and by."""


@dataclass(frozen=True)
class Waiting:
    """No worker is there; if none comes in time, the run is given up."""

    seconds: float


@dataclass(frozen=True)
class Started:
    """Workers are up and about to begin."""

    n_workers: int
    dashboard: str
    """URL of dask's own page of progress and load; empty where bokeh, which draws it, is not installed."""
    n_done: int
    """Patches that an earlier run has already finished."""
    n_total: int
    startup_s: float
    """Seconds until they were; 0 if they have worked for this run before."""


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


@dataclass(frozen=True)
class Ingesting:
    """An archive is being read, and its patches encoded."""

    sensor: Sensor
    n_patches: int
    """Patches that are encoded, those of an earlier run included."""
    n_before: int
    """Patches, of all archives, that an earlier run had encoded."""
    n_bad: int
    """Patches, of all archives, that have a bad file."""
    n_bytes: int
    """Bytes of the file that were read; 0 of a folder."""
    n_bytes_total: int | None
    """Bytes that it has, if that is known."""


Event = Scanned | Planned | Ingesting | Watching | Waiting | Started | Advanced | Finishing

OnEvent = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Take no notice of an event."""
