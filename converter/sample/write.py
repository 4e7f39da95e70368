"""A small archive in the exact form of BigEarthNet, made without a download.

In the form of v1.0, the six real patches that `bigearthnet-common` ships come first, and their Sentinel-1 pairs with
them. The rest carry names, places, dates, splits, countries, seasons and snow and cloud flags from the official lists;
their labels and pixels are made up. In the form of v2.0 nothing is real: names and splits are derived, since no package
ships the official metadata, and only the v1.0 name, the Sentinel-1 name, the country and the flags are official.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bigearthnet.archive.lists import packaged_example, read_lists
from bigearthnet.archive.metadata import FILES
from bigearthnet.errors import OptionError, SourceError
from bigearthnet.labels import to_labels_19
from bigearthnet.machine import count_cores
from bigearthnet.names import SYNTHETIC_FILE, annotation_file
from converter.sample.brief import Brief, choose_briefs
from converter.sample.product import Files, SampleForm, list_folders, make_patch

_NOTE: Final = """\
This is not BigEarthNet, but a sample in its form that `ben-convert sample` made, to try programs without the download.

Names, places and dates are those of real patches; labels and pixels are made up. Only the six patches that the package
bigearthnet-common ships are real, and only a sample in the form of v1.0 has them. Never report results on a sample.

Leave this file where it is: by it, a store that is made from this folder, and every page and picture that is made from
the store, says that it is synthetic.
"""

_RECORD: Final = ".sample.json"
"""Says in an unfinished sample which one it is to be."""

_BATCH: Final = 16
"""Patches that a worker process makes at a time."""

_SCHEMA: Final = pa.schema(
    [
        ("patch_id", pa.string()),
        ("labels", pa.list_(pa.field("element", pa.string()))),
        ("split", pa.string()),
        ("country", pa.string()),
        ("s1_name", pa.string()),
        ("s2v1_name", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""Columns of the official metadata of v2.0."""


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


