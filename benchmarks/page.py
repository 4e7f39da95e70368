"""Write docs/benchmarks.md, its pictures and the README's table from benchmarks/records: python -m benchmarks.page.

The benchmarks write the records when they are run with `--record`; nothing on the page is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.converting import FLOOR, OURS, READING
from benchmarks.growth import Table as Growth
from benchmarks.growth import project
from benchmarks.reading import MAPS
from benchmarks.turns import RECORDS, Table, find_rate, summarize
from bigearthnet.names import N_PATCHES
from bigearthnet.quantity import format_bytes, format_seconds
from bigearthnet.store.layout import CODECS

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/benchmarks.md"
PICTURES: Final = PAGE.with_suffix("")
README: Final = ROOT / "README.md"

_HEAD: Final = """\
# Benchmarks

Other ways to do the same, each as its own documentation shows it, in turns with this project (A B C C B A), each in a
process of its own. A rate is the median of its rounds, ± half of the highest less the lowest. Machines are shared and
noisy: only ratios within one table mean anything. What each contender does stands at the head of
`benchmarks/converting.py` and `benchmarks/reading.py`; what it has written is compared with rasterio's pixels before it
is measured. Who reads with rasterio is slow and gets fewer patches, which changes no figure a patch.

Warm: files in the page cache. Cold: their pages dropped before; the host of a virtual machine may have kept them. Far:
warm, and a millisecond added to every open of a file of the archive, as across a network.

