"""How long would the whole archive take on a cluster? A model of one line. Run: python -m benchmarks.nodes.

    seconds = serial + patches / min(nodes x workers x rate, disk)

  serial  what one process does alone: scanning, planning and writing the table (`ben-convert convert` says how long)
  rate    patches/s of one worker from a warm archive (`ben-convert convert`, divided by its workers)
  disk    patches/s that the file system of the archive gives to all readers (`python -m benchmarks.convert --only cold`
          says so of `reading`)

The defaults were measured on a 2-core shared VM and its one disk: give those of your cluster.
"""

from __future__ import annotations

import argparse

from bigearthnet.names import N_PATCHES
from bigearthnet.quantity import format_seconds

_NODES = (1, 2, 4, 8, 16, 32, 64)


def predict(n_nodes: int, n_workers: int, rate: float, disk: float, serial_s: float) -> tuple[float, bool]:
    """Predict the seconds that the whole archive takes, and say whether its disk is the wall."""
    workers = n_nodes * n_workers * rate
    return serial_s + N_PATCHES["v1"] / min(workers, disk), disk < workers


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=16, help="workers of a node (default: 16)")
    parser.add_argument("--rate", type=float, default=1100, help="patches/s of a worker (default: 1100)")
    parser.add_argument(
        "--disk",
        type=float,
        action="append",
        help="patches/s that the disk gives, again for another (default: 1300, 10000 and 100000)",
    )
    parser.add_argument("--serial", type=float, default=40, help="seconds of one process alone (default: 40)")
    args = parser.parse_args()
    disks = args.disk or [1300, 10_000, 100_000]
    print("nodes" + "".join(f"{f'disk {disk:,.0f}/s':>18}" for disk in disks))
    for n_nodes in _NODES:
        cells = [predict(n_nodes, args.workers, args.rate, disk, args.serial) for disk in disks]
        print(f"{n_nodes:5}" + "".join(f"{format_seconds(seconds):>17}{'*' * is_wall:1}" for seconds, is_wall in cells))
    print("* the disk is the wall: more nodes do not help")


if __name__ == "__main__":
    main()
