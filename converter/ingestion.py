"""Read archives from end to end, once, and leave every patch encoded in the spill; then say which of them are bad."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from bigearthnet.archive.catalogue import read_catalogue
from bigearthnet.archive.raster import Files
from bigearthnet.archive.records import Patch, Reject, Source
from bigearthnet.archive.scan import Scan
from bigearthnet.bands import GROUPS, Sensor
from bigearthnet.errors import SourceError
from bigearthnet.files import write_durably
from bigearthnet.store.layout import Layout
from converter.batch import (
    BatchJob,
    BatchOutcome,
    Check,
    RegionParts,
    check_patches,
    encode_batch,
    encode_parts,
)
from converter.cluster import Cluster
from converter.events import Ingesting, OnEvent
from converter.feed import Slots, open_archives, pack_archive, pack_folder
from converter.options import ConvertOptions
from converter.plan import COMPRESSION_RATIO, Plan, ShardTask, name_region
from converter.spill import Spill, hash_files, list_regions, read_region, remove_parts
from converter.task import SpilledTask

_CHECKED_PATCHES: Final = 1_000
"""Patches that a worker checks at once; it takes a tenth of a second."""


@dataclass(frozen=True)
class Ingested:
    """Archives that have been read through, and whose patches wait in the spill."""

    scans: dict[Sensor, Scan]
    checksums: dict[Sensor, dict[str, int]]
    """Checksum of the files of each patch, by the name that the sensor has for it."""
    rejects: tuple[Reject, ...] = ()
    """Bad patches, once all have been checked."""

    def find_checksums(self, source: Source) -> dict[Sensor, int]:
        """Find the checksum of what there is of a patch."""
        names = {sensor: (source.name_of(sensor), known) for sensor, known in self.checksums.items()}
        return {sensor: known[name] for sensor, (name, known) in names.items() if name in known}

    def write(self, path: Path) -> None:
        """Write down that all archives have been read, so that whoever goes on need not read them again."""
        content = {
            "scans": {sensor: [os.fspath(scan.root), *astuple(scan)[1:]] for sensor, scan in self.scans.items()},
            "checksums": self.checksums,
            "rejects": [astuple(reject) for reject in self.rejects],
        }
        write_durably(str(path), [json.dumps(content).encode()])


def read_ingested(path: Path, roots: Mapping[Sensor, Path]) -> Ingested | None:
    """Read what `Ingested.write` wrote; None unless it is whole, and of archives of these sensors."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["scans"].keys() != roots.keys():
            return None
        return Ingested(
            {sensor: Scan(roots[sensor], *rest) for sensor, (_, *rest) in content["scans"].items()},
            content["checksums"],
            tuple(Reject(*reject) for reject in content["rejects"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


class Ingestion:
    """Reads archives: opens them, then encodes what they hold on a cluster.

    Args:
        roots: Archive file or folder of each sensor.
        scans: What was found in those that an earlier run has read through; they are not opened.
        options: How to convert.
        on_event: Called with what happens.

    Raises:
        SourceError: One cannot be opened, or is none.
    """

    def __init__(
        self, roots: Mapping[Sensor, Path], scans: Mapping[Sensor, Scan], options: ConvertOptions, on_event: OnEvent
    ) -> None:
        self._options, self._on_event = options, on_event
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._readers, self._scans = open_archives(roots, stack, scans)
            self.catalogue = read_catalogue(
                self._scans, dataset=options.dataset, lists=options.lists, metadata=options.metadata
            )
            self._stack = stack.pop_all()
        self._checksums: dict[Sensor, dict[str, int]] = {sensor: {} for sensor in roots}
        self._regions: dict[str, str | None] = {}
        self._repeated: dict[Sensor, dict[str, str]] = {}
        self._n_bad = self._n_done = self._n_before = 0

    def close(self) -> None:
        """Close the archives."""
        self._stack.close()

    def run(self, job: BatchJob, cluster: Cluster) -> Ingested:
        """Encode every patch that is not encoded yet, then hold the sensors of each against one another.

        Raises:
            SourceError: An archive is damaged or not what it should be, or too many patches are bad.
            OutputError: The spill cannot be written.
        """
        with ExitStack() as stack:
            slots = Slots(stack, job.spill.token)
            for sensor in self._scans:
                self._ingest(sensor, job, cluster, slots)
        archive = self.catalogue.describe(self._scans)
        ingested = Ingested(self._scans, self._checksums)
        rejects = self._check(ingested, archive.patches, job, cluster)
        return replace(ingested, rejects=tuple(rejects.values()))

    def _check(
        self, ingested: Ingested, patches: Sequence[Patch], job: BatchJob, cluster: Cluster
    ) -> dict[str, Reject]:
        """Return the bad ones of some patches, by name."""
        ordered = sorted(((name_region(patch), patch.source) for patch in patches), key=itemgetter(0))
        checks = []
        for first in range(0, len(ordered), _CHECKED_PATCHES):
            regions, sources = zip(*ordered[first : first + _CHECKED_PATCHES], strict=True)
            checks.append(Check(sources, regions, tuple(map(ingested.find_checksums, sources))))
        rejects: dict[str, Reject] = {}

        def collect(bad: tuple[Reject, ...]) -> None:
            rejects.update((reject.patch_id, reject) for reject in bad)

        cluster.run(partial(check_patches, job), checks, collect)
        for sensor, repeated in self._repeated.items():
            for source in (patch.source for patch in patches):
                if file := repeated.get(source.name_of(sensor)):
                    reject = Reject(source.patch_id, file, "cannot be read: it is in the archive twice")
                    rejects.setdefault(source.patch_id, reject)
        return rejects

    def _ingest(self, sensor: Sensor, job: BatchJob, cluster: Cluster, slots: Slots) -> None:
        """Encode the patches of one sensor."""
        remove_parts(job.spill, sensor)
        known = {
            name: (region, patch.source_checksum)
            for region in list_regions(job.spill)
            for name, patches in read_region(job.spill, region, sensor).items()
            for patch in patches
            if not patch.reading.fault
        }
        self._regions.clear()
        reader = self._readers.get(sensor)

        def note(outcome: BatchOutcome) -> None:
            self._checksums[sensor] |= outcome.checksums
            self._n_bad += outcome.n_bad
            self._n_done += len(outcome.checksums)
            if outcome.slot is not None:
                slots.release(outcome.slot)
            if self._n_bad > self._options.max_bad * max(len(self.catalogue.listing.patch_ids), self._n_done):
                raise SourceError(
                    f"{self._n_bad:,} bad patches, more than the option max-bad allows; is this an archive of "
                    "BigEarthNet?"
                )
            self._tell(sensor)

        self._tell(sensor)
        find = partial(self._find_region, sensor)
        is_encoded = partial(self._note_encoded, sensor, known)
        if reader is None:
            cluster.run(partial(encode_batch, job), pack_folder(sensor, self._scans[sensor], find, is_encoded), note)
            return
        batches = pack_archive(sensor, job.reader, reader, slots, find, is_encoded)
        cluster.run(partial(encode_batch, job), batches, note)
        self._scans[sensor] = reader.make_scan()
        self._repeated[sensor] = reader.repeated
        apart: dict[str, dict[str, int]] = defaultdict(dict)
        for name in reader.in_parts:
            if region := self._find_region(sensor, name):
                apart[region].update({name: known[name][1]} if known.get(name, ("",))[0] == region else {})
        parts = [RegionParts(sensor, region, of_region) for region, of_region in apart.items()]
        cluster.run(partial(encode_parts, job), parts, note)
        remove_parts(job.spill, sensor)

    def _tell(self, sensor: Sensor) -> None:
        reader = self._readers.get(sensor)
        n_bytes, n_total = (reader.stream.n_raw, reader.stream.n_raw_total) if reader else (0, None)
        self._on_event(Ingesting(sensor, len(self._checksums[sensor]), self._n_before, self._n_bad, n_bytes, n_total))

    def _note_encoded(
        self, sensor: Sensor, known: dict[str, tuple[str, int]], name: str, region: str, files: Files
    ) -> bool:
        """Tell whether a patch is encoded already, and from the same files."""
        if known.get(name, ("",))[0] != region or known[name][1] != hash_files(files):
            return False
        self._checksums[sensor][name] = known[name][1]
        self._n_before += 1
        return True

    def _find_region(self, sensor: Sensor, name: str) -> str | None:
        """Find the region of a patch; None if the store will not have it."""
        if name not in self._regions:
            patch_id = self.catalogue.patch_of.get(name, name) if sensor == "s1" else name
            s2 = self._scans.get("s2")
            patch = self.catalogue.listing.describe(Source(patch_id))
            is_planned = patch is not None and (sensor == "s2" or s2 is None or patch_id in s2.folder_of)
            self._regions[name] = name_region(patch) if patch is not None and is_planned else None
        return self._regions[name]


class Assembly:
    """Shards to be put together from patches that wait in the spill, which is freed region by region.

    Args:
        spill: Where they wait.
        plan: The shards; no patch of it is bad.
        ingested: What was read.
    """

    def __init__(self, spill: Spill, plan: Plan, ingested: Ingested) -> None:
        self._spill, self._ingested = spill, ingested
        size = plan.layout.shard_size
        regions = [name_region(patch) for patch in plan.patches]
        self._regions_of = [tuple(regions[first : first + size]) for first in range(0, len(regions), size)]
        self._shards_of: dict[str, set[int]] = {region: set() for region in list_regions(spill)}
        for shard, of_shard in enumerate(self._regions_of):
            for region in of_shard:
                self._shards_of.setdefault(region, set()).add(shard)

    def take(self, task: ShardTask) -> SpilledTask:
        """Say where the patches of a shard wait."""
        checksums = tuple(map(self._ingested.find_checksums, task.sources))
        return SpilledTask(task, self._spill, self._regions_of[task.shard], checksums)

    def release(self, shard: int) -> None:
        """Take note that a shard is written, and remove the regions that no other one needs."""
        for region in set(self._regions_of[shard]):
            self._shards_of[region].discard(shard)
            if not self._shards_of[region]:
                shutil.rmtree(f"{self._spill.folder}/{region}", ignore_errors=True)


def estimate_bytes(roots: Mapping[Sensor, Path], layout: Layout) -> int:
    """Estimate what a store will take, before it is known how many patches there are; 0 of a stream.

    An archive that is compressed as BigEarthNet is published takes about as much as its store. The estimate stays below
    that, as one that refuses a disk that is large enough would do harm.
    """
    total = 0.0
    for sensor, root in roots.items():
        if root.is_file():
            stored, published = (
                sum(group.patch_bytes for group in groups if group.sensor == sensor)
                for groups in (layout.groups, GROUPS)
            )
            total += root.stat().st_size * stored / published / COMPRESSION_RATIO["lz4"]
    return int(total)
