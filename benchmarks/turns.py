"""Contenders in turns (A B C C B A): their figures by round, and what they ran on, as one record in a file.

A benchmark gives its figures to `save_record`, which keeps them in benchmarks/records. Only ratios within one record
mean anything on a shared machine, and so its median and its spread stand beside each other.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tqdm import tqdm

from bigearthnet.machine import count_cores, name_processor

RECORDS: Final = Path(__file__).parent / "records"

Figures = Mapping[str, float]
"""What one turn measured: figure, with its unit in its name ("patches/s"), to value."""


Table = Mapping[str, Mapping[str, Sequence[float]]]
"""Contender to figure to its values, one a round."""


@dataclass(frozen=True)
class Machine:
    """What a benchmark ran on."""

    processor: str
    n_cores: int
    memory_gb: float
    system: str
    python: str
    packages: dict[str, str]
    """Package to version, of those that took part."""
    at: str
    """Day of the run, UTC."""
    command: str


def take_turns(contenders: Mapping[str, Callable[[], Figures]], rounds: int) -> Table:
    """Run all contenders once a round, there and back again.

    Some read the same files, and the host of a virtual machine keeps what it has read, though this machine dropped it:
    the second would always be the faster one.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    names = [*contenders]
    with tqdm(total=rounds * len(contenders), unit=" turns", disable=None) as bar:
        for number in range(rounds):
            for name in reversed(names) if number % 2 else names:
                bar.set_description(name)
                for figure, value in contenders[name]().items():
                    found[name].setdefault(figure, []).append(value)
                bar.update()
    return found


def show_table(title: str, table: Table) -> None:
    """Print the median of each figure of each contender."""
    figures = list(dict.fromkeys(figure for found in table.values() for figure in found))
    print(f"\n{title}\n{'':32}" + "".join(f"{figure:>16}" for figure in figures))
    for name, found in table.items():
        cells = (f"{summarize(found[figure])[0]:,.1f}" if figure in found else "" for figure in figures)
        print(f"{name:32}" + "".join(f"{cell:>16}" for cell in cells))


def judge(what: str, value: float, goal: float) -> None:
    """Print a ratio and whether it reaches its goal."""
    print(f"{what} {value:.2f} [goal {goal:g}: {'met' if value >= goal else 'MISSED'}]")


def save_record(name: str, tables: Mapping[str, Table], packages: Sequence[str]) -> None:
    """Write a record: table to contender to figure to values, and the machine. Replaces the last one of that name."""
    RECORDS.mkdir(exist_ok=True)
    record = {"machine": asdict(describe_machine(packages)), "tables": tables}
    (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def describe_machine(packages: Sequence[str]) -> Machine:
    """Describe this machine and this process; a package that is not installed is left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=name_processor(),
        n_cores=count_cores(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=versions,
        at=datetime.now(UTC).date().isoformat(),
        command=shlex.join(["python", "-m", _name_module(), *sys.argv[1:]]),
    )


def summarize(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the spread: half of highest less lowest, as a share of the median."""
    middle = statistics.median(values)
    return middle, (max(values) - min(values)) / 2 / middle if middle else 0


def find_rate(table: Table, name: str) -> float:
    """Return the median of a contender's patches/s."""
    return summarize(table[name]["patches/s"])[0]


def _name_module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).name
