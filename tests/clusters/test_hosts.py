"""A conversion on several hosts, one of which loses its network while another is slow."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from distributed import LocalCluster

from converter.conversion import ConvertOptions, convert
from converter.events import Advanced, Event
from converter.sample import write_sample
from tests.archives import read_files
from tests.clusters.hosts import HEAD, Host, find_missing, make_hosts

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(find_missing()), reason=find_missing()),
]

N_PATCHES: Final = 600
SHARD_SIZE: Final = 4


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    with make_hosts(3) as hosts:
        yield hosts


def test_a_host_without_network_and_a_slow_one_give_the_same_store(hosts: list[Host], tmp_path: Path) -> None:
    write_sample(tmp_path / "archive", N_PATCHES)
    convert(tmp_path / "archive", tmp_path / "expected", ConvertOptions(shard_size=SHARD_SIZE))
    shutil.copytree(tmp_path / "archive", tmp_path / "mounted", copy_function=os.link)
    cut_off: list[float] = []

    with LocalCluster(n_workers=0, host=HEAD, dashboard_address=f"{HEAD}:0") as cluster:
        for host in hosts:
            host.run(
                *(sys.executable, "-m", "dask", "worker", cluster.scheduler_address, "--host", host.address),
                *("--nworkers", 1, "--nthreads", 1, "--no-dashboard", "--local-directory", "/tmp"),
                log=tmp_path / f"{host.name}.log",
                mounts=[(tmp_path / "mounted", tmp_path / "archive")],
            )
        while len(cluster.scheduler.workers) < len(hosts):
            time.sleep(0.1)
        hosts[1].slow_down("64kbit")

        def cut_off_the_first(event: Event) -> None:
            if isinstance(event, Advanced) and not cut_off and event.n_done > N_PATCHES // 10:
                hosts[0].unplug()
                cut_off.append(time.monotonic())

        options = ConvertOptions(shard_size=SHARD_SIZE, scheduler=cluster.scheduler_address)
        convert(tmp_path / "archive", tmp_path / "store", options, cut_off_the_first)
        print(f"finished {time.monotonic() - cut_off[0]:.1f} s after a host had lost its network")
        assert read_files(tmp_path / "store") == read_files(tmp_path / "expected")

        hosts[0].plug_in()
        while len(cluster.scheduler.workers) < len(hosts) and hosts[0].processes[0].poll() is None:
            time.sleep(0.1)
    assert read_files(tmp_path / "store") == read_files(tmp_path / "expected")
