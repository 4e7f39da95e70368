"""Cores that may be used, as the scheduler and the control groups say; where this runs, and how it was installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import psutil
import pytest

from bigearthnet import machine
from bigearthnet.machine import advise_install, count_cores, measure_memory
from tests.archives import read_files
from tests.conftest import SmallArchive

ROOT = Path(__file__).parents[2]

on_linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform binds no process to cores")

_ON_ONE_CORE = (
    "import os, runpy, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); sys.argv.pop(0); "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""What `taskset -c 0 python -m ...` does."""


def _run_on_one_core(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _ON_ONE_CORE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for control groups, on a machine of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "_MEMBERSHIPS", tmp_path / "memberships")
    return tmp_path / "groups"


def _join(groups: Path, membership: str, limits: dict[str, str]) -> None:
    """Make the process a member of a group, and limit some groups."""
    (groups.parent / "memberships").write_text(membership)
    for file, limit in limits.items():
        (groups / file).parent.mkdir(parents=True, exist_ok=True)
        (groups / file).write_text(limit)


@on_linux
def test_a_process_on_one_core_counts_one() -> None:
    code = (
        "import os; from bigearthnet.machine import count_cores; found = [count_cores()]; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(*found, count_cores())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(count_cores()), "1"]


@on_linux
def test_a_conversion_on_one_core_starts_one_worker(small: SmallArchive, tmp_path: Path) -> None:
    ended = _run_on_one_core("converter", "convert", small.archive.root, tmp_path / "store", "--lists", small.lists)
    assert "\n1 worker, ready" in ended.stderr


@on_linux
def test_a_stream_on_one_core_has_one_thread(store: Path) -> None:
    ended = _run_on_one_core("trainer", "bench", store, "--seconds", "0.1", "--json")
    assert json.loads(ended.stdout)["options"]["threads"] == 1


def test_without_limits_all_cores_of_the_affinity_count(groups: Path) -> None:
    assert count_cores() == 64  # there are no control groups
    _join(groups, "0::/\n", {})
    assert count_cores() == 64
    _join(groups, "0::/user/task\n", {"user/task/cpu.max": "max 100000\n", "user/cpu.max": "max 100000\n"})
    assert count_cores() == 64


@pytest.mark.parametrize(
    ("membership", "limits", "n_cores"),
    [
        ("0::/user/task\n", {"user/task/cpu.max": "300000 100000\n"}, 3),
        ("0::/user/task\n", {"user/task/cpu.max": "250000 100000\n"}, 3),  # a part of a core is one to work on
        ("0::/user/task\n", {"user/task/cpu.max": "1000 100000\n"}, 1),
        ("0::/user/task\n", {"user/task/cpu.max": "max 100000\n", "user/cpu.max": "200000 100000\n"}, 2),
        ("0::/user/task\n", {"user/task/cpu.max": "200000 100000\n", "user/cpu.max": "500000 100000\n"}, 2),
        ("0::/user/task\n", {"user/task/cpu.max": "9900000 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),  # in a container
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),  # in one that sees its path on the host
    ],
)
def test_the_second_version_of_control_groups_limits(
    groups: Path, membership: str, limits: dict[str, str], n_cores: int
) -> None:
    _join(groups, membership, limits)
    assert count_cores() == n_cores


@pytest.mark.parametrize(
    ("quota", "n_cores"), [("300000\n", 3), ("150000\n", 2), ("-1\n", 64)], ids=["three", "one and a half", "none"]
)
@pytest.mark.parametrize("path", ["docker/task", "."], ids=["on the host", "in a container"])
def test_the_first_version_of_control_groups_limits(groups: Path, path: str, quota: str, n_cores: int) -> None:
    membership = "5:memory:/docker/task\n4:cpu,cpuacct:/docker/task\n3:cpuset:/docker/task\n0::/\n"
    limits = {f"cpu/{path}/cpu.cfs_quota_us": quota, f"cpu/{path}/cpu.cfs_period_us": "100000\n"}
    _join(groups, membership, limits)
    _join(groups, membership, {"memory/docker/task/cpu.max": "100000 100000\n"})  # of no meaning there
    assert count_cores() == n_cores


@pytest.mark.parametrize(
    ("membership", "limits", "n_bytes"),
    [
        ("0::/user/task\n", {"user/task/memory.max": "max\n", "user/memory.max": "100000\n"}, 100_000),
        ("5:memory:/docker/task\n0::/\n", {"memory/docker/task/memory.limit_in_bytes": "200000\n"}, 200_000),
        ("5:memory:/docker/task\n0::/\n", {"memory/memory.limit_in_bytes": "300000\n"}, 300_000),  # in a container
        ("5:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),
        ("4:cpu:/task\n0::/\n", {"cpu/task/memory.max": "100000\n"}, None),  # of no meaning there
        ("", {}, None),
    ],
)
def test_control_groups_limit_the_memory(
    groups: Path, membership: str, limits: dict[str, str], n_bytes: int | None
) -> None:
    _join(groups, membership, limits)
    assert measure_memory() == (n_bytes or psutil.virtual_memory().total)


def test_a_platform_without_affinity_counts_its_cores(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count_cores() == 1


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'bigearthnet-store[train]'"),
        ({"url": "file:///a%20b/c", "dir_info": {"editable": True}}, "pip install --editable '/a b/c[train]'"),
        ({"url": "file:///c", "dir_info": {}}, "pip install '/c[train]'"),
        ({"url": "file:///c/s-1-py3-none-any.whl", "archive_info": {}}, "pip install '/c/s-1-py3-none-any.whl[train]'"),
        ({"url": "https://h/s.whl", "archive_info": {}}, "pip install 'bigearthnet-store[train] @ https://h/s.whl'"),
        (
            {"url": "https://h/s.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'bigearthnet-store[train] @ git+https://h/s.git'",
        ),
    ],
)
def test_advice_to_install_names_where_the_package_came_from(
    origin: dict[str, Any] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"direct_url.json": json.dumps(origin)} if origin else {}
    monkeypatch.setattr(machine, "distribution", lambda _: SimpleNamespace(read_text=files.get))
    assert advise_install("train") == command


def test_a_clone_that_was_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Never:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "distribution", find)
    assert advise_install("geo") == f"pip install --editable '{ROOT}[geo]'"


def test_windows_is_refused_in_a_sentence() -> None:
    code = "import sys; sys.platform = 'win32'; import bigearthnet"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "runs on Linux and macOS, not on Windows" in ended.stderr


MACOS = """
import builtins, io, os, sys

LINUX_ONLY = "sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate memfd_create copy_file_range eventfd"
for name in LINUX_ONLY.split():
    if hasattr(os, name):
        delattr(os, name)


def hide(function):
    def call(path, *args, **options):
        is_ours = "psutil" not in sys._getframe(1).f_code.co_filename  # which has another way there
        if is_ours and str(path).startswith(("/proc", "/sys", "/dev/shm")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *args, **options)

    return call


builtins.open = io.open = hide(io.open)
os.readlink = hide(os.readlink)
"""
"""Takes away what Linux has and macOS has not; every Python process runs it first."""


@pytest.mark.slow
def test_all_works_without_what_only_linux_has(small: SmallArchive, tmp_path: Path) -> None:
    """A stand-in for macOS, in this process's children and theirs."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(MACOS)
    packed, lists = str(tmp_path / "a.tar.gz"), str(small.lists)
    with tarfile.open(packed, "w:gz") as file:
        file.add(small.archive.root, "archive")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert run("-c", "import os; print(hasattr(os, 'memfd_create'), os.path.exists('/proc'))") == "False True\n"
    options = ("--lists", lists, "--workers", "2", "--shard-size", "4", "--on-bad", "skip", "--max-bad", "1")
    run("-m", "converter", "convert", str(small.archive.root), "folder", *options)
    run("-m", "converter", "convert", packed, "packed", *options)
    assert read_files(tmp_path / "folder") == read_files(tmp_path / "packed")
    run("-m", "converter", "verify", "folder")
    run("-m", "converter", "query", "folder", "SELECT count(*) FROM patches")
    run("-m", "trainer", "bench", "folder", "--all", "--seconds", "0.1")
