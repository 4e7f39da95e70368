"""What a conversion may be asked for beside its archive and its store."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from bigearthnet.archive.patch import ReaderName
from bigearthnet.archive.records import OnBad
from bigearthnet.bands import PUBLISHED_BANDS, REFERENCE_MAP, Sensor, choose_groups, resolve_bands
from bigearthnet.errors import OptionError
from bigearthnet.names import Dataset
from bigearthnet.store.layout import Codec, Layout


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Which processes work."""

    workers: int | None = None
    """Worker processes on this machine; one a core if None."""
    scheduler: str | None = None
    """A running dask scheduler to use instead: its address, or its file (`dask scheduler --scheduler-file`)."""
    worker_wait_s: float = 60.0
    """How long to wait, while no worker is there, for one to come."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"expected at least one worker, not {self.workers}")
        if self.workers is not None and self.scheduler is not None:
            raise OptionError(
                "workers start a cluster on this machine, scheduler names a running one: give one of them"
            )
        if not 0 <= self.worker_wait_s < float("inf"):
            raise OptionError(f"expected a number of seconds to wait for a worker, not {self.worker_wait_s}")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ClusterOptions):
    """How to convert. Every default is what most users want."""

    codec: Codec = "lz4"
    """`lz4` is the fastest to read, `zstd` is a little smaller, `none` is raw."""
    shard_size: int = 256
    """Patches in one file of an array, and in one unit of work."""
    lists: Path | None = None
    """Folder of the official lists; those of `bigearthnet-common` if None."""
    bands: tuple[str, ...] = ("all",)
    """Names of bands and of sets of bands to store, as `bigearthnet.bands.resolve_bands` takes them; files that are not
    needed are never opened. The sensors that are not given count for nothing, so `all` is every band of those that
    are."""
    dataset: Dataset | None = None
    """Version of BigEarthNet; recognised from the folders if None."""
    metadata: tuple[Path, ...] = ()
    """Official v2.0 metadata; the files that lie in or beside the folders if empty."""
    allow_missing_s1: bool = False
    """Fill a missing Sentinel-1 partner with NaN instead of rejecting the patch."""
    overwrite: bool = False
    """Replace a store that is already there."""
    on_bad: OnBad = "stop"
    """`stop` converts everything else and then fails with the list of bad patches; `skip` leaves them out."""
    max_bad: float = 0.01
    """Fraction of bad patches at which a run is given up at once."""
    reader: ReaderName = "auto"
    """`auto` or `rasterio`, which is slow and gives the same pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_bad <= 1:
            raise OptionError(f"max_bad is a fraction between 0 and 1, not {self.max_bad}")
        self.choose_layout("v1", frozenset({"s1", "s2"}))  # validates codec, shard size and bands

    def choose_layout(self, dataset: Dataset, sensors: AbstractSet[Sensor]) -> Layout:
        """Choose the arrays that these options ask for, of the sensors that there are.

        Raises:
            OptionError: An option is not what it may be, or no band is left.
        """
        maps = REFERENCE_MAP.bands if "map" in sensors else ()
        asked = choose_groups((*resolve_bands(self.bands), *maps), PUBLISHED_BANDS)
        groups = tuple(group for group in asked if group.sensor in sensors)
        if not groups:
            raise OptionError(f"no archive was given that has the bands {', '.join(self.bands)}")
        return Layout(dataset, groups, self.codec, self.shard_size)