`make bench` runs all with few patches and rounds, `make bench-full` makes this page anew. Both install the contenders,
which the extra `bench` pins, into `.venv-bench`.
"""

_MARK: Final = re.compile(r"(<!-- python -m benchmarks\.page writes this -->\n).*?(<!-- to here -->)", re.DOTALL)
_RATE: Final = "patches/s"
_OURS: Final = "#3949ab"
_OTHERS: Final = "#9e9e9e"
_STYLE: Final[Any] = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
                 "axes.spines.right": False, "figure.facecolor": "white"}  # fmt: skip


def load_record(name: str) -> dict[str, Any]:
    """Load the record of a benchmark."""
    record: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return record


def write_page() -> str:
    """Return the text of the page."""
    converting, reading, growth = map(load_record, ("converting", "reading", "growth"))
    return "\n".join(
        [
            _HEAD,
            "## Converting",
            "",
            *_describe_machine(converting),
            *_describe_tables(converting["tables"], "converting", (OURS,), FLOOR),
            "## Reading for training",
            "",
            *_describe_machine(reading),
            *_describe_tables(reading["tables"], "reading", CODECS, MAPS),
            "## Growth",
            "",
            *_describe_machine(growth),
            *_describe_growth(growth["tables"]),
        ]
    )


def write_readme(text: str) -> str:
    """Return the text of the README with its table of these records."""
    converting, reading = load_record("converting")["tables"], load_record("reading")["tables"]
    lines = ["| | this project | the others | ceiling |", "|---|---|---|---|"]
    for title, table, ours, ceiling in [
        *((f"converting, {title}", table, OURS, FLOOR) for title, table in converting.items() if OURS in table),
        *((f"reading, {title}", table, CODECS[0], MAPS) for title, table in reading.items()),
    ]:
        rate = {name: find_rate(table, name) for name in table}
        left_out = (*CODECS, ours, ceiling, READING)
        others = [f"{name} {rate[name]:,.0f}" for name in table if name not in left_out and not name.endswith(" alone")]
        lines.append(
            f"| {title} | **{rate[ours]:,.0f}** | {', '.join(others)} |"
            f" {f'{rate[ceiling]:,.0f}' if rate.get(ceiling, 0) > rate[ours] else ''} |"
        )
    lines += _describe_whole(load_record("growth"))
    return _MARK.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text)


def _describe_whole(record: dict[str, Any]) -> Iterator[str]:
    """Say what all patches took, if the record of growth has them."""
    tables: Growth = record["tables"]
    n_all = str(N_PATCHES["v1"])
    if n_all in tables["convert"]:
        took = {name: format_seconds(of_size[n_all]["s"][0]) for name, of_size in tables.items()}
        stored, machine = format_bytes(tables["convert"][n_all]["bytes"][0]), record["machine"]
        yield ""
        yield f"All {int(n_all):,} patches, {stored} in the end, on {machine['n_cores']} cores with"
        yield f"{machine['memory_gb']:g} GB of memory: converted in {took['convert']}, opened in {took['open']},"
        yield f"first batch after {took['first batch']}, an epoch of RGB in {took['epoch']},"
        yield f"every byte verified in {took['verify']} ([growth](docs/benchmarks.md#growth))."


def draw_pictures() -> dict[str, Figure]:
    """Draw all pictures, by name."""
    pictures = {
        name: _draw_bars(load_record(name)["tables"], ours)
        for name, ours in (("converting", (OURS,)), ("reading", CODECS))
    }
    return {**pictures, "growth": _draw_growth(load_record("growth")["tables"])}


def _describe_machine(record: dict[str, Any]) -> Iterator[str]:
    machine = record["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield f"`{machine['command']}` on {machine['at']}: {machine['n_cores']} cores of {machine['processor']},"
    yield f"{machine['memory_gb']:g} GB of memory, {machine['system']}, Python {machine['python']}, {packages}."
    yield ""


def _describe_tables(tables: dict[str, Table], picture: str, ours: Sequence[str], ceiling: str) -> Iterator[str]:
    """Write a table each: rates, their ratio to ours and to the ceiling, and all other figures."""
    yield from (f"![patches/s of each contender, in each table below]({PICTURES.name}/{picture}.svg)", "")
    for title, table in tables.items():
        counts = Counter(key for found in table.values() for key in found if key != _RATE)
        others = [key for key, n in counts.items() if n > len(table) / 2]  # not what only this project tells
        best = next((name for name in ours if name in table), None)
        columns = [name for name in (best, ceiling) if name in table and name is not None]
        yield from (f"### {title[0].upper()}{title[1:]}", "")
        yield f"| | patches/s | {' | '.join([*(f'of {name}' for name in columns), *others])} |"
        yield "|---" + "|---:" * (1 + len(columns) + len(others)) + "|"
        for name, found in table.items():
            rate, spread = summarize(found[_RATE])
            cells = [f"{rate:,.0f} ±{spread:.0%}"]
            cells += [f"{rate / find_rate(table, column):.2g}" for column in columns]
            cells += [_format(summarize(found[key])[0]) if key in found else "" for key in others]
            shown = f"**{name}**" if name in ours else name
            yield f"| {shown} | {' | '.join(cells)} |"
        yield ""


def _format(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _describe_growth(tables: Growth) -> Iterator[str]:
    n_all = N_PATCHES["v1"]
    sizes = sorted(next(iter(tables.values())), key=int)
    yield from (f"![Seconds and memory of each command by number of patches]({PICTURES.name}/growth.svg)", "")
    yield "The last column goes on from the last two sizes below it in a straight line, but never downwards."
    yield ""
    yield "| | " + " | ".join(f"{int(size):,}" for size in sizes) + f" | {n_all:,} (projected) |"
    yield "|---" + "|---:" * (len(sizes) + 1) + "|"
    for name, of_size in tables.items():
        for key in of_size[sizes[0]]:
            values = {int(size): of_size[size][key][0] for size in sizes}
            cells = [*values.values(), project(values, n_all)]
            yield (
                f"| {name}, {key} | "
                + " | ".join(f"{cell:,.2f}" if cell < 10 else f"{cell:,.0f}" for cell in cells)
                + " |"
            )
    yield ""


def _draw_bars(tables: dict[str, Table], ours: Sequence[str]) -> Figure:
    """Draw a panel of bars for each table, the fastest on top."""
    n_bars = [len(table) for table in tables.values()]
    with rc_context(_STYLE):
        figure = Figure(figsize=(7, 0.6 * len(tables) + 0.17 * sum(n_bars)), layout="constrained")
        panels = figure.subplots(len(tables), 1, height_ratios=n_bars, squeeze=False)[:, 0]
        for panel, (title, table) in zip(panels, tables.items(), strict=True):
            _draw_panel(panel, title, {name: find_rate(table, name) for name in table}, ours)
    return figure


def _draw_panel(panel: Axes, title: str, rate: dict[str, float], ours: Sequence[str]) -> None:
    names = sorted(rate, key=lambda name: rate[name])
    bars = panel.barh(
        names, [rate[name] for name in names], color=[_OURS if name in ours else _OTHERS for name in names]
    )
    panel.bar_label(bars, [f"{rate[name]:,.0f}" for name in names], padding=3)
    panel.set_title(f"{title}, patches/s", loc="left", fontweight="bold")
    panel.margins(x=0.12)
    panel.xaxis.set_visible(False)
    panel.spines["bottom"].set_visible(False)
    panel.tick_params(left=False)


def _draw_growth(tables: Growth) -> Figure:
    """Draw seconds and memory by number of patches, both axes logarithmic."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        for panel, key in zip(figure.subplots(1, 2), ("s", "peak MB"), strict=True):
            for name, of_size in tables.items():
                sizes = sorted(of_size, key=int)
                panel.loglog(
                    [int(size) for size in sizes], [of_size[size][key][0] for size in sizes], "o-", ms=3, label=name
                )
            panel.set_xlabel("patches")
            panel.set_title(key, loc="left", fontweight="bold")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def main() -> None:
    """Write the page, its pictures and the README's table."""
    PAGE.write_text(write_page())
    README.write_text(write_readme(README.read_text()))
    PICTURES.mkdir(exist_ok=True)
    for name, figure in draw_pictures().items():
        with rc_context(_STYLE):
            figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
