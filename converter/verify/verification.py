"""Verify a finished store: against itself, and against the archive it was made from."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bigearthnet.archive.catalogue import Archive, read_archive, read_catalogue
from bigearthnet.archive.patch import PatchReader, ReaderName
from bigearthnet.archive.records import Sources
from bigearthnet.bands import S2_10M
from bigearthnet.errors import OptionError
from bigearthnet.files import read_regular
from bigearthnet.labels import LABELS_19, LABELS_43, to_labels_19
from bigearthnet.names import N_PATCHES, SYNTHETIC_FILE
from bigearthnet.store.arrays import ArrayInfo
from bigearthnet.store.images import read_coordinates, read_layout
from bigearthnet.store.layout import IMAGES, MANIFEST, PROGRESS, TABLE, Layout, is_litter, name_shard
from bigearthnet.store.manifest import (
    Entry,
    Manifest,
    identify_file,
    is_as_written,
    open_images,
    read_manifest,
)
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.table import PATCH_COLUMNS, count_rejects, read_fingerprint, read_rows, read_table
from converter.cluster import open_cluster
from converter.events import Advanced, OnEvent, Scanned, Started, ignore
from converter.feed import open_archives
from converter.finish import count_splits, make_fingerprint, summarise_bands
from converter.options import ClusterOptions
from converter.verify.comparison import FileComparison
from converter.verify.inspection import COMPARED, Fault, Inspector, ShardInspection, ShardReport, inspect_shard
from converter.verify.sampling import count_sample, draw_rows, find_probability


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(ClusterOptions):
    """How to verify."""

    against: Sources | None = None
    """The archive to compare with; None to look at the store alone."""
    sample: int | str | None = None
    """How many patches to compare with the archive, drawn at random: a number, or a percentage such as `5%`; all if
    None."""
    seed: int = 0
    """Another one draws other patches."""
    lists: Path | None = None
    """Folder of the official lists; those of `bigearthnet-common` if None."""
    metadata: tuple[Path, ...] = ()
    """Official v2.0 metadata; the files that lie in or beside the folders if empty."""
    reader: ReaderName = "auto"
    """`rasterio` reads the archive with code that the conversion did not use, slowly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample is not None:
            count_sample(str(self.sample), N_PATCHES["v1"])  # validates it
            if self.against is None:
                raise OptionError("a sample is compared with an archive: give one too")


@dataclass
class Verification:
    """What a verification found."""

    store: Path
    n_patches: int = 0
    """Patches all of whose chunks were read and checked."""
    n_compared: int = 0
    """Patches whose every pixel and label was compared with the archive."""
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def detection(self) -> dict[int, float]:
        """The probability that a sample finds a difference from the archive, by the number of patches that differ.

        Empty if nothing was compared, or all was. The rest of a verification is no sample: every chunk of every shard
        is checked.
        """
        if self.n_compared in (0, self.n_patches):
            return {}
        sizes = (n for n in (1, 10, 100, 1_000) if n <= self.n_patches)
        return {n: find_probability(n, self.n_compared, self.n_patches) for n in sizes}

    def to_json(self) -> dict[str, Any]:
        """Return the verification as JSON values."""
        return {
            "store": str(self.store),
            "patches": self.n_patches,
            "compared": self.n_compared,
            "detection": self.detection,
            "faults": [str(fault) for fault in self.faults],
            "seconds": self.seconds,
        }


