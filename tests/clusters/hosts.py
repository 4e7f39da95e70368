"""Hosts of a network of their own: network namespaces of this machine, each with its own view of the file system."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BRIDGE: Final = "ben-tests"
NETWORK: Final = "10.213.77"
"""A network that nothing else on this machine should have."""
HEAD: Final = f"{NETWORK}.1"
"""Address of this machine in it."""


def find_missing() -> str:
    """Say what this machine lacks to have hosts; nothing if it lacks nothing."""
    if os.getuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "tc", "unshare", "mount") if shutil.which(program) is None]
    return f"needs {', '.join(missing)} (on Debian: iproute2)" if missing else ""


def ask(*words: object) -> None:
    """Run a program that must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


@dataclass(frozen=True)
class Host:
    """One of them."""

    number: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"ben-{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number + 1}"

    def run(self, *command: object, log: Path, mounts: Sequence[tuple[Path, Path]] = ()) -> subprocess.Popen[bytes]:
        """Start a program there.

        Args:
            command: Its words.
            log: Takes what it prints.
            mounts: Folders that it alone sees in other places.
        """
        names = log.with_suffix(".hosts")  # its own name leads to its address in the network, as on a real host
        names.write_text(f"127.0.0.1 localhost\n{self.address} {socket.gethostname()}\n")
        mounts = [*mounts, (names, Path("/etc/hosts"))]
        script = " && ".join([*(f'mount --bind "{what}" "{where}"' for what, where in mounts), 'exec "$@"'])
        words = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", script, "sh", *map(str, command)]
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.processes.append(process)
        return process

    def unplug(self) -> None:
        """Take its network away: from now on packets get lost, and nobody is told."""
        ask("ip", "link", "set", f"{self.name}-out", "nomaster")

    def plug_in(self) -> None:
        """Give its network back."""
        ask("ip", "link", "set", f"{self.name}-out", "master", BRIDGE)

    def slow_down(self, rate: str) -> None:
        """Let through no more than `rate` in each direction, in the words of `tc`."""
        shape = ("root", "tbf", "rate", rate, "burst", "16k", "latency", "1s")
        ask("tc", "qdisc", "add", "dev", f"{self.name}-out", *shape)
        ask("ip", "netns", "exec", self.name, "tc", "qdisc", "add", "dev", "eth0", *shape)


@contextmanager
def make_hosts(n_hosts: int) -> Iterator[list[Host]]:
    """Make hosts that reach one another and this machine, as `HEAD`, and nothing else."""
    with ExitStack() as stack:
        ask("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(ask, "ip", "link", "del", BRIDGE)
        ask("ip", "addr", "add", f"{HEAD}/24", "dev", BRIDGE)
        ask("ip", "link", "set", BRIDGE, "up")
        hosts = [Host(number) for number in range(1, n_hosts + 1)]
        for host in hosts:
            stack.enter_context(_plug_in(host))
        yield hosts


@contextmanager
def _plug_in(host: Host) -> Iterator[None]:
    outside, inside = f"{host.name}-out", ("ip", "netns", "exec", host.name, "ip")
    ask("ip", "netns", "add", host.name)
    try:
        ask("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        ask("ip", "link", "set", outside, "up")
        host.plug_in()
        ask(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
        ask(*inside, "link", "set", "eth0", "up")
        ask(*inside, "link", "set", "lo", "up")
        yield
    finally:
        for process in host.processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait()
        ask("ip", "netns", "del", host.name)
