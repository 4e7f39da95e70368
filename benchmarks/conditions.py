"""Archives to convert, and what may make them slow: a cold disk, a file system far away, a file that is packed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from tqdm import tqdm

from bigearthnet.archive.compression import Stream
from bigearthnet.archive.lists import packaged_example, read_lists
from bigearthnet.archive.metadata import FILES
from bigearthnet.archive.records import Sources
from bigearthnet.names import parse_patch_name
from converter.sample import SampleForm, write_sample

_SHIM: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static void wait_if_far(const char *path) {
    const char *far = getenv("BENCHMARK_FAR");
    struct timespec millisecond = {0, 1000000};
    if (far && !strncmp(path, far, strlen(far))) nanosleep(&millisecond, 0);
}
#define DELAY(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        wait_if_far(path); \
        return real(path, flags, mode); \
    }
#define DELAY_STREAM(name) \
    FILE *name(const char *path, const char *mode) { \
        static FILE *(*real)(const char *, const char *); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        wait_if_far(path); \
        return real(path, mode); \
    }
DELAY(open)
DELAY(open64)
DELAY_STREAM(fopen)
DELAY_STREAM(fopen64)
"""


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


def build_shim(folder: Path) -> Path:
    """Compile the library that adds a millisecond to every open below the folder BENCHMARK_FAR."""
    source, shim = folder / "far.c", folder / "far.so"
    source.write_text(_SHIM)
    flags = ("-shared", "-fPIC", "-O2", "-ldl")
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", str(shim), str(source)], check=True)
    return shim


def drop_pages(raw: Path) -> None:
    """Drop the pages of all files, which must be on disk for that."""
    os.sync()
    for path in raw.rglob("*.*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
