"""Bring the folders of an archive and its official lists together: where is each patch, and what is known of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bigearthnet.archive.lists import OfficialLists, read_lists
from bigearthnet.archive.metadata import FILES, Metadata, find_metadata, read_metadata
from bigearthnet.archive.records import Patch, Reject, Source
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
    roots: dict[Sensor, Path],
    *,
    dataset: Dataset | None = None,
    lists: Path | None = None,
    metadata: Iterable[Path] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Archive:
    """Scan the folders of an archive and look every patch up.

    Args:
        roots: Folder of each sensor to convert, Sentinel-2 or Sentinel-1 at least.
        dataset: The version of BigEarthNet; recognised from the names of Sentinel-2 patches, or from the presence of
            metadata, if None.
        lists: Folder of the official v1.0 lists; those of `bigearthnet-common` if None.
        metadata: Official v2.0 metadata files; those that lie in or beside the folders if empty.
        progress: Called now and then with the number of patch folders found so far.

    Raises:
        SourceError: A folder, list or metadata file is missing or is not what it should be.
    """
    scans = {sensor: scan_folder(root, progress) for sensor, root in roots.items()}
    _check_sensors(scans)
    files = tuple(metadata) or tuple(dict.fromkeys(path for root in roots.values() for path in find_metadata(root)))
    dataset = _recognise(scans, dataset, has_metadata=bool(files))
    official = read_lists(lists)
    if dataset == "v2" and not files:
        raise SourceError(
            f"{next(iter(roots.values()))}: BigEarthNet v2.0 keeps its labels in {FILES[0]}, expected in this folder "
            "or beside it, found neither; name it with the option metadata"
        )
    catalogue = official if dataset == "v1" else read_metadata(files, official)
    listed = catalogue.patch_ids
    sources = _locate(scans, catalogue, listed)
    described = [(source, catalogue.describe(source)) for source in sources]
    patches = tuple(patch for _, patch in described if patch)
    return Archive(
        dataset=dataset,
        roots=roots,
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


def _check_sensors(scans: dict[Sensor, Scan]) -> None:
    for sensor, scan in scans.items():
        scan.dataset  # noqa: B018 - raises if the folder mixes kinds
        actual = next(name.sensor for name in map(parse_patch_name, scan.folder_of) if name)
        expected = "s1" if sensor == "s1" else "s2"
        if actual != expected:
            raise SourceError(
                f"{scan.root}: expected patches named like {expected.upper()}A_..., found {actual.upper()} patches; "
                "are the folders of Sentinel-2, Sentinel-1 and reference maps mixed up?"
            )


def _recognise(scans: dict[Sensor, Scan], dataset: Dataset | None, *, has_metadata: bool) -> Dataset:
    named = [(scan.dataset, scan.root) for scan in scans.values() if scan.dataset is not None]
    wanted = dataset or (named[0][0] if named else "v2" if has_metadata else "v1")
    for named_dataset, root in named:
        if named_dataset != wanted:
            raise SourceError(f"{root}: expected patches of {TITLES[wanted]}, found names of {TITLES[named_dataset]}")
    return wanted


def _locate(scans: dict[Sensor, Scan], catalogue: OfficialLists | Metadata, listed: frozenset[str]) -> list[Source]:
    """Pair the folders of all sensors by name. Sentinel-2 decides which patches there are, or Sentinel-1 alone."""
    s2, s1, maps = (scans[sensor].folder_of if sensor in scans else {} for sensor in ("s2", "s1", "map"))
    if s2:
        patch_ids: Iterable[str] = s2
    else:
        patch_of = {catalogue.s1_name(patch_id): patch_id for patch_id in listed}
        patch_ids = (patch_of.get(s1_name, s1_name) for s1_name in s1)
    return [
        Source(
            patch_id,
            s1_name=(s1_name := catalogue.s1_name(patch_id)),
            s2=s2.get(patch_id),
            s1=s1.get(s1_name) if s1_name else s1.get(patch_id),
            map=maps.get(patch_id),
        )
        for patch_id in patch_ids
    ]
