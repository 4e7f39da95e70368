"""A real SLURM on this machine: munge, a controller, and the daemons of some nodes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.servers import find_free_port

NODES: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
"""Names by which nodes reach one another, as those of a real cluster do."""

_PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch")

_CONFIGURATION: Final = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={port}
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1
"""


def find_missing() -> str:
    """Say what this machine lacks to run a SLURM; nothing if it lacks nothing."""
    if os.getuid() != 0:
        return "the daemons of SLURM need root"
    missing = [program for program in _PROGRAMS if _find(program) is None]
    return f"needs {', '.join(missing)} (on Debian: slurm-wlm, munge)" if missing else ""


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass(frozen=True)
class Slurm:
    """A running cluster."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *command: object, cwd: Path | None = None) -> str:
        """Run one of SLURM's programs, and return what it prints."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def describe_job(self, job: str) -> dict[str, str]:
        """Say what the controller knows of a job, or of one of an array."""
        fields = self.ask("scontrol", "show", "job", "--oneliner", job).splitlines()[0].split()
        return dict(field.partition("=")[::2] for field in fields)

    def wait_for(self, job: str, *states: str, seconds: float = 120) -> dict[str, str]:
        """Wait until a job is in one of some states."""
        deadline = time.monotonic() + seconds
        while (described := self.describe_job(job))["JobState"] not in states:
            assert time.monotonic() < deadline, f"{described}: expected {states}"
            time.sleep(0.1)
        return described


@contextmanager
def start_slurm(folder: Path) -> Iterator[Slurm]:
    """Start all daemons, of nodes that each claim two cores and 8 GB; end them and all jobs in the end."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir()
    for parent in (folder, *folder.parents):
        parent.chmod(parent.stat().st_mode | 0o011)  # munge wants its socket to be reached by all
    (folder / "munge/key").write_bytes(os.urandom(1024))
    (folder / "munge/key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    lines = [_CONFIGURATION.format(host=host, folder=folder, port=find_free_port())]
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr={node} Port={find_free_port()} CPUs=2 RealMemory=8000"
        for node in NODES
    ]
    (folder / "slurm.conf").write_text("\n".join([*lines, "PartitionName=main Nodes=ALL Default=YES State=UP", ""]))
    slurm = Slurm(folder)
    munge = [f"--{name}={folder}/munge/{file}" for name, file in _MUNGE_FILES.items()]
    try:
        slurm.ask(_find("munged"), "--force", *munge)
        slurm.ask(_find("slurmctld"), "-c")
        for node in NODES:
            slurm.ask(_find("slurmd"), "-N", node)
        deadline = time.monotonic() + 30
        while set(slurm.ask("sinfo", "--noheader", "--Node", "--format=%T").split()) != {"idle"}:
            assert time.monotonic() < deadline, slurm.ask("sinfo")
            time.sleep(0.1)
        yield slurm
    finally:
        for job in slurm.ask("squeue", "--noheader", "--format=%A").split():
            slurm.ask("scancel", "--full", job)
        while slurm.ask("squeue", "--noheader"):
            time.sleep(0.1)
        _end([folder / "controller.pid", *(folder / f"{node}.pid" for node in NODES), folder / "munge/pid"])


_MUNGE_FILES: Final = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _end(pid_files: list[Path]) -> None:
    daemons = [psutil.Process(int(file.read_text())) for file in pid_files if file.exists()]
    for daemon in daemons:
        daemon.terminate()
    for daemon in psutil.wait_procs(daemons, timeout=10)[1]:
        daemon.kill()