def verify(store: Path | str, options: VerifyOptions | None = None, on_event: OnEvent = ignore) -> Verification:
    """Verify a finished store.

    First, every file but the shards must be the one that the manifest lists; if not, nothing they say is looked at.
    Then every chunk is read, checked against its checksum and decoded, and every shard held against the manifest; the
    table is held against the arrays, the counts, the class names and the statistics; and, if an archive is given,
    pixels and labels against it.

    Args:
        store: The store's folder.
        options: How to verify.
        on_event: Called with what happens, as it happens.

    Raises:
        StoreError: There is no finished store, or its metadata cannot be read at all.
        SourceError: The archive cannot be read.
    """
    options = options or VerifyOptions()
    start = time.perf_counter()
    store = Path(store).absolute()
    objects = LocalObjects(store)
    is_damaged = False
    with suppress(OSError):  # which `read_manifest` tells
        is_damaged = not is_as_written(objects.read(MANIFEST))
    if is_damaged:
        damaged = [Fault(MANIFEST, None, None, "its bytes are not those that were written; nothing else was looked at")]
    else:
        listed = read_manifest(objects)
        damaged = list(_check_files(store, listed))
        if damaged:
            damaged += _find_strangers(store, listed)
    if damaged:
        return Verification(store, faults=damaged, seconds=time.perf_counter() - start)
    manifest, attributes, arrays = open_images(objects)
    layout = read_layout(store, attributes)
    rows = read_rows(store)
    if "part_of" in attributes and S2_10M not in layout.groups:  # zeros were counted over all of its bands
        for row in rows:
            del row["zero_pixels"]
    verification = Verification(store, len(rows))
    verification.faults += _check_listing(layout, manifest, len(rows))
    verification.faults += _find_strangers(store, manifest)
    verification.faults += _check_arrays(arrays, layout, len(rows))
    verification.faults += _check_table(store, attributes, manifest, rows)
    verification.faults += _check_labels(attributes, rows)
    archive = None
    if options.against is not None and options.against.archive_files:
        archive = _compare_files(verification, layout, rows, options, on_event)
        verification.faults += _check_archive(archive, layout, attributes, rows)
    elif options.against is not None:
        archive = read_archive(
            options.against.roots,
            dataset=layout.dataset,
            lists=options.lists,
            metadata=options.metadata,
            progress=lambda n_found: on_event(Scanned(n_found)),
        )
        verification.faults += _check_archive(archive, layout, attributes, rows)
    compared = None if options.against is not None and options.against.archive_files else archive
    reports = _inspect(store, layout, attributes, rows, compared, options, on_event)
    verification.faults += [fault for report in reports for fault in report.faults]
    verification.n_compared += sum(report.n_compared for report in reports)
    verification.faults += _check_shards(store, layout, manifest, reports)
    verification.faults += _check_sums(store, layout, attributes, reports)
    verification.seconds = time.perf_counter() - start
    return verification


def _check_files(store: Path, manifest: Manifest) -> Iterator[Fault]:
    """Hold every file but the shards against the manifest."""
    for name, entry in manifest.files.items():
        try:
            if identify_file(read_regular(store / name)) != entry:
                yield Fault(name, None, None, "its bytes are not those that were written; no pixels were looked at")
        except OSError as error:
            yield Fault(name, None, None, f"cannot be read ({error.strerror}); no pixels were looked at")


