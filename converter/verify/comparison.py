"""Hold the patches of archive files against a store, as they come by, in one pass."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet.archive.members import ArchiveReader
from bigearthnet.archive.patch import PatchReader, join_readings, locate_sensors, read_sensor
from bigearthnet.archive.records import Source
from bigearthnet.archive.scan import Scan
from bigearthnet.bands import Sensor
from bigearthnet.errors import PatchError, SourceError
from bigearthnet.store.layout import Layout, name_shard
from bigearthnet.store.shard import DamagedError, decode_chunk, read_chunk
from converter.batch import Batch, open_files
from converter.cluster import Cluster
from converter.events import Ingesting, OnEvent
from converter.feed import Slots, pack_archive, pack_folder
from converter.verify.inspection import COMPARED, Fault, compare_facts, compare_pixels

_COLUMNS: Final[dict[Sensor, tuple[str, ...]]] = {
    "s2": ("labels", "epsg", "x_ul", "y_ul", "s2_time", "tile", "zero_pixels"),
    "s1": ("epsg", "x_ul", "y_ul", "s1_time"),
    "map": ("epsg", "x_ul", "y_ul"),
}
"""Columns of the table that the files of each sensor give anew."""


@dataclass(frozen=True)
class Comparer:
    """What all comparisons of one verification share."""

    store: str
    layout: Layout
    reader: PatchReader
    token: str
    """By which the memory of the main process is known."""


@dataclass(frozen=True)
class Comparison:
    """One unit of work: some patches of one sensor, and their rows of the table."""

    batch: Batch
    """The place of each patch is its row."""
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ComparisonReport:
    """What a comparison found."""

    slot: int | None
    n_patches: int
    faults: tuple[Fault, ...]


def compare_batch(comparer: Comparer, comparison: Comparison) -> ComparisonReport:
    """Compare every pixel of some patches, and what their files say, with the store."""
    batch, layout = comparison.batch, comparer.layout
    groups = [group for group in layout.groups if group.sensor == batch.sensor]
    raw, stored = ({group.name: np.empty(group.patch_shape, group.dtype) for group in groups} for _ in range(2))
    faults: list[Fault] = []
    with open_files(batch, comparer.token) as files_of:
        for patch, row in zip(batch.patches, comparison.rows, strict=True):
            shard, slot = divmod(int(patch.place), layout.shard_size)
            reading = read_sensor(comparer.reader, batch.sensor, patch.name, files_of(patch), raw)
            source = Source(row["patch_id"], s1_name=patch.name if batch.sensor == "s1" else None)
            try:
                facts = join_readings(comparer.reader, source, {batch.sensor: reading})
            except PatchError as error:
                faults.append(Fault("archive", shard, row["patch_id"], f"{error.file}: {error.reason}"))
                continue
            for group in groups:
                path = Path(comparer.store, name_shard(group, shard))
                try:
                    decode_chunk(read_chunk(path, layout.shard_size, slot), group, layout.codec, stored[group.name])
                except (DamagedError, OSError):
                    continue  # which the inspection of the shard tells
                differences = compare_pixels(group.name, stored[group.name], raw[group.name])
                faults += (Fault(where, shard, row["patch_id"], what) for where, what in differences)
            columns = [*_COLUMNS[batch.sensor], *(("labels", "tile") if "s2" not in layout.sensors else ())]
            faults += (Fault(where, shard, row["patch_id"], what) for where, what in compare_facts(row, facts, columns))
    return ComparisonReport(batch.slot, len(batch.patches), tuple(faults))


class FileComparison:
    """Compares archive files, and folders given with them, with the rows of a store.

    Args:
        store: The store's folder.
        reader: What to read of patches, from which archives; of the sensors that are given.
        layout: The store's arrays.
        rows: Its table, with the columns `patch_id`, `s1_name` and `COMPARED`.
        chosen: Rows to be compared.
    """

    def __init__(
        self,
        store: Path,
        reader: PatchReader,
        layout: Layout,
        rows: Sequence[dict[str, Any]],
        chosen: Collection[int],
    ) -> None:
        self._comparer = Comparer(str(store), layout, reader, secrets.token_hex(8))
        self._rows, self._chosen = rows, chosen
        self.faults: list[Fault] = []

    def run(
        self,
        readers: Mapping[Sensor, ArchiveReader],
        scans: dict[Sensor, Scan],
        cluster: Cluster,
        on_event: OnEvent,
    ) -> None:
        """Read every archive through, and compare what comes by.

        Args:
            readers: The archive files.
            scans: What is known of each sensor; of files, it is replaced by all that they hold.
            cluster: Where to compare.
            on_event: Called with what happens.

        Raises:
            SourceError: An archive is damaged, or its members lie too far apart.
        """
        with ExitStack() as stack:
            slots = Slots(stack, self._comparer.token)
            for sensor in list(scans):
                self._compare(sensor, readers.get(sensor), scans, slots, cluster, on_event)

    def _compare(
        self,
        sensor: Sensor,
        archive: ArchiveReader | None,
        scans: dict[Sensor, Scan],
        slots: Slots,
        cluster: Cluster,
        on_event: OnEvent,
    ) -> None:
        column = "s1_name" if sensor == "s1" else "patch_id"
        row_of = {self._rows[row][column] or self._rows[row]["patch_id"]: str(row) for row in self._chosen}
        n_done = 0

        def note(report: ComparisonReport) -> None:
            nonlocal n_done
            n_done += report.n_patches
            self.faults += report.faults
            if report.slot is not None:
                slots.release(report.slot)
            n_bytes, n_total = (archive.stream.n_raw, archive.stream.n_raw_total) if archive else (0, None)
            on_event(Ingesting(sensor, n_done, 0, len(self.faults), n_bytes, n_total))

        def is_done(*_: object) -> bool:
            return False

        if archive is None:
            batches = pack_folder(sensor, scans[sensor], row_of.get, is_done)
        else:
            batches = pack_archive(sensor, self._comparer.reader, archive, slots, row_of.get, is_done)
        cluster.run(partial(compare_batch, self._comparer), map(self._add_rows, batches), note)
        if archive is not None:
            scans[sensor] = archive.make_scan()
            for name in archive.repeated.keys() & row_of.keys():
                patch_id = self._rows[int(row_of[name])]["patch_id"]
                self.faults.append(Fault("archive", None, patch_id, f"{archive.repeated[name]} is in it twice"))

    def _add_rows(self, batch: Batch) -> Comparison:
        for patch in batch.patches:
            if not patch.is_whole:
                raise SourceError(f"the files of {patch.name} lie too far apart in the archive; unpack it to compare")
        rows = (self._rows[int(patch.place)] for patch in batch.patches)
        return Comparison(batch, tuple({name: row[name] for name in ("patch_id", *COMPARED)} for row in rows))

    def check_sources(self, sources: Mapping[str, Source]) -> int:
        """Find faults of patches some sensor of which is not there; returns how many patches were compared.

        Args:
            sources: Where each patch of the archives lies, by name; what is not there at all is found elsewhere.
        """
        n_compared = 0
        for row in map(self._rows.__getitem__, self._chosen):
            if (source := sources.get(row["patch_id"])) is None:
                continue
            n_compared += 1
            try:
                located = locate_sensors(self._comparer.reader, source)
            except PatchError as error:
                self.faults.append(Fault("archive", None, row["patch_id"], f"{error.file}: {error.reason}"))
                continue
            if "s1" in self._comparer.reader.sensors and ("s1" in located) != row["has_s1"]:
                what = f"has_s1 is {row['has_s1']}, the archive has {'s1' in located}"
                self.faults.append(Fault("patches.parquet", None, row["patch_id"], what))
        return n_compared
