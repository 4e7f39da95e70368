"""What of this machine may be used, and how this package was installed on it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIPS: Final = Path("/proc/self/cgroup")


def count_cores() -> int:
    """Count the cores that this process may use: those of its affinity, fewer if its control groups allow less.

    Sources: sched(7), and https://docs.kernel.org/admin-guide/cgroup-v2.html for `cpu.max`.
    """
    # macOS and Windows have no affinity that Python could ask for.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = _read_limits("cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
    return max(1, min([allowed, *(math.ceil(quota / period) for quota, period in quotas)]))


def measure_memory() -> int:
    """Return the bytes of memory that this process may fill, files included: all, or what its control groups allow.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html for `memory.max`.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *(limit for (limit,) in _read_limits("memory", ["memory.max"], ["memory.limit_in_bytes"]))])


def _read_limits(controller: str, *forms: Sequence[str]) -> Iterator[list[int]]:
    """Read the limits of all control groups of this process, of both versions of them; a group may have none.

    Args:
        controller: What they limit.
        forms: The files that a limit stands in, by version.
    """
    try:
        memberships = _MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        inner = PurePosixPath(path.lstrip("/"))
        for group, files in product((inner, *inner.parents), forms):
            with suppress(OSError, ValueError):  # there is no such file, or it says `max`
                numbers = [int(number) for file in files for number in (root / group / file).read_text().split()]
                if min(numbers) > 0:
                    yield numbers


def name_processor() -> str:
    """Name the model of the processor, as Linux does."""
    with suppress(OSError):
        if named := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    return "an unknown processor"


def advise_install(extra: str) -> str:
    """Say how to install an extra of this package: from where the package itself came, a clone, a wheel or an index.

    Source: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    try:
        origin = json.loads(distribution("bigearthnet-store").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # a clone that was not installed
        origin = {"url": Path(__file__).absolute().parents[1].as_uri(), "dir_info": {"editable": True}}
    url = urlsplit(origin.get("url", ""))
    if url.scheme == "file":
        editable = "--editable " if origin.get("dir_info", {}).get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{unquote(url.path)}[{extra}]')}"
    kind = f"{vcs}+" if (vcs := origin.get("vcs_info", {}).get("vcs")) else ""
    return (
        f"pip install {shlex.quote(f'bigearthnet-store[{extra}]' + (f' @ {kind}{url.geturl()}' if url.scheme else ''))}"
    )
