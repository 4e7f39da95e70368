"""How fast does the converter convert, against rasterio and against the floor? Run: make bench.

All on copies of the six real v1.0 pairs, in one run, warm cache, rounds interleaved, medians reported:

  converter   patches/s of the shard tasks; the start of the workers and the finish are reported apart
  rasterio    the same converter with every GeoTIFF through rasterio (--reader rasterio)
  v2.0        the synthetic sample in the form of v2.0, under many names; its maps are deflated
  tar.gz      from an archive file, gzip -6 or zstd -3; beside it the decompressor alone, in one thread, and unpacking
  tar.zst     (tar xf) with the conversion of the folder after it. The copies repeat every six patches, which a window
              of 512 KiB does not reach, so that they are compressed as real patches are
  floor       as many processes that read every byte of the archive and write as many bytes as the store holds

Only ratios within one run mean anything on a shared machine.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from tqdm import tqdm

from bigearthnet.archive.compression import Stream
from bigearthnet.archive.lists import packaged_example, read_lists
from bigearthnet.archive.metadata import FILES
from bigearthnet.archive.records import Source, Sources
from bigearthnet.names import N_PATCHES, parse_patch_name
from bigearthnet.store.layout import CODECS
from converter.conversion import ConvertOptions, Summary, convert
from converter.plan import plan_store
from converter.sample import SampleForm, write_sample

_GOAL_RASTERIO = 12
_GOAL_FLOOR = 0.2
_GOAL_ARCHIVE = {".tar.zst": 0.9, ".tar.gz": 0.6}
"""Of the rate from the folder."""
_GOAL_UNPACKING = 3


def clone_real_patches(raw: Path, raw_s1: Path, n_patches: int) -> None:
    """Write copies of the six real v1.0 pairs under names from the official lists."""
    pairs = list(zip(read_example("S2"), read_example("S1"), strict=True))
    for i, (s2_name, pairing) in enumerate(
        tqdm(
            islice(read_lists().pairing_of.items(), n_patches),
            total=n_patches,
            desc="Archive",
            unit=" patches",
            disable=None,
        )
    ):
        s2, s1 = pairs[i % len(pairs)]
        clone_patch(s2, raw / s2_name, {s2[0]: s2_name})
        clone_patch(s1, raw_s1 / pairing.s1_name, {s1[0]: pairing.s1_name, s2[0]: s2_name})


def read_example(sensor: str) -> list[tuple[str, dict[str, bytes]]]:
    """Return name and files of each real patch, ordered by the place in its tile so that pairs match."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(packaged_example(sensor)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isfile() and parse_patch_name(path.parent.name):
                content = archive.extractfile(member)
                assert content is not None
                files.setdefault(path.parent.name, {})[path.name] = content.read()
    return sorted(files.items(), key=lambda patch: patch[0].split("_")[-2:])


def clone_patch(patch: tuple[str, dict[str, bytes]], folder: Path, renamed: dict[str, str]) -> None:
    """Write a patch as it is, but for its name."""
    name, files = patch
    folder.mkdir(parents=True)
    for file, content in files.items():
        if file.endswith(".json"):
            for old, new in renamed.items():
                content = content.replace(old.encode(), new.encode())
        (folder / file.replace(name, folder.name)).write_bytes(content)


def clone_v2(folder: Path, n_patches: int) -> Sources:
    """Write the synthetic v2.0 sample, and as many links to its patches under other times as are needed."""
    sample, archive = folder / "v2-sample", folder / "v2"
    n_sampled = min(n_patches, 64)
    write_sample(sample, n_sampled, form=SampleForm("v2", with_s1=True))
    rows = [row for file in FILES for row in pq.read_table(sample / file).to_pylist()]
    cloned = []
    for copy in range(-(-n_patches // n_sampled)):
        for path in sample.rglob("*.tif"):
            link = archive / _retime(str(path.relative_to(sample)), copy)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        cloned += [row | {name: _retime(row[name], copy) for name in ("patch_id", "s1_name")} for row in rows]
    pq.write_table(pa.Table.from_pylist(cloned), archive / FILES[0])
    return Sources(archive / "BigEarthNet-S2", archive / "BigEarthNet-S1", archive / "Reference_Maps")


def _retime(name: str, copy: int) -> str:
    """Replace minute and second of every time in a name."""
    return re.sub(r"(?<=\d{8}T\d{2})\d{4}", f"{copy // 60:02}{copy % 60:02}", name)


def pack_archives(raw: Path, folder: Path) -> dict[str, Path]:
    """Pack a folder into an archive file of each kind."""
    tar = folder / "s2.tar"
    subprocess.run(["tar", "-C", raw.parent, "-cf", tar, raw.name], check=True)
    subprocess.run(["gzip", "-6", "-k", tar], check=True)
    window = zstandard.ZstdCompressionParameters.from_level(3, window_log=19, write_checksum=True)
    with tar.open("rb") as plain, (folder / "s2.tar.zst").open("wb") as packed:
        zstandard.ZstdCompressor(compression_params=window).copy_stream(plain, packed)
    return {".tar": tar, ".tar.gz": folder / "s2.tar.gz", ".tar.zst": folder / "s2.tar.zst"}


def time_decompression(archive: Path) -> float:
    """Decompress an archive in this thread and return the seconds it takes."""
    start = time.perf_counter()
    stream = Stream(archive)
    while stream.read(2**20):
        pass
    stream.close()
    return time.perf_counter() - start


def time_unpacking(archive: Path, folder: Path) -> float:
    """Unpack an archive with tar, which leaves compression to gzip and zstd, and return the seconds it takes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.perf_counter()
    subprocess.run(["tar", "-C", folder, "-xf", archive], check=True)
    return time.perf_counter() - start


@contextmanager
def watch_memory() -> Iterator[dict[int, int]]:
    """Record the peak resident bytes of every worker process while the block runs."""
    peaks: dict[int, int] = {}
    stop = threading.Event()

    def watch() -> None:
        # Seldom: looking costs the workers some of their two cores.
        while not stop.wait(0.3):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if child.pid in peaks or "spawn_main" in " ".join(child.cmdline()):
                        peaks[child.pid] = max(peaks.get(child.pid, 0), child.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def run_floor(raw: Path, out: Path, n_bytes: int, n_processes: int) -> float:
    """Read every byte of the archive and write `n_bytes`, in shards' sizes; returns patches/s."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    patches = sorted(path.name for path in raw.iterdir())
    shard = 256 * n_bytes // len(patches)
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(4 * n_processes)))  # all processes are up
        start = time.perf_counter()
        parts = [(str(raw), patches[i::n_processes], str(out), shard) for i in range(n_processes)]
        list(pool.map(_read_and_write, parts))
        return len(patches) / (time.perf_counter() - start)


