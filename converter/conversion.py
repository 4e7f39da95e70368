"""The whole conversion: scan, plan, claim the store, run the tasks, finish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigearthnet import __version__
from bigearthnet.archive.catalogue import read_archive
from bigearthnet.archive.patch import PatchReader, ReaderName
from bigearthnet.archive.records import OnBad, Reject, Sources
from bigearthnet.bands import PUBLISHED_BANDS, REFERENCE_MAP, Sensor, choose_groups, resolve_bands
from bigearthnet.errors import OptionError, SourceError, StoreError
from bigearthnet.look.quantity import format_count
from bigearthnet.names import Dataset
from bigearthnet.store.layout import REJECTS, Codec, Layout
from converter.cluster import open_cluster
from converter.events import Advanced, Finishing, OnEvent, Planned, Scanned, Started, ignore
from converter.finish import finish_store, write_rejects
from converter.plan import Plan, ShardTask, leave_out, plan_store
from converter.receipt import Receipt, read_receipt
from converter.target import check_target, claim_target
from converter.task import Job, ShardOutcome, convert_shard

_N_LISTED = 10
"""Bad patches that an error message spells out."""


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert. Every default is what most users want."""

    codec: Codec = "lz4"
    """`lz4` is the fastest to read, `zstd` is a little smaller, `none` is raw."""
    shard_size: int = 256
    """Patches in one file of an array, and in one unit of work."""
    workers: int | None = None
    """Worker processes on this machine; one a core if None."""
    scheduler: str | None = None
    """Address of a running dask scheduler to use instead."""
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
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"expected at least one worker, not {self.workers}")
        if self.workers is not None and self.scheduler is not None:
            raise OptionError(
                "workers start a cluster on this machine, scheduler names a running one: give one of them"
            )
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


@dataclass(frozen=True)
class Summary:
    """What a conversion did."""

    store: Path
    n_patches: int
    """Patches in the store."""
    n_rejected: int
    """Patches left out."""
    n_converted_now: int
    """Patches that this run converted; an earlier, interrupted one did the others."""
    arrays: tuple[str, ...]
    """Names of the arrays of pixels."""
    split_counts: dict[str, int]
    """Recommended patches of each split, and all others."""
    n_classes: int
    """How many of the source's classes (43 in v1.0, 19 in v2.0) occur."""
    pixel_bytes: int
    """Bytes of pixels before compression."""
    stored_bytes: int
    """Bytes of all shards."""
    startup_s: float
    """Seconds until the workers were ready."""
    convert_s: float
    """Seconds the workers took."""
    finish_s: float
    """Seconds for statistics, coordinates and table."""

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {**asdict(self), "store": str(self.store)}


def plan_conversion(sources: Sources, options: ConvertOptions, on_event: OnEvent = ignore) -> Planned:
    """Scan an archive and plan its store, writing nothing.

    Raises:
        SourceError: There is no archive, or no lists to describe it.
        OptionError: There is nothing to convert.
    """
    archive = read_archive(
        sources.roots,
        dataset=options.dataset,
        lists=options.lists,
        metadata=options.metadata,
        progress=lambda n_found: on_event(Scanned(n_found)),
    )
    layout = options.choose_layout(archive.dataset, archive.roots.keys())
    planned = Planned(archive, plan_store(archive.patches, layout))
    on_event(planned)
    return planned


def convert(
    sources: Sources | Path | str,
    store: Path | str,
    options: ConvertOptions | None = None,
    on_event: OnEvent = ignore,
) -> Summary:
    """Convert an archive into a store.

    An unfinished store of the same archive and options is continued: only shards without a receipt are converted.

    Args:
        sources: The folders of the extracted archive; a single path is that of Sentinel-2.
        store: The store's folder, on a disk of this machine or one that all workers share.
        options: How to convert.
        on_event: Called with what happens, as it happens.

    Raises:
        SourceError: The archive cannot be used, or has bad patches; everything else has been converted then.
        OptionError: There is nothing to convert.
        ClusterError: The cluster cannot be used.
        OutputError: The store is already there or cannot be written, or the disk is too small.
        StoreError: What is there is unfinished and belongs to another archive or other options.
    """
    options = options or ConvertOptions()
    sources = sources if isinstance(sources, Sources) else Sources(s2=Path(sources))
    store = Path(store).absolute()
    check_target(store, overwrite=options.overwrite)
    planned = plan_conversion(sources, options, on_event)
    plan, left_out = planned.plan, planned.archive.left_out
    reader = PatchReader(
        {sensor: str(root) for sensor, root in sources.roots.items()},
        plan.layout.dataset,
        plan.layout.groups,
        options.reader,
        options.allow_missing_s1,
    )
    identity = _identify(plan, reader) | {"synthetic": planned.archive.is_synthetic}
    claim = claim_target(store, identity, overwrite=options.overwrite, projected_bytes=plan.projected_bytes)
    with claim as receipts_folder:
        job = Job(reader, str(store), str(receipts_folder), plan.layout.codec, plan.layout.shard_size)
        conversion = _Conversion(job, options, on_event)
        plan, receipts = conversion.run(plan)
        on_event(Finishing())
        clock = time.perf_counter()
        finish_store(store, plan, receipts, [*left_out, *conversion.rejects], synthetic=planned.archive.is_synthetic)
    return Summary(
        store=store,
        n_patches=plan.n_patches,
        n_rejected=len(left_out) + len(conversion.rejects),
        n_converted_now=conversion.n_converted,
        arrays=tuple(group.name for group in plan.layout.groups),
        split_counts=dict(plan.split_counts),
        n_classes=len(_list_labels(plan, receipts)),
        pixel_bytes=plan.pixel_bytes,
        stored_bytes=sum(entry.n_bytes for receipt in receipts for entry in receipt.objects.values()),
        startup_s=conversion.startup_s,
        convert_s=conversion.convert_s,
        finish_s=time.perf_counter() - clock,
    )