def write_sample(
    out: Path,
    n_patches: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    form: SampleForm | None = None,
) -> SampleSummary:
    """Write a sample archive; a patch depends on its name and the seed alone, and a larger sample adds patches.

    It is written under a hidden name beside `out` and gets its own when it is whole: a run that was cut short leaves
    nothing that looks like an archive, and the next one of the same sample goes on with its patches. Pixels may differ
    in the last digit between machines or NumPy versions; names, labels and places do not.

    Args:
        out: Folder to make; may exist if it is empty, but not as the working folder or the root of a disk.
        n_patches: Patches to write, real ones included.
        seed: Decides which patches are made up, and how.
        workers: Processes; one for each core, or none but this one for a small sample, if None.
        progress: Called with the patches written so far and `n_patches`, in this process.
        form: What to write; Sentinel-2 of v1.0 if None.

    Raises:
        OptionError: `n_patches` or `workers` is out of range.
        SourceError: `out` holds something already or cannot be written, or a worker died.
    """
    if n_patches < 1:
        raise OptionError(f"a sample must have at least 1 patch, not {n_patches:,}")
    if workers is not None and workers < 1:
        raise OptionError(f"a sample must be written by at least 1 worker, not {workers:,}")
    form = form or SampleForm()
    real = _read_real(form)
    _check_new(out)
    briefs = choose_briefs(read_lists(), form.dataset, real.keys(), n_patches, seed)
    n_real = n_patches - len(briefs)
    done = 0
    unfinished = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    batches = [briefs[start : start + _BATCH] for start in range(0, len(briefs), _BATCH)]
    try:
        _claim(unfinished, json.dumps([n_patches, seed, asdict(form)]))
        if briefs:
            for root in form.root_of.values():
                (unfinished / root).mkdir(exist_ok=True)
                (unfinished / root / SYNTHETIC_FILE).write_bytes(_NOTE.encode())
        for patch_id in sorted(real)[:n_real]:
            _place(unfinished, real[patch_id])
            done += 1
            progress(done, n_patches)
        for n_new in _run(unfinished, batches, form, min(workers or count_cores(), len(batches) // 2)):
            done += n_new
            progress(done, n_patches)
        if form.dataset == "v2":
            _write_listing(unfinished, briefs)
        unfinished.rename(out)
        (out / _RECORD).unlink()
        n_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    except OSError as error:
        raise SourceError(
            f"{out}: cannot be written ({error}). What is finished is kept in {unfinished}: make room or mend the "
            "permissions, then run the same command again"
        ) from error
    return SampleSummary(out, n_real=n_real, n_synthetic=len(briefs), n_bytes=n_bytes)


def _check_new(out: Path) -> None:
    try:
        present = next(out.iterdir(), None) if out.exists() else None
    except OSError as error:
        raise SourceError(f"{out}: expected a new or empty folder ({error}); name another") from error
    if present is not None:
        raise SourceError(
            f"{out}: expected a new or empty folder, found {present.name} in it; name another or empty it"
        )
    if out.is_symlink() or out.is_mount() or out.absolute() == Path.cwd():
        raise SourceError(
            f"{out}: expected a folder that can be made anew, found the working folder, a link or the root of a disk; "
            "name a new folder in it"
        )


def _claim(unfinished: Path, wanted: str) -> None:
    """Go on with what a run of the same sample has left; remove what one of another sample has."""
    unfinished.mkdir(parents=True, exist_ok=True)
    record = unfinished / _RECORD
    if not record.exists() or record.read_text() != wanted:
        shutil.rmtree(unfinished)
        unfinished.mkdir()
        record.write_text(wanted)


def _read_real(form: SampleForm) -> dict[str, dict[str, Files]]:
    """Read the real patches: by patch name, the files of each folder."""
    patches = {name: {form.name_folder("s2", name): files} for name, files in _read_example("S2").items()}
    if form.with_s1:
        for name, files in _read_example("S1").items():
            partner = json.loads(files[annotation_file(name)])["corresponding_s2_patch"]
            patches[partner][form.name_folder("s1", name)] = files
    return patches


def _read_example(sensor: str) -> dict[str, Files]:
    """Read the files of the real patches of a sensor, by patch name."""
    patches: dict[str, Files] = {}
    with tarfile.open(packaged_example(sensor)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                path = PurePosixPath(member.name)
                patches.setdefault(path.parent.name, {})[path.name] = content.read()
    return patches


def _run(out: Path, batches: list[list[Brief]], form: SampleForm, workers: int) -> Iterator[int]:
    """Yield how many patches are there, batch by batch, in any order."""
    if workers <= 1:
        for batch in batches:
            yield _write_batch(out, batch, form)
        return
    # Spawned, so that the caller's threads (zarr and TensorFlow keep some) are not cloned in mid-air.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_write_batch, out, batch, form) for batch in batches]):
                yield future.result()
        except BrokenProcessPool as error:
            raise SourceError(
                f"{out}: a worker process died; was memory short, or does a script call this without "
                "`if __name__ == '__main__':`? What is finished is kept: run it again, with workers=1"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _write_batch(out: Path, batch: list[Brief], form: SampleForm) -> int:
    """Write the patches of a batch that are not there yet; returns how many it has."""
    for brief in batch:
        if not all((out / folder).exists() for folder in list_folders(brief, form)):
            _place(out, dict(make_patch(brief, form)))
    return len(batch)


def _place(out: Path, folders: dict[str, Files]) -> None:
    """Write each folder of a patch that is not there yet under a hidden name, then give it its own."""
    for path, files in folders.items():
        folder = out / path
        if folder.exists():
            continue
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (hidden / name).write_bytes(content)
        hidden.rename(folder)


def _write_listing(out: Path, briefs: Iterable[Brief]) -> None:
    """Write both metadata files of v2.0, the second even if it has no rows."""
    rows = sorted(map(_describe, briefs), key=lambda row: str(row["patch_id"]))
    for file, is_flagged in zip(FILES, (False, True), strict=True):
        part = [row for row in rows if is_flagged == (row["contains_seasonal_snow"] or row["contains_cloud_or_shadow"])]
        pq.write_table(pa.Table.from_pylist(part, _SCHEMA), out / file, compression="zstd", store_schema=False)


def _describe(brief: Brief) -> dict[str, Any]:
    labels, _ = brief.draw_details()
    return {
        "patch_id": brief.v2_name,
        "labels": sorted(to_labels_19(labels)),
        "split": brief.v2_split,
        "country": brief.country,
        "s1_name": brief.s1_name,
        "s2v1_name": brief.name,
        "contains_seasonal_snow": brief.snow,
        "contains_cloud_or_shadow": brief.cloud,
    }
