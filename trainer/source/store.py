"""Open a store: check what it is, and describe it. Nothing is read but metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.bands import find_sets, resolve_bands
from bigearthnet.errors import OptionError, SelectionError, StoreError
from bigearthnet.files import convert_values
from bigearthnet.names import suggest
from bigearthnet.store.arrays import ArrayInfo
from bigearthnet.store.cache import Cache
from bigearthnet.store.layout import TABLE
from bigearthnet.store.manifest import Manifest, open_images
from bigearthnet.store.objects import LocalObjects
from bigearthnet.store.query import select_labels
from bigearthnet.store.remote import Objects, RemoteObjects
from bigearthnet.store.rows import check_rows
from bigearthnet.store.statistics import BandSummary
from trainer.source.fraction import draw_fraction
from trainer.source.read import ArrayReader, Check, MappedShards, Residency, ShardReader, TensorStoreReader

DEFAULT_CACHE_BYTES: Final = 32 * 2**30


@dataclass(frozen=True, eq=False)
class Store:
    """A store, open for reading. Streams of one store share its mapped shards; safe to use from several threads."""

    name: str
    """The path or URL that it was opened by."""
    n_patches: int
    fingerprint: str
    """Identifies names, pixels and labels; of the whole store, if this one is a part of it."""
    arrays: tuple[ArrayInfo, ...]
    """Arrays of pixels, finest first."""
    labels_43: tuple[str, ...]
    labels_19: tuple[str, ...]
    """Class names; labels are multi-hot in this order."""
    statistics: Mapping[str, BandSummary]
    """For each band, over the recommended training patches; without bands of which nothing is known."""
    splits: Mapping[str, tuple[int, int]]
    """Half-open range of the recommended patches of each split."""
    attributes: Mapping[str, Any]
    """All root attributes, as they are stored."""
    manifest: Manifest = field(repr=False)
    """Everything that it consists of."""
    objects: Objects = field(repr=False)
    """Where the bytes are."""

    @property
    def bands(self) -> tuple[str, ...]:
        """All bands, array by array."""
        return tuple(band for info in self.arrays for band in info.bands)

    @cached_property
    def band_sets(self) -> dict[str, tuple[str, ...]]:
        """Names for several bands: `all` of both sensors, `s2`, `s1`, `rgb`, `10m`, each array by its name..."""
        return find_sets(self.bands)

    @property
    def patch_bytes(self) -> int:
        """Bytes of all bands of one patch, decoded."""
        return sum(info.plane_bytes * len(info.bands) for info in self.arrays)

    @cached_property
    def table(self) -> str:
        """Path of `patches.parquet` on this machine."""
        return self.objects.path(self.manifest.describe_file(TABLE))

    @cached_property
    def _shards(self) -> dict[str, MappedShards]:
        residency = Residency(sum(shard.n_bytes for shard in self.manifest.shards.values()))
        return {info.name: MappedShards(info, self.manifest, self.objects, residency) for info in self.arrays}

    def select(
        self,
        split: str | None = None,
        *,
        where: str | Sequence[str] | None = None,
        recommended: bool = True,
        labels: int = 19,
        classes: Sequence[str] = (),
        join: Path | str | None = None,
        target: str = "",
        fraction: float = 1.0,
        seed: int = 0,
    ) -> Selection:
        """Select patches, in the order of the store.

        Args:
            split: `train`, `validation` or `test`; None for all.
            where: A condition in SQL (DuckDB) on the columns of `patches.parquet`, such as
                `country = 'Finland' and not list_contains(labels_19, 'Marine waters')`; or several, all of which hold.
            recommended: Leave out patches with snow, cloud or shadow or without a 19-class label, as the authors
                of BigEarthNet recommend.
            labels: 19 or 43 classes.
            classes: Some of these classes, in the order wanted; all if there are none. Patches that have none of them
                are still selected.
            join: A CSV or Parquet file of further columns by `patch_id`, for conditions and for `target`.
            target: A column that names the classes of each patch instead: a list of text, or text with semicolons
                between them. Patches of which it says nothing (null) are left out.
            fraction: Only this share of the patches, which has its share of every class, and is inside of every larger
                one; see `trainer.source.fraction`.
            seed: Decides which these are.

        Raises:
            OptionError: The fraction is out of range, or the file to join is of another kind.
            SelectionError: A condition or the file is not valid, a split, class or column is unknown, or nothing is
                left.
            StoreError: The table is damaged.
        """
        columns = {19: ("labels_19", self.labels_19), 43: ("labels", self.labels_43)}
        if labels not in columns:
            raise SelectionError(f"labels must be one of {', '.join(map(str, columns))} classes, not {labels!r}")
        column, listed = (target, None) if target else columns[labels]
        rows, indices, bits, known = select_labels(
            self.table,
            column,
            listed,
            split=split,
            where=[where] if isinstance(where, str) else where or (),
            recommended=recommended,
            join=None if join is None else Path(join),
        )
        if not target and (bits >> len(known)).any():
            raise StoreError(f"{self.table}: column {column} has classes that the store does not list")
        chosen, bits = _choose_classes(classes or known, known, bits)
        if fraction != 1:
            drawn = draw_fraction(bits, len(chosen), fraction, seed)
            rows, indices, bits = rows[drawn], indices[drawn], bits[drawn]
        return Selection(self, rows, indices, bits, chosen, split)

    def resolve_bands(self, bands: str | Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Say which bands of which arrays are meant.

        Args:
            bands: Names of bands or of sets of bands (`band_sets`), as a sequence or joined by commas or plus signs.

        Returns:
            For each array that is touched, its bands in the order asked for.

        Raises:
            OptionError: A name is unknown or occurs twice.
        """
        try:
            wanted = resolve_bands(bands, self.bands)
        except OptionError as error:
            raise OptionError(f"{self.name}: {error}") from None
        if len(set(wanted)) < len(wanted):
            raise OptionError(f"each band can be given once, found {', '.join(wanted)}")
        chosen = {info.name: tuple(band for band in wanted if band in info.bands) for info in self.arrays}
        return {name: named for name, named in chosen.items() if named}

    def open_reader(self, array: str, bands: Sequence[str], *, check: Check = "first") -> ArrayReader:
        """Open some bands of one array for reading.

        Args:
            array: Name of the array.
            bands: Bands, in the order wanted.
            check: When to compare the crc32c of a chunk.
        """
        info = self.describe(array)
        positions = None if tuple(bands) == info.bands else tuple(info.bands.index(band) for band in bands)
        if info.chain == "other":
            return TensorStoreReader(info, self.objects, positions)
        return ShardReader(info, self._shards[array], positions, check=check)

    def describe(self, array: str) -> ArrayInfo:
        """Describe one array."""
        for info in self.arrays:
            if info.name == array:
                return info
        raise OptionError(f"{self.name}: no array {array!r}; it has {', '.join(info.name for info in self.arrays)}")

    def scale_of(self, bands: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of some bands, each of shape (band,), to normalise pixels with."""
        missing = [band for band in bands if band not in self.statistics]
        if missing:
            raise OptionError(
                f"{self.name}: no statistics of {', '.join(missing)}; it has no recommended train patches"
            )
        summaries = [self.statistics[band] for band in bands]
        return np.array([band.mean for band in summaries], np.float32), np.array(
            [band.std for band in summaries], np.float32
        )


def _choose_classes(
    classes: Sequence[str], known: tuple[str, ...], bits: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Take some classes, in their order, from bits in the order of all."""
    unknown = [name for name in classes if name not in known]
    if unknown or len(set(classes)) < len(classes):
        raise SelectionError(
            f"expected classes once each, out of {'; '.join(known) or 'none'}; found {'; '.join(unknown or classes)}."
            f"{suggest(unknown, known)}"
        )
    chosen = np.zeros_like(bits)
    for place, name in enumerate(classes):
        chosen |= (bits >> known.index(name) & 1) << place
    return tuple(classes), chosen


@dataclass(frozen=True, eq=False)
class Selection:
    """Some patches of a store, in the order of the store, with their labels."""

    store: Store = field(repr=False)
    """The store that the patches are in."""
    rows: NDArray[np.int32]
    """Positions in the store, ascending; shape (patch,)."""
    indices: NDArray[np.int32]
    """What order and names of the patches go by: their positions in the whole store, if this one is a part of it (see
    `ben-convert stage`); else the same."""
    label_bits: NDArray[np.int64]
    """Bit i is set where a patch has class i; shape (patch,)."""
    classes: tuple[str, ...]
    """Class names; labels are multi-hot in this order."""
    split: str | None
    """The split chosen; None for all."""

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def digest(self) -> str:
        """Hash of the patches and of the class list, by which a saved position is recognised."""
        hashed = hashlib.blake2b(self.indices.astype("<i4").tobytes(), digest_size=16)
        hashed.update("\n".join(self.classes).encode())
        return hashed.hexdigest()

    def take(self, part: slice) -> Selection:
        """Take the patches of a stretch of it."""
        return replace(self, rows=self.rows[part], indices=self.indices[part], label_bits=self.label_bits[part])

    @property
    def labels(self) -> NDArray[np.float32]:
        """All labels as multi-hot zeros and ones, shape (patch, class)."""
        return self.take_labels(np.arange(len(self)))

    def take_labels(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the labels of some patches.

        Args:
            positions: Positions in the selection, shape (n,).

        Returns:
            Multi-hot zeros and ones, shape (n, class).
        """
        bits = self.label_bits[positions, None] >> np.arange(len(self.classes))
        return (bits & 1).astype(np.float32)


def open_store(
    location: str | Path,
    *,
    cache_dir: Path | str | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    stall_s: float = 20,
    patience_s: float = 600,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """Open a store that `converter` wrote.

    Args:
        location: Its folder, or a URL such as `s3://bucket/store` or `https://host/store`.
        cache_dir: Where whole shards of remote stores are kept; several stores and processes may share it. None for
            `bigearthnet-store` under XDG_CACHE_HOME, or under ~/.cache.
        cache_bytes: How much is kept there, of all stores together; shards used longest ago go first.
        stall_s: A connection that brings no byte for so many seconds is given up for another.
        patience_s: How long a shard is tried for, whatever the server does: refuses, fails, stalls, breaks off.
        storage_options: For S3, arguments of botocore's client (`endpoint_url`, `region_name`, `aws_access_key_id`,
            `aws_secret_access_key`...), `profile`, or `anonymous=True`; for HTTP, `headers`, `auth`, `proxies`,
            `verify` and `cert` of a session of requests.

    Raises:
        MissingPackageError: The extra `remote` is not installed.
        OptionError: An option is unknown or out of range.
        OutputError: Nothing can be kept in `cache_dir`.
        StoreError: There is no finished store of a format that this version reads, or its parts do not match.
        RemoteError: The server does not answer as it should.
    """
    if cache_dir is None:
        cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bigearthnet-store"
    text = str(location).removeprefix("file://")
    objects: Objects = LocalObjects(Path(text))
    if "://" in text:
        objects = RemoteObjects(text, Cache(Path(cache_dir), cache_bytes), storage_options or {}, stall_s, patience_s)
    manifest, attributes, arrays = open_images(objects)
    n_patches = arrays[0].n_patches
    check_rows(Path(objects.path(manifest.describe_file(TABLE))), attributes, n_patches)
    statistics = convert_values(attributes["statistics"], dict[str, BandSummary])
    return Store(
        name=objects.name,
        n_patches=n_patches,
        fingerprint=(attributes.get("part_of") or {}).get("whole", manifest.fingerprint),
        arrays=arrays,
        labels_43=tuple(attributes["labels_43"]),
        labels_19=tuple(attributes["labels_19"]),
        statistics={band: summary for band, summary in statistics.items() if summary.count},
        splits={name: (first, last) for name, (first, last) in attributes["splits"].items()},
        attributes=attributes,
        manifest=manifest,
        objects=objects,
    )
