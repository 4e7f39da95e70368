"""Bring the folders of an archive and its official lists together: where is each patch, and what is known of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bigearthnet.archive.lists import OfficialLists, read_lists
from bigearthnet.archive.members import scan_archive
from bigearthnet.archive.metadata import FILES, Metadata, find_metadata, read_metadata
from bigearthnet.archive.records import Patch, Reject, Source, is_archive_file
from bigearthnet.archive.scan import Scan, scan_folder
from bigearthnet.bands import Sensor
from bigearthnet.errors import SourceError
from bigearthnet.names import TITLES, Dataset, parse_patch_name


@dataclass(frozen=True)
class Archive:
    """Every patch of an archive, ready to be planned."""

    dataset: Dataset
    roots: dict[Sensor, Path]
    """Folder of each sensor that was given."""
    patches: tuple[Patch, ...]
    left_out: tuple[Reject, ...]
    """Patch folders that nothing is known of, so that they cannot be converted."""
    n_missing: int
    """Patches that the lists or the metadata name and the folders do not hold."""
    n_unlisted: int
    """Patches that no list names; they are converted (v1.0)."""
    n_stray: int
    """Entries of the folders that hold no patch."""
    is_synthetic: bool
    """`ben-convert sample` made one of the folders."""


def read_archive(
    roots: Mapping[Sensor, Path],
    *,
    dataset: Dataset | None = None,
    lists: Path | None = None,
    metadata: Iterable[Path] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Archive:
    """Find the patches of an archive and look every one up.

    Args:
        roots: Folder or archive file of each sensor to convert, Sentinel-2 or Sentinel-1 at least.
        dataset: The version of BigEarthNet; recognised from the names of Sentinel-2 patches, or from the presence of
            metadata, if None.
        lists: Folder of the official v1.0 lists; those of `bigearthnet-common` if None.
        metadata: Official v2.0 metadata files; those that lie in or beside the folders if empty.
        progress: Called now and then with the number of patch folders found so far.

    Raises:
        SourceError: A folder, file, list or metadata file is missing or is not what it should be.
    """
    scans = {sensor: scan_root(root, progress) for sensor, root in roots.items()}
    return read_catalogue(scans, dataset=dataset, lists=lists, metadata=metadata).describe(scans)


def scan_root(root: Path, progress: Callable[[int], None] = lambda _: None) -> Scan:
    """Find the patches in a folder or, from end to end, in an archive file.

    Raises:
        SourceError: It cannot be read, or does not hold patches.
    """
    return scan_archive(root, progress) if is_archive_file(root) else scan_folder(root, progress)


@dataclass(frozen=True)
class Catalogue:
    """What the official lists or the metadata say of every patch, whether it is there or not."""

    dataset: Dataset
    listing: OfficialLists | Metadata

    @cached_property
    def patch_of(self) -> dict[str, str]:
        """The Sentinel-2 patch that each Sentinel-1 patch is paired with."""
        pairs = ((self.listing.s1_name(patch_id), patch_id) for patch_id in self.listing.patch_ids)
        return {s1_name: patch_id for s1_name, patch_id in pairs if s1_name}

    def describe(self, scans: Mapping[Sensor, Scan]) -> Archive:
        """Look every patch up.

        Raises:
            SourceError: What was found is not of one kind, or not of this version of BigEarthNet.
        """
        _check_sensors(scans)
        _recognise(scans, self.dataset, has_metadata=False)
        listed = self.listing.patch_ids
        sources = self._locate(scans)
        described = [(source, self.listing.describe(source)) for source in sources]
        patches = tuple(patch for _, patch in described if patch)
        return Archive(
            dataset=self.dataset,
            roots={sensor: scan.root for sensor, scan in scans.items()},
            patches=patches,
            left_out=tuple(
                Reject(source.patch_id, "", "no metadata file lists the patch, so it has no labels")
                for source, patch in described
                if not patch
            ),
            n_missing=len(listed.difference(source.patch_id for source in sources)),
            n_unlisted=sum(patch.patch_id not in listed for patch in patches),
            n_stray=sum(scan.n_stray for scan in scans.values()),
            is_synthetic=any(scan.is_synthetic for scan in scans.values()),
        )

    def _locate(self, scans: Mapping[Sensor, Scan]) -> list[Source]:
        """Pair all sensors by name. Sentinel-2 decides which patches there are, or Sentinel-1 alone."""
        s2, s1, maps = (scans[sensor].folder_of if sensor in scans else {} for sensor in ("s2", "s1", "map"))
        patch_ids: Iterable[str] = s2 or (self.patch_of.get(s1_name, s1_name) for s1_name in s1)
        return [
            Source(
                patch_id,
                s1_name=(s1_name := self.listing.s1_name(patch_id)),
                s2=s2.get(patch_id),
                s1=s1.get(s1_name) if s1_name else s1.get(patch_id),
                map=maps.get(patch_id),
            )
            for patch_id in patch_ids
        ]


def read_catalogue(
    scans: Mapping[Sensor, Scan],
    *,
    dataset: Dataset | None = None,
    lists: Path | None = None,
    metadata: Iterable[Path] = (),
) -> Catalogue:
    """Read the lists or the metadata that describe some patches.

    Args:
        scans: What was found of each sensor; one patch of each is enough.
        dataset: As for `read_archive`, like the rest.
        lists: Folder of the lists.
        metadata: Metadata files.

    Raises:
        SourceError: A list or metadata file is missing or is not what it should be, or the patches are of another
            version of BigEarthNet or another sensor.
    """
    _check_sensors(scans)
    roots = [scan.root for scan in scans.values()]
    files = tuple(metadata) or tuple(dict.fromkeys(path for root in roots for path in find_metadata(root)))
    dataset = _recognise(scans, dataset, has_metadata=bool(files))
    official = read_lists(lists)
    if dataset == "v1":
        return Catalogue(dataset, official)
    if not files:
        raise SourceError(
            f"{roots[0]}: BigEarthNet v2.0 keeps its labels in {FILES[0]}, expected in this folder "
            "or beside it, found neither; name it with the option metadata"
        )
    return Catalogue(dataset, read_metadata(files, official))


def _check_sensors(scans: Mapping[Sensor, Scan]) -> None:
    for sensor, scan in scans.items():
        scan.dataset  # noqa: B018 - raises if the folder mixes kinds
        actual = next(name.sensor for name in map(parse_patch_name, scan.folder_of) if name)
        expected = "s1" if sensor == "s1" else "s2"
        if actual != expected:
            raise SourceError(
                f"{scan.root}: expected patches named like {expected.upper()}A_..., found {actual.upper()} patches; "
                "are the folders of Sentinel-2, Sentinel-1 and reference maps mixed up?"
            )


def _recognise(scans: Mapping[Sensor, Scan], dataset: Dataset | None, *, has_metadata: bool) -> Dataset:
    named = [(scan.dataset, scan.root) for scan in scans.values() if scan.dataset is not None]
    wanted = dataset or (named[0][0] if named else "v2" if has_metadata else "v1")
    for named_dataset, root in named:
        if named_dataset != wanted:
            raise SourceError(f"{root}: expected patches of {TITLES[wanted]}, found names of {TITLES[named_dataset]}")
    return wanted