def _list_labels(plan: Plan, receipts: Sequence[Receipt]) -> set[str]:
    facts = (fact for receipt in receipts for fact in receipt.facts)
    return {
        label for patch, fact in zip(plan.patches, facts, strict=True) for label in patch.labels or fact.labels or ()
    }


def _identify(plan: Plan, reader: PatchReader) -> dict[str, Any]:
    """Say what decides the bytes of a store, so that an unfinished one is only continued with the same."""
    layout = plan.layout
    return {
        "converter version": __version__,
        "dataset": layout.dataset,
        "codec": layout.codec,
        "shard size": layout.shard_size,
        "bands": list(layout.bands),
        "missing Sentinel-1 allowed": reader.allow_missing_s1,
        "patches": plan.n_patches,
        "digest of the patches": plan.digest,
    }


class _Conversion:
    """Runs tasks until every shard of a plan has its receipt, leaving bad patches out if the options say so."""

    def __init__(self, job: Job, options: ConvertOptions, on_event: OnEvent) -> None:
        self._job, self._options, self._on_event = job, options, on_event
        self._n_planned = 0
        self.rejects: list[Reject] = []
        self.n_converted = 0
        self.startup_s = self.convert_s = 0.0

    def run(self, plan: Plan) -> tuple[Plan, list[Receipt]]:
        """Return the plan as it came to be, and the receipt of each of its tasks."""
        self._n_planned = plan.n_patches
        while True:
            n_bad = len(self.rejects)
            receipts = {task.shard: self._find(task) for task in plan.tasks}
            todo = [task for task in plan.tasks if receipts[task.shard] is None]
            if todo:
                self._convert(plan, todo)
            if len(self.rejects) == n_bad:
                return plan, [receipts[task.shard] or self._require(task) for task in plan.tasks]
            if self._options.on_bad == "stop":
                raise self._give_up()
            plan = leave_out(plan, {reject.patch_id for reject in self.rejects})

    def _find(self, task: ShardTask) -> Receipt | None:
        return read_receipt(Path(self._job.receipts), Path(self._job.store), task)

    def _require(self, task: ShardTask) -> Receipt:
        receipt = self._find(task)
        if receipt is None:
            raise StoreError(
                f"{self._job.store}: shard {task.shard} was written, but its files are gone or changed; does something "
                "else write here? Run the same command again"
            )
        return receipt

    def _convert(self, plan: Plan, todo: Sequence[ShardTask]) -> None:
        start = time.perf_counter()
        n_done = plan.n_patches - sum(len(task.sources) for task in todo)

        def advance(outcome: ShardOutcome) -> None:
            nonlocal n_done
            self.rejects += outcome.rejects
            if not outcome.rejects:
                n_done += outcome.n_patches
                self.n_converted += outcome.n_patches
            self._on_event(Advanced(n_done, len(self.rejects), plan.n_patches))
            if len(self.rejects) > self._options.max_bad * self._n_planned:
                raise self._give_up()

        folders = [*self._job.reader.roots.values(), self._job.store]
        with open_cluster(self._options.workers, self._options.scheduler, folders) as cluster:
            ready = time.perf_counter()
            self.startup_s += ready - start
            self._on_event(Started(cluster.n_workers, cluster.dashboard, n_done, plan.n_patches, ready - start))
            cluster.run(partial(convert_shard, self._job), todo, advance)
            self.convert_s += time.perf_counter() - ready

    def _give_up(self) -> SourceError:
        """Write the list of bad patches down, and say how to go on."""
        store = Path(self._job.store)
        write_rejects(store, self.rejects)
        listed = [f"  {reject.patch_id}/{reject.file}: {reject.reason}" for reject in self.rejects[:_N_LISTED]]
        bad = format_count(len(self.rejects), "bad patch")
        if len(self.rejects) > _N_LISTED:
            listed.append(f"  and {len(self.rejects) - _N_LISTED:,} more")
        return SourceError(
            "\n".join([f"{bad}, listed in {store / REJECTS}:", *listed])
            + "\nMend or extract them again, then run the same command: it goes on where it stopped. "
            "Or leave them out with the option on-bad skip (and max-bad, if they are many)"
        )
