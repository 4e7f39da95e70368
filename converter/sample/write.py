"""A small archive in the exact form of BigEarthNet v1.0, made without a download.

The six real patches that `bigearthnet-common` ships come first. The rest carry names, places, dates, splits,
countries, seasons and snow and cloud flags from the official lists; their labels and pixels are made up.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import nsmallest
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from random import Random
from typing import Final

import numpy as np

from converter.bigearthnet import S2_GROUPS, annotation_file, band_file, parse_patch_name
from converter.errors import PlanError, SourceError
from converter.lists import OfficialLists, packaged_example, read_lists
from converter.model import Annotation
from converter.sample.encoding import encode_annotation, encode_geotiff
from converter.sample.landcover import draw_labels
from converter.sample.landscape import Scene, render_scene
from converter.sample.mgrs import locate_patch

_BATCH: Final = 16
"""Patches that a worker process makes at a time."""

_ORBIT_EPOCH: Final = datetime(2017, 1, 1)
_ORBITS_PER_DAY: Final = 14.3
_ORBITS: Final = 143
_ORBIT_SHIFT: Final = {"S2A": 26.98, "S2B": 98.48}
"""Sentinel-2 flies 143 orbits in 10 days; fitted to the orbit numbers of the v2.0 names, all of which it gives."""
_BASELINE_0206: Final = datetime(2017, 10, 23)
"""From here on products were made with processing baseline 02.06, before with 02.05."""


@dataclass(frozen=True)
class SampleSummary:
    """What was written."""

    path: Path
    n_real: int
    """Real patches."""
    n_synthetic: int
    """Made-up patches."""
    n_bytes: int
    """Bytes of all files together."""


@dataclass(frozen=True, slots=True)
class _Order:
    """One patch to make up."""

    patch_id: str
    tile: str
    country: str
    season: str
    snow: bool
    cloud: bool
    with_19: bool


def write_sample(
    out: Path,
    n_patches: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSummary:
    """Write a sample archive; a patch depends on its name and the seed alone, and a larger sample adds patches.

    Every patch folder appears whole. A run that was cut short leaves fewer folders than asked for, and is not
    continued: delete it and start again. Pixels may differ in the last digit between machines or NumPy versions;
    names, labels and places do not.

    Args:
        out: Folder to make; may exist if it is empty.
        n_patches: Patches to write, real ones included.
        seed: Decides which patches are made up, and how.
        workers: Processes; one for each core, or none but this one for a small sample, if None.
        progress: Called with the patches written so far and `n_patches`, in this process.

    Raises:
        PlanError: `n_patches` or `workers` is out of range.
        SourceError: `out` holds something already or cannot be written, or a worker died.
    """
    if n_patches < 1:
        raise PlanError(f"a sample must have at least 1 patch, not {n_patches:,}")
    if workers is not None and workers < 1:
        raise PlanError(f"a sample must be written by at least 1 worker, not {workers:,}")
    lists = read_lists()
    if n_patches > len(lists.pairing_of):
        raise PlanError(f"a sample can have at most the {len(lists.pairing_of):,} listed patches, not {n_patches:,}")
    _claim(out)
    real = _read_real()
    done = n_bytes = 0
    for patch_id in sorted(real)[:n_patches]:
        n_bytes += _place(out, patch_id, real[patch_id])
        done += 1
        if progress:
            progress(done, n_patches)
    orders = [_order(name, lists) for name in _choose(lists, set(real), n_patches - done, seed)]
    batches = [orders[start : start + _BATCH] for start in range(0, len(orders), _BATCH)]
    for n_new, n_new_bytes in _run(out, batches, seed, min(workers or os.cpu_count() or 1, len(batches) // 2)):
        done += n_new
        n_bytes += n_new_bytes
        if progress:
            progress(done, n_patches)
    return SampleSummary(out, n_real=done - len(orders), n_synthetic=len(orders), n_bytes=n_bytes)


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = next(out.iterdir(), None)
    except OSError as error:
        raise SourceError(f"{out}: cannot be made a folder for the sample ({error})") from error
    if found is not None:
        raise SourceError(f"{out}: expected a new or empty folder, found {found.name} in it; name another or empty it")


def _read_real() -> dict[str, dict[str, bytes]]:
    """Read the files of the real patches by patch name and file name."""
    patches: dict[str, dict[str, bytes]] = {}
    with tarfile.open(packaged_example("S2")) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                path = PurePosixPath(member.name)
                patches.setdefault(path.parent.name, {})[path.name] = content.read()
    return patches


def _choose(lists: OfficialLists, taken: set[str], n_patches: int, seed: int) -> list[str]:
    """Choose listed patches: the first ones in the order of their hashes, so that a larger choice extends a smaller."""
    free = (name for name in lists.pairing_of if name not in taken)
    return nsmallest(n_patches, free, key=lambda name: _hash(seed, "choice", name))


def _hash(seed: int, purpose: str, patch_id: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {purpose} {patch_id}".encode(), digest_size=16).digest(), "big")


def _order(patch_id: str, lists: OfficialLists) -> _Order:
    pairing = lists.pairing_of[patch_id]
    return _Order(
        patch_id,
        tile=pairing.s1_name.split("_")[-3],
        country=pairing.country,
        season=pairing.season,
        snow=patch_id in lists.snow,
        cloud=patch_id in lists.cloud,
        with_19=patch_id not in lists.no_19,
    )


def _run(out: Path, batches: list[list[_Order]], seed: int, workers: int) -> Iterator[tuple[int, int]]:
    """Yield patches and bytes written, batch by batch, in any order."""
    if workers <= 1:
        for batch in batches:
            yield _write_batch(out, batch, seed)
        return
    # Spawned, so that the caller's threads (zarr and TensorFlow keep some) are not cloned in mid-air.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_write_batch, out, batch, seed) for batch in batches]):
                yield future.result()
        except BrokenProcessPool as error:
            raise SourceError(
                f"{out}: a worker process died, so the sample is incomplete; was memory short, or does a script call "
                "this without `if __name__ == '__main__':`? Delete the folder and use workers=1"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _write_batch(out: Path, batch: list[_Order], seed: int) -> tuple[int, int]:
    return len(batch), sum(_place(out, order.patch_id, _make_up(order, seed)) for order in batch)


def _place(out: Path, patch_id: str, files: dict[str, bytes]) -> int:
    """Write a patch folder under a hidden name, then give it its own; returns the bytes written."""
    hidden, folder = out / f".{patch_id}", out / patch_id
    try:
        hidden.mkdir()
        for name, content in files.items():
            (hidden / name).write_bytes(content)
        hidden.rename(folder)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written ({error}); the sample is incomplete, delete it") from error
    return sum(len(content) for content in files.values())


def _make_up(order: _Order, seed: int) -> dict[str, bytes]:
    """Make up the thirteen files of a patch, by file name."""
    # Random.random is the one stream that Python promises never to change.
    draw = Random(_hash(seed, "labels", order.patch_id)).random  # noqa: S311 - nothing is secret
    annotation, tile_source = _annotate(order, draw)
    scene = Scene(annotation.labels, order.country, order.season, order.snow, order.cloud)
    pixels = render_scene(scene, np.random.Generator(np.random.PCG64(_hash(seed, "pixels", order.patch_id))))
    files = {
        band_file(order.patch_id, band): encode_geotiff(pixels[band], annotation, group.pixel_m)
        for group in S2_GROUPS
        for band in group.bands
    }
    files[annotation_file(order.patch_id)] = encode_annotation(annotation, tile_source)
    return files


def _annotate(order: _Order, draw: Callable[[], float]) -> tuple[Annotation, str]:
    """Draw the labels and derive the rest; returns the name of the source product too."""
    named = parse_patch_name(order.patch_id)
    if named is None or named.dataset != "v1":
        raise SourceError(
            f"expected the name of a v1.0 Sentinel-2 patch in the official lists, found {order.patch_id!r}"
        )
    satellite, sensed = named.satellite, order.patch_id.split("_")[2]
    corner = locate_patch(order.tile, named.column, named.row)
    time = _to_time(sensed)
    days = (time - _ORBIT_EPOCH) / timedelta(days=1)
    orbit = round(days * _ORBITS_PER_DAY - _ORBIT_SHIFT[satellite]) % _ORBITS or _ORBITS
    baseline = "N0206" if time >= _BASELINE_0206 else "N0205"
    annotation = Annotation(
        draw_labels(order.country, draw, with_19=order.with_19),
        *corner,
        time=f"{time:%Y-%m-%d %H:%M:%S}",
        tile=order.tile,
        partner=None,
    )
    made = time + timedelta(seconds=int(1200 * draw()))
    product = f"{satellite}_MSIL1C_{sensed}_{baseline}_R{orbit:03}_T{order.tile}_{made:%Y%m%dT%H%M%S}.SAFE"
    return annotation, product


def _to_time(sensed: str) -> datetime:
    """Read the time in a patch name, whose hour may lack its zero and whose seconds may exceed 59."""
    date, clock = sensed.split("T")
    clock = clock.zfill(6)
    return datetime.strptime(f"{date}{clock[:4]}{min(int(clock[4:]), 59):02}", "%Y%m%d%H%M%S")