def _check_listing(layout: Layout, manifest: Manifest, n_patches: int) -> Iterator[Fault]:
    """Hold the manifest against the shards that there must be."""
    n_shards = -(-n_patches // layout.shard_size)
    if manifest.shards.keys() != {name_shard(group, shard) for shard in range(n_shards) for group in layout.groups}:
        yield Fault(MANIFEST, None, None, f"expected {n_shards:,} shards of each array, it lists others")


def _find_strangers(store: Path, manifest: Manifest) -> Iterator[Fault]:
    """Name whatever lies in the folder and the manifest does not list, each folder of such things once.

    Files that desktops leave are passed over. A link to a file that is listed is as good as the file, if that lies in
    the store too: one out of it is lost when the store is copied, and may come to lead elsewhere.
    """
    known = {MANIFEST, *manifest.files, *manifest.shards}
    around = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
    for folder, folders, files in os.walk(store):
        for name in sorted((*folders, *files)):
            place = Path(folder, name).relative_to(store).as_posix()
            target = os.path.realpath(store / place)
            if not Path(target).is_relative_to(os.path.realpath(store)):
                yield Fault(place, None, None, f"a link out of the store, to {target}; put a copy in its place")
            elif place == PROGRESS and name in folders:
                yield Fault(place, None, None, "left by a conversion that was ended; run it again, or remove this")
            elif name in folders and place not in around:
                yield Fault(place, None, None, f"a folder of which {MANIFEST} lists nothing; remove it")
            elif name in files and place not in known and not is_litter(name):
                yield Fault(place, None, None, f"{MANIFEST} does not list it; remove it")
        folders[:] = [name for name in folders if Path(folder, name).relative_to(store).as_posix() in around]


def _check_shards(store: Path, layout: Layout, manifest: Manifest, reports: Sequence[ShardReport]) -> Iterator[Fault]:
    """Hold shards that are whole against the manifest: each may still be another than was written."""
    for report in reports:
        for group in layout.groups:
            name = name_shard(group, report.shard)
            if group.name in report.checksums and name in manifest.shards:
                entry = Entry((store / name).stat().st_size, report.checksums[group.name])
                if entry != manifest.shards[name]:
                    yield Fault(group.name, report.shard, None, "its chunks are not those that were written")


def _check_arrays(arrays: Sequence[ArrayInfo], layout: Layout, n_patches: int) -> Iterator[Fault]:
    """Hold the arrays' own description against what they must be."""
    described = {array.name: array for array in arrays}
    for group in layout.groups:
        array = described.pop(group.name, None)
        expected = ((n_patches, *group.stored_shape), group.dtype, group.bands, ("patch", *group.dimensions))
        if array is None:
            yield Fault(group.name, None, None, "the array is missing")
        elif (actual := (array.shape, array.dtype, array.bands, array.dimensions)) != expected:
            yield Fault(group.name, None, None, f"expected {expected}, found {actual}")
    for name in described:
        yield Fault(name, None, None, "the array is not one of those that the root attributes name")


def _check_table(
    store: Path, attributes: dict[str, Any], manifest: Manifest, rows: Sequence[dict[str, Any]]
) -> Iterator[Fault]:
    """Hold the table and the manifest against the coordinates and the root attributes."""
    for name, listed in (("fingerprint", manifest.fingerprint), ("counts", manifest.counts)):
        if attributes[name] != listed:
            yield Fault(MANIFEST, None, None, f"{name}: {listed}, the images have {attributes[name]}")
    counts, n_rejected = attributes["counts"], count_rejects(store)
    reconciled = {"converted": len(rows), "rejected": n_rejected, "found": len(rows) + n_rejected}
    for name, n in reconciled.items():
        if counts[name] != n:
            yield Fault(TABLE, None, None, f"the store says {counts[name]:,} {name}, the tables have {n:,}")
    if read_fingerprint(store) != attributes["fingerprint"]:
        yield Fault(TABLE, None, None, "its fingerprint is not that of the images: they are not of one conversion")
    ranges = count_splits(row["split"] if row["recommended"] else None for row in rows)
    if ranges != attributes["splits"]:
        yield Fault(TABLE, None, None, f"the store says that splits are rows {attributes['splits']}, it has {ranges}")
    for name, values in read_coordinates(store).items():
        different = [row for row, value in zip(rows, values, strict=False) if row[name] != value]
        if different or len(values) != len(rows):
            yield Fault(name, None, different[0]["patch_id"] if different else None, f"differs from {TABLE}")


def _check_labels(attributes: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[Fault]:
    """Hold each row against its position and the class names."""
    labels_43, labels_19 = tuple(attributes["labels_43"]), tuple(attributes["labels_19"])
    if labels_19 != LABELS_19 or labels_43 not in (LABELS_43, ()):
        yield Fault(IMAGES, None, None, "the class names in the root attributes are not those of BigEarthNet")
    vocabulary = set(labels_43 or labels_19)
    seen: set[str] = set()
    for i, row in enumerate(rows):
        patch_id, labels, expected = row["patch_id"], row["labels"], to_labels_19(row["labels"])
        if patch_id in seen:
            yield Fault(TABLE, None, patch_id, "the patch is there twice")
        if row["index"] != i:
            yield Fault(TABLE, None, patch_id, f"index is {row['index']}, it is row {i}")
        if not set(labels) <= vocabulary:
            yield Fault(TABLE, None, patch_id, f"unknown labels {sorted(set(labels) - vocabulary)}")
        elif row["labels_19"] != expected:
            yield Fault(TABLE, None, patch_id, f"labels_19 is {row['labels_19']}, labels give {expected}")
        seen.add(patch_id)


def _check_archive(
    archive: Archive, layout: Layout, attributes: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> Iterator[Fault]:
    """Hold what lists or metadata say of each patch against the table, and whether all of it is made up."""
    if archive.is_synthetic != bool(attributes.get("synthetic")):
        kind = "a synthetic sample" if archive.is_synthetic else f"a real archive, without {SYNTHETIC_FILE}"
        yield Fault("archive", None, None, f"it is {kind}, and the store says otherwise: convert it again")
    patch_of = {patch.patch_id: patch for patch in archive.patches}
    columns = (*PATCH_COLUMNS, "s1_name", *(["labels"] if layout.dataset == "v2" else []))
    for row in rows:
        patch = patch_of.get(row["patch_id"])
        if patch is None:
            yield Fault("archive", None, row["patch_id"], "the patch is in the store and not in the archive")
            continue
        for column in columns:
            expected = patch.source.s1_name if column == "s1_name" else getattr(patch, column)
            if row[column] != expected:
                yield Fault(TABLE, None, patch.patch_id, f"{column} is {row[column]!r}, the lists have {expected!r}")


def _inspect(
    store: Path,
    layout: Layout,
    attributes: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    archive: Archive | None,
    options: VerifyOptions,
    on_event: OnEvent,
) -> list[ShardReport]:
    """Inspect every shard on a dask cluster; returns the reports in the order of the shards."""
    reader = None
    if archive is not None:
        allow = any(not row["has_s1"] for row in rows)
        roots = {sensor: str(root) for sensor, root in archive.roots.items()}
        reader = PatchReader(roots, layout.dataset, layout.groups, options.reader, allow)
    source_of = {patch.patch_id: patch.source for patch in archive.patches} if archive else {}
    chosen = _choose_rows(len(rows), options)
    n_train, size = attributes["splits"]["train"][1], layout.shard_size

    def plan(shard: int, first: int) -> ShardInspection:
        part = rows[first : first + size]
        return ShardInspection(
            shard=shard,
            patch_ids=tuple(row["patch_id"] for row in part),
            n_train=min(size, max(0, n_train - first)),
            rows=tuple({name: row[name] for name in COMPARED if name in row} for row in part),
            sources=tuple(source_of.get(row["patch_id"]) if row["index"] in chosen else None for row in part),
        )

    tasks = (plan(shard, first) for shard, first in enumerate(range(0, len(rows), size)))
    reports: list[ShardReport] = []
    n_done = n_faults = 0

    def advance(report: ShardReport) -> None:
        nonlocal n_done, n_faults
        reports.append(report)
        n_done, n_faults = n_done + report.n_patches, n_faults + len(report.faults)
        on_event(Advanced(n_done, n_faults, len(rows)))

    start = time.perf_counter()
    folders = [str(store), *(reader.roots.values() if reader else ())]
    with open_cluster(options, folders, on_event) as cluster:
        on_event(Started(cluster.n_workers, cluster.dashboard, 0, len(rows), time.perf_counter() - start))
        cluster.run(partial(inspect_shard, Inspector(str(store), layout, reader)), tasks, advance)
    return sorted(reports, key=lambda report: report.shard)


def _choose_rows(n_rows: int, options: VerifyOptions) -> frozenset[int]:
    n_sample = n_rows if options.sample is None else count_sample(str(options.sample), n_rows)
    return draw_rows(n_sample, n_rows, options.seed)


def _compare_files(
    verification: Verification,
    layout: Layout,
    rows: Sequence[dict[str, Any]],
    options: VerifyOptions,
    on_event: OnEvent,
) -> Archive:
    """Compare archive files with the store in one pass, and return what they hold."""
    assert options.against is not None
    roots = options.against.roots
    with ExitStack() as stack:
        readers, scans = open_archives(roots, stack, {})
        catalogue = read_catalogue(scans, dataset=layout.dataset, lists=options.lists, metadata=options.metadata)
        reader = PatchReader(
            {sensor: str(root) for sensor, root in roots.items()},
            layout.dataset,
            tuple(group for group in layout.groups if group.sensor in roots),
            options.reader,
            allow_missing_s1=any(not row["has_s1"] for row in rows),
        )
        comparison = FileComparison(verification.store, reader, layout, rows, _choose_rows(len(rows), options))
        start = time.perf_counter()
        with open_cluster(options, [str(verification.store)], on_event) as cluster:
            on_event(Started(cluster.n_workers, cluster.dashboard, 0, 0, time.perf_counter() - start))
            comparison.run(readers, scans, cluster, on_event)
    archive = catalogue.describe(scans)
    verification.n_compared = comparison.check_sources({patch.patch_id: patch.source for patch in archive.patches})
    verification.faults += comparison.faults
    return archive


def _check_sums(
    store: Path, layout: Layout, attributes: dict[str, Any], reports: Sequence[ShardReport]
) -> Iterator[Fault]:
    """Recompute what is summed over all shards; pointless if a shard is damaged, which is a fault of its own."""
    if any(len(report.checksums) != len(layout.groups) or report.faults for report in reports):
        return
    recomputed = summarise_bands(layout, [report.statistics for report in reports])
    is_part = "part_of" in attributes  # it has the statistics of the whole
    for band, expected in () if is_part else attributes["statistics"].items():
        if recomputed.get(band) != expected:
            yield Fault(IMAGES, None, None, f"statistics of {band} are {expected}, pixels give {recomputed.get(band)}")
    checksums = (checksum for report in reports for checksum in report.checksums.values())
    fingerprint = make_fingerprint(checksums, read_table(store))
    if fingerprint != attributes["fingerprint"]:
        yield Fault(
            IMAGES, None, None, f"the fingerprint is {attributes['fingerprint']}, the contents give {fingerprint}"
        )