def _read_and_write(part: tuple[str, list[str], str, int]) -> None:
    """One process of the floor: plain system calls, nothing parsed, nothing flushed to disk."""
    raw, patches, out, shard_bytes = part
    shard = bytes(shard_bytes)
    for i, patch in enumerate(patches, 1):
        folder = f"{raw}/{patch}"
        for file in os.listdir(folder):
            descriptor = os.open(f"{folder}/{file}", os.O_RDONLY)
            os.read(descriptor, 65_536)
            os.close(descriptor)
        if i % 256 == 0 or i == len(patches):
            with open(f"{out}/{patch}", "wb", buffering=0) as written:
                written.write(shard[: shard_bytes * ((i - 1) % 256 + 1) // 256])


def measure_planning() -> None:
    """Plan all 590,326 official names, in this process, and print time and peak memory."""
    start = time.perf_counter()
    lists = read_lists()
    read = time.perf_counter()
    options = ConvertOptions()
    plan = plan_store(
        (lists.describe(Source(name, s2=name)) for name in lists.pairing_of), options.choose_layout("v1", {"s2"})
    )
    n_tasks = len(plan.tasks)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"planning {plan.n_patches:,} names, {n_tasks:,} tasks: {seconds:.1f} s (lists {read - start:.1f} s), "
        f"{peak:.2f} GB peak [goal: under 30 s and 2 GB: {_verdict(seconds < 30 and peak < 2)}]"
    )
    assert plan.n_patches == N_PATCHES["v1"]


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


@dataclass(frozen=True)
class Round:
    """One measurement of one way to convert."""

    rate: float
    """Patches/s in steady state."""
    megabytes: float
    """Megabytes of pixels/s in steady state."""
    startup_s: float
    finish_s: float
    worker_bytes: int
    """Largest peak memory of a worker."""


def measure(sources: Sources, store: Path, options: ConvertOptions) -> tuple[Round, Summary]:
    """Convert an archive once and measure it."""
    shutil.rmtree(store, ignore_errors=True)
    with watch_memory() as peaks:
        summary = convert(sources, store, options)
    rate = summary.n_patches / summary.convert_s
    measured = Round(
        rate,
        summary.pixel_bytes / summary.convert_s / 1e6,
        summary.startup_s,
        summary.finish_s,
        max(peaks.values(), default=0),
    )
    return measured, summary


def median(rounds: list[Round], field: str) -> float:
    """Return the median of one field."""
    return float(statistics.median(getattr(measured, field) for measured in rounds))


def run(folder: Path, n_patches: int, n_workers: int, n_rounds: int) -> None:
    """Make the archive, run all rounds and print the table."""
    raw, raw_s1, store = folder / "s2", folder / "s1", folder / "store"
    clone_real_patches(raw, raw_s1, n_patches)
    v2 = clone_v2(folder, n_patches)
    forms = {
        "converter, lz4, with Sentinel-1": Sources(raw, raw_s1),
        "converter, lz4, v2.0 Sentinel-2": Sources(v2.s2),
        "converter, lz4, v2.0 with Sentinel-1": Sources(v2.s2, v2.s1),
        "converter, lz4, v2.0 with all and maps": v2,
    }
    rows: dict[str, list[Round]] = {}
    floors: list[float] = []
    for _ in range(n_rounds):
        for codec in CODECS:
            measured, summary = measure(Sources(raw), store, ConvertOptions(workers=n_workers, codec=codec))
            rows.setdefault(f"converter, {codec}", []).append(measured)
            if codec == "lz4":
                floors.append(run_floor(raw, folder / "floor", summary.stored_bytes, n_workers))
        for name, sources in forms.items():
            measured, _ = measure(sources, store, ConvertOptions(workers=n_workers))
            rows.setdefault(name, []).append(measured)
    measured, _ = measure(Sources(raw), store, ConvertOptions(workers=n_workers, reader="rasterio"))
    rows["converter, lz4, all through rasterio"] = [measured]

    floor, ours = statistics.median(floors), median(rows["converter, lz4"], "rate")
    slow = rows["converter, lz4, all through rasterio"][0].rate
    print(f"\n{n_patches:,} patches, {n_workers} workers, warm cache, medians of {n_rounds} rounds\n")
    print(f"{'':38}{'patches/s':>10}{'x floor':>9}{'MB/s':>8}{'start s':>9}{'finish s':>10}{'MB a worker':>13}")
    for name, rounds in rows.items():
        print(
            f"{name:38}{median(rounds, 'rate'):10,.0f}{median(rounds, 'rate') / floor:9.2f}"
            f"{median(rounds, 'megabytes'):8,.0f}{median(rounds, 'startup_s'):9.1f}{median(rounds, 'finish_s'):10.1f}"
            f"{median(rounds, 'worker_bytes') / 1e6:13,.0f}"
        )
    print(f"{'floor: read all, write as much':38}{floor:10,.0f}{1:9.2f}")
    print(
        f"\nlz4 over rasterio {ours / slow:.1f}x [goal {_GOAL_RASTERIO}x: {_verdict(ours / slow >= _GOAL_RASTERIO)}]; "
        f"lz4 over the floor {ours / floor:.2f}x [goal {_GOAL_FLOOR}x: {_verdict(ours / floor >= _GOAL_FLOOR)}]"
    )
    alone = median(rows["converter, lz4"], "megabytes")
    for name in forms:
        print(f"{name}: per byte of pixels {median(rows[name], 'megabytes') / alone:.2f}x the rate of v1.0 Sentinel-2")


def run_archives(folder: Path, n_patches: int, n_workers: int, n_rounds: int) -> None:
    """Convert archive files and their folder in turn, and print a line for each kind of file."""
    raw, store = folder / "BigEarthNet-v1.0", folder / "store"
    clone_real_patches(raw, folder / "s1", n_patches)
    archives = pack_archives(raw, folder)
    from_folder: list[float] = []
    rates: dict[str, list[float]] = {suffix: [] for suffix in archives}
    alone_s: dict[str, list[float]] = {suffix: [] for suffix in archives}
    unpacking_s: dict[str, list[float]] = {suffix: [] for suffix in archives}
    for _ in range(n_rounds):
        from_folder.append(measure(Sources(raw), store, ConvertOptions(workers=n_workers))[0].rate)
        for suffix, archive in archives.items():
            rates[suffix].append(measure(Sources(archive), store, ConvertOptions(workers=n_workers))[0].rate)
            alone_s[suffix].append(time_decompression(archive))
            unpacking_s[suffix].append(time_unpacking(archive, folder / "unpacked"))
    ours = statistics.median(from_folder)
    print(f"\n{n_patches:,} patches, {n_workers} workers; from their folder, warm, {ours:,.0f} patches/s")
    for suffix in archives:
        rate, seconds = statistics.median(rates[suffix]), statistics.median(unpacking_s[suffix])
        gain = rate * (seconds / n_patches + 1 / ours)
        goal = _GOAL_ARCHIVE.get(suffix)
        aim = f" [goal {goal}x: {_verdict(rate / ours >= goal)}]" if goal else ""
        print(
            f"from {suffix}: {rate:,.0f} patches/s, {rate / ours:.2f}x the folder{aim}; "
            f"decompressor alone {n_patches / statistics.median(alone_s[suffix]):,.0f} patches/s; {gain:.1f}x as fast "
            f"as tar xf ({n_patches / seconds:,.0f} patches/s) and then the folder "
            f"[goal {_GOAL_UNPACKING}x: {_verdict(gain >= _GOAL_UNPACKING)}]"
        )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=4096, help="patches of the archive (default: 4096)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of converter and floor (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to make archive and stores (default: a temporary folder)")
    parser.add_argument("--only-planning", action="store_true", help="only plan the official list")
    parser.add_argument("--only-archives", action="store_true", help="only convert archive files and their folder")
    args = parser.parse_args()
    if args.only_planning:
        measure_planning()
        return
    if not args.only_archives:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            run(Path(folder), args.patches, args.workers, args.rounds)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run_archives(Path(folder), args.patches, args.workers, args.rounds)
    if args.only_archives:
        return
    # In a process of its own, so that its peak memory is its own too.
    subprocess.run([sys.executable, "-m", "benchmarks.convert", "--only-planning"], check=True)


if __name__ == "__main__":
    main()
