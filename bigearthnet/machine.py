"""What of this machine may be used."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIPS: Final = Path("/proc/self/cgroup")


def count_cores() -> int:
    """Count the cores that this process may use: those of its affinity, fewer if its control groups allow less.

    Sources: sched(7), and https://docs.kernel.org/admin-guide/cgroup-v2.html for `cpu.max`.
    """
    # macOS and Windows have no affinity that Python could ask for.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_read_quotas()]))


def _read_quotas() -> Iterator[int]:
    """Read how many cores' worth of time each control group of this process gives, of both versions of them."""
    try:
        memberships = _MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        inner = PurePosixPath(path.lstrip("/"))
        yield from filter(None, (_read_limit(root / group) for group in (inner, *inner.parents)))


def _read_limit(group: Path) -> int | None:
    """Read the limit of one control group, in whole cores rounded up; None if it has none."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = map(int, " ".join((group / file).read_text() for file in files).split())
        except (OSError, ValueError):  # there is no such file, or it says `max`
            continue
        if quota > 0 and period > 0:
            return math.ceil(quota / period)
    return None
