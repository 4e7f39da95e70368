"""The whole conversion: scan, plan, claim the store, run the tasks, finish."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigearthnet import __version__
from bigearthnet.archive.catalogue import read_archive
from bigearthnet.archive.patch import PatchReader
from bigearthnet.archive.records import Reject, Sources, is_archive_file
from bigearthnet.errors import SourceError, StoreError
from bigearthnet.lock import Lock
from bigearthnet.quantity import format_count
from bigearthnet.store.layout import INGESTED, PROGRESS, RECEIPTS, REJECTS, SPILL, Layout
from converter.batch import BatchJob
from converter.cluster import Cluster, open_cluster
from converter.events import Advanced, Finishing, OnEvent, Planned, Scanned, Started, ignore
from converter.finish import finish_store, write_rejects
from converter.ingestion import Assembly, Ingested, Ingestion, estimate_bytes, read_ingested
from converter.options import ConvertOptions
from converter.plan import Plan, ShardTask, leave_out, plan_store
from converter.profile import Profile
from converter.receipt import Receipt, read_receipt
from converter.spill import Spill
from converter.target import check_apart, check_target, claim_target, extend_plan
from converter.task import Job, ShardOutcome, convert_shard

__all__ = ["ConvertOptions", "Summary", "convert", "plan_conversion"]

_N_LISTED = 10
"""Bad patches that an error message spells out."""


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
    plan_s: float
    """Seconds for scanning the archive, planning the store, and all that is not told below."""
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
    """Scan an archive and plan its store, writing nothing. An archive file is read from end to end for that.

    Raises:
        SourceError: There is no archive, or no lists to describe it.
        OptionError: There is nothing to convert.
    """
    began = time.perf_counter()
    archive = read_archive(
        sources.roots,
        dataset=options.dataset,
        lists=options.lists,
        metadata=options.metadata,
        progress=lambda n_found: on_event(Scanned(n_found)),
    )
    scan_s = time.perf_counter() - began
    layout = options.choose_layout(archive.dataset, archive.roots.keys())
    planned = Planned(archive, plan_store(archive.patches, layout), scan_s)
    on_event(planned)
    return planned


def convert(
    sources: Sources | Path | str,
    store: Path | str,
    options: ConvertOptions | None = None,
    on_event: OnEvent = ignore,
    profile: Profile | None = None,
) -> Summary:
    """Convert an archive into a store.

    An unfinished store of the same archive and options is continued: only shards without a receipt are converted and,
    of an archive file, only patches that are not encoded yet.

    Args:
        sources: The folders of the extracted archive, or its files; a single path is that of Sentinel-2.
        store: The store's folder, on a disk of this machine or one that all workers share.
        options: How to convert.
        on_event: Called with what happens, as it happens.
        profile: Filled with where the time went, unless the run ends with an error.

    Raises:
        SourceError: The archive cannot be used, or has bad patches; everything else has been converted then.
        OptionError: There is nothing to convert.
        ClusterError: The cluster cannot be used.
        OutputError: The store is already there, lies in the archive or cannot be written, or the disk is too small.
        StoreError: What is there is unfinished and belongs to another archive or other options.
    """
    began = time.perf_counter()
    options = options or ConvertOptions()
    sources = sources if isinstance(sources, Sources) else Sources(s2=Path(sources))
    store = Path(store).absolute()
    check_apart(store, sources.roots.values())
    check_target(store, overwrite=options.overwrite)
    if sources.archive_files:
        return _convert_files(sources, store, options, on_event, profile, began)
    planned = plan_conversion(sources, options, on_event)
    job = _make_job(sources, store, planned.plan.layout, options)
    identity = _identify(job, sources) | _identify_patches(planned)
    n_bytes = planned.plan.projected_bytes
    claim = claim_target(store, identity, on_event, overwrite=options.overwrite, projected_bytes=n_bytes)
    with claim as lock:
        conversion = _Conversion(job, options, on_event, lock, profile, began)
        with conversion.running:
            plan, receipts = conversion.run(planned.plan)
        return _finish(planned, plan, receipts, conversion)


def _convert_files(
    sources: Sources, store: Path, options: ConvertOptions, on_event: OnEvent, profile: Profile | None, began: float
) -> Summary:
    """Convert archive files, and folders given with them: encode every patch first, then put the shards together."""
    record = store / PROGRESS / INGESTED
    with ExitStack() as stack:
        ingested = None if options.overwrite else read_ingested(record, sources.roots)
        scans = ingested.scans if ingested else {}
        ingestion = stack.enter_context(closing(Ingestion(sources.roots, scans, options, on_event)))
        layout = options.choose_layout(ingestion.catalogue.dataset, sources.roots.keys())
        job = _make_job(sources, store, layout, options)
        identity, n_bytes = _identify(job, sources), estimate_bytes(sources.roots, layout)
        claim = claim_target(store, identity, on_event, overwrite=options.overwrite, projected_bytes=n_bytes)
        conversion = _Conversion(job, options, on_event, stack.enter_context(claim), profile, began)
        spill = Spill(str(store / PROGRESS / SPILL), secrets.token_hex(8))
        with conversion.running:
            if ingested is None:
                ingested = conversion.ingest(ingestion, BatchJob(job.reader, layout.codec, spill))
            archive = ingestion.catalogue.describe(ingested.scans)
            planned = Planned(archive, plan_store(archive.patches, layout))
            on_event(planned)
            plan = conversion.leave_out(planned.plan, ingested.rejects)
            extend_plan(store, identity | _identify_patches(planned), overwrite=options.overwrite)
            ingested.write(record)
            conversion.assembly = Assembly(spill, plan, ingested)
            plan, receipts = conversion.run(plan)
        return _finish(planned, plan, receipts, conversion)


def _make_job(sources: Sources, store: Path, layout: Layout, options: ConvertOptions) -> Job:
    roots = {sensor: str(root) for sensor, root in sources.roots.items()}
    reader = PatchReader(roots, layout.dataset, layout.groups, options.reader, options.allow_missing_s1)
    return Job(reader, str(store), str(store / PROGRESS / RECEIPTS), layout.codec, layout.shard_size)


def _finish(planned: Planned, plan: Plan, receipts: Sequence[Receipt], conversion: _Conversion) -> Summary:
    """Finish a store all shards of which have a receipt."""
    store, archive = conversion.store, planned.archive
    conversion.on_event(Finishing())
    clock = time.perf_counter()
    rejects = [*archive.left_out, *conversion.rejects]
    finish_store(store, plan, receipts, rejects, conversion.lock, synthetic=archive.is_synthetic)
    finish_s = time.perf_counter() - clock
    plan_s = clock - conversion.began - conversion.startup_s - conversion.convert_s
    if conversion.profile:
        stages = {
            "scan": planned.scan_s,
            "plan": plan_s - planned.scan_s,
            "start": conversion.startup_s,
            "convert": conversion.convert_s,
            "finish": finish_s,
        }
        conversion.profile.finish(stages, conversion.n_converted)
    return Summary(
        store=store,
        n_patches=plan.n_patches,
        n_rejected=len(rejects),
        n_converted_now=conversion.n_converted,
        arrays=tuple(group.name for group in plan.layout.groups),
        split_counts=dict(plan.split_counts),
        n_classes=len(_list_labels(plan, receipts)),
        pixel_bytes=plan.pixel_bytes,
        stored_bytes=sum(entry.n_bytes for receipt in receipts for entry in receipt.objects.values()),
        plan_s=plan_s,
        startup_s=conversion.startup_s,
        convert_s=conversion.convert_s,
        finish_s=finish_s,
    )


def _list_labels(plan: Plan, receipts: Sequence[Receipt]) -> set[str]:
    facts = (fact for receipt in receipts for fact in receipt.facts)
    return {
        label for patch, fact in zip(plan.patches, facts, strict=True) for label in patch.labels or fact.labels or ()
    }


def _identify(job: Job, sources: Sources) -> dict[str, Any]:
    """Say what decides the bytes of a store, so that an unfinished one is only continued with the same."""
    reader = job.reader
    return {
        "converter version": __version__,
        "dataset": reader.dataset,
        "codec": job.codec,
        "shard size": job.shard_size,
        "bands": [band for group in reader.groups for band in group.bands],
        "missing Sentinel-1 allowed": reader.allow_missing_s1,
        "archive files": sources.archive_files,
    }


def _identify_patches(planned: Planned) -> dict[str, Any]:
    """Say the rest of it, for which the whole archive must be known."""
    plan = planned.plan
    return {
        "patches": plan.n_patches,
        "digest of the patches": plan.digest,
        "synthetic": planned.archive.is_synthetic,
    }


class _Conversion:
    """Runs tasks until every shard of a plan has its receipt, leaving bad patches out if the options say so."""

    def __init__(
        self,
        job: Job,
        options: ConvertOptions,
        on_event: OnEvent,
        lock: Lock,
        profile: Profile | None,
        began: float,
    ) -> None:
        self.lock, self.profile, self.began = lock, profile, began
        self._job, self._options, self.on_event = job, options, on_event
        self.store = Path(job.store)
        self.assembly: Assembly | None = None
        """Where patches wait that are encoded already."""
        self._n_planned = 0
        self.rejects: list[Reject] = []
        self.n_converted = 0
        self.startup_s = self.convert_s = 0.0
        self.running = ExitStack()
        """The cluster, once there was work for it, ends when this does."""
        self._cluster: Cluster | None = None

    def ingest(self, ingestion: Ingestion, job: BatchJob) -> Ingested:
        """Encode every patch of the archive files, and find the bad ones."""
        cluster = self._start(0, 0)
        start = time.perf_counter()
        ingested = ingestion.run(job, cluster)
        self.lock.check()
        self.convert_s += time.perf_counter() - start
        return ingested

    def leave_out(self, plan: Plan, rejects: Sequence[Reject]) -> Plan:
        """Plan without patches that are known to be bad, if the options say so."""
        self.rejects += rejects
        if len(rejects) > self._options.max_bad * plan.n_patches or (rejects and self._options.on_bad == "stop"):
            raise self._give_up()
        return leave_out(plan, {reject.patch_id for reject in rejects}) if rejects else plan

    def run(self, plan: Plan) -> tuple[Plan, list[Receipt]]:
        """Return the plan as it came to be, and the receipt of each of its tasks."""
        self._n_planned = plan.n_patches + len(self.rejects)
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
        return read_receipt(Path(self._job.receipts), self.store, task)

    def _require(self, task: ShardTask) -> Receipt:
        receipt = self._find(task)
        if receipt is None:
            raise StoreError(
                f"{self._job.store}: shard {task.shard} was written, but its files are gone or changed; does something "
                "else write here? Run the same command again"
            )
        return receipt

    def _convert(self, plan: Plan, todo: Sequence[ShardTask]) -> None:
        n_done = plan.n_patches - sum(len(task.sources) for task in todo)

        def advance(outcome: ShardOutcome) -> None:
            nonlocal n_done
            self.lock.check()
            self.rejects += outcome.rejects
            if not outcome.rejects:
                n_done += outcome.n_patches
                self.n_converted += outcome.n_patches
                if self.assembly:
                    self.assembly.release(outcome.shard)
            self.on_event(Advanced(n_done, len(self.rejects), plan.n_patches))
            if len(self.rejects) > self._options.max_bad * self._n_planned:
                raise self._give_up()

        cluster = self._start(n_done, plan.n_patches)
        start = time.perf_counter()
        tasks = map(self.assembly.take, todo) if self.assembly else todo
        cluster.run(partial(convert_shard, self._job), tasks, advance)
        self.convert_s += time.perf_counter() - start

    def _start(self, n_done: int, n_total: int) -> Cluster:
        """Return the cluster, which is started when there is work for the first time."""
        start = time.perf_counter()
        seconds = 0.0
        if self._cluster is None:
            roots = [] if self.assembly else self._job.reader.roots.values()
            folders = [*(root for root in roots if not is_archive_file(Path(root))), self._job.store]
            cluster = self.running.enter_context(open_cluster(self._options, folders, self.on_event))
            self._cluster = self.profile.watch(cluster) if self.profile else cluster
            self.startup_s = seconds = time.perf_counter() - start
        self.on_event(Started(self._cluster.n_workers, self._cluster.dashboard, n_done, n_total, seconds))
        return self._cluster

    def _give_up(self) -> SourceError:
        """Write the list of bad patches down, and say how to go on."""
        write_rejects(self.store, self.rejects)
        listed = [f"  {reject.patch_id}/{reject.file}: {reject.reason}" for reject in self.rejects[:_N_LISTED]]
        bad = format_count(len(self.rejects), "bad patch")
        if len(self.rejects) > _N_LISTED:
            listed.append(f"  and {len(self.rejects) - _N_LISTED:,} more")
        return SourceError(
            "\n".join([f"{bad}, listed in {self.store / REJECTS}:", *listed])
            + "\nMend or extract them again, then run the same command: it goes on where it stopped. "
            "Or leave them out with the option on-bad skip (and max-bad, if they are many)"
        )
