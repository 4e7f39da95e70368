"""What a user sees: a bar on a terminal, plain lines elsewhere, and figures one can read."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigearthnet.archive.records import Sources
from bigearthnet.quantity import format_bytes, format_seconds
from bigearthnet.store.summary import describe_store
from converter.commands.descriptions import describe_info, describe_summary, suggest_commands
from converter.commands.display import ProgressDisplay, describe_plan
from converter.conversion import Summary, plan_conversion
from converter.events import Advanced, Event, Finishing, Planned, Scanned, Started
from tests.conftest import SmallArchive
from tests.terminal import show_on_terminal


@pytest.fixture
def planned(small: SmallArchive) -> Planned:
    return plan_conversion(Sources(s2=small.archive.root), small.options())


def tell(planned: Planned, n_done_before: int = 0) -> list[Event]:
    return [
        Scanned(22),
        planned,
        Started(2, "http://127.0.0.1:8787/status", n_done_before, 22, 1.25),
        *(Advanced(n_done, 1, 22) for n_done in range(n_done_before + 4, 21, 4)),
        Advanced(21, 1, 22),
        Finishing(),
    ]


def show(events: list[Event]) -> None:
    display = ProgressDisplay()
    try:
        for event in events:
            display(event)
    finally:
        display.close()


def test_lines_tell_the_story_where_there_is_no_terminal(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show(tell(planned))
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "Scanning: 22 patch folders"
    assert lines[1:-3] == describe_plan(planned).splitlines()
    assert lines[-3] == "2 workers, ready after 1.2 s; dashboard: http://127.0.0.1:8787/status"
    assert re.fullmatch(r"21 of 22 patches, [\d,]+ patches/s, .* left, 1 rejected", lines[-2])
    assert lines[-1] == "Writing statistics, coordinates and table"


def test_lines_are_ten_seconds_apart(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display = ProgressDisplay()
    display(Started(2, "http://here", 100, 1_000, 1.0))
    for step in range(40):
        now += 0.5
        display(Advanced(100 + step * 10, 0, 1_000))
    progress = [line for line in stream.getvalue().splitlines() if "patches/s" in line]
    assert progress == [
        "290 of 1,000 patches, 19 patches/s, 37.4 s left, 0 rejected",
        "490 of 1,000 patches, 20 patches/s, 26.2 s left, 0 rejected",
    ]


def test_a_second_run_says_what_the_first_has_done(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show(tell(planned, n_done_before=8))
    assert "Going on after 8 patches that an earlier run finished" in stream.getvalue()


def test_a_bar_is_drawn_on_a_terminal(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    text = show_on_terminal(lambda: show(tell(planned)), monkeypatch)
    assert "\r" in text.replace("\r\n", "")
    assert re.search(r"Converting: +95%\|.*\| 21/22 \[.*patches/s, 1 rejected\]", text)
    assert "Writing statistics, coordinates and table" in text


@pytest.mark.parametrize("columns", [60, 79])
def test_a_narrow_bar_keeps_rate_time_left_and_rejects(
    planned: Planned, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    text = show_on_terminal(lambda: show(tell(planned)), monkeypatch, columns)
    assert re.search(r"\r95%, 00:0\d left, +[\d.]+ patches/s, 1 rejected", text)


def test_a_bar_goes_on_where_an_earlier_run_stopped(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    text = show_on_terminal(lambda: show(tell(planned, n_done_before=8)), monkeypatch)
    assert re.search(r"Converting: +36%\|.*\| 8/22", text)


def test_a_plan_is_described_with_all_it_decides(planned: Planned) -> None:
    text = describe_plan(planned)
    assert re.search(r"22 of the 590,326 patches", text)
    assert "9 train, 5 validation, 4 test, 4 others" in text
    assert re.search(r"s2_10m.*s2_20m.*s2_60m", text, re.DOTALL)
    assert re.search(r"\b6 (shards|of each array)\b", text)
    assert "codec lz4" in text
    assert "3.5 MB of pixels" in text
    assert re.search(r"about [\d.]+ MB (in the store|stored)", text)
    assert re.search(r"about [\d.]+ MB a worker", text)
    assert re.search(r"\b1 patch in no official list", text)


def test_patches_that_are_not_there_are_counted_since_extractions_are_cut_short(
    planned: Planned, small: SmallArchive, tmp_path: Path
) -> None:
    assert "cut short" not in describe_plan(planned)
    raw = small.archive.copy(tmp_path, small.names[:3])
    text = describe_plan(plan_conversion(Sources(s2=raw.root), small.options()))
    assert "3 of the 590,326 patches" in text
    assert re.search(r"\b18 (listed )?patches.*cut short", text)


def test_stray_entries_are_mentioned_only_if_there_are_any(
    planned: Planned, small: SmallArchive, tmp_path: Path
) -> None:
    assert "left alone" not in describe_plan(planned)
    raw = small.archive.copy(tmp_path, small.names[:3])
    (raw.root / "notes.txt").touch()
    (raw.root / "more").mkdir()
    assert "2 other things" in describe_plan(plan_conversion(Sources(s2=raw.root), small.options()))


SUMMARY = Summary(
    store=Path("/data/ben"),
    n_patches=590_000,
    n_rejected=326,
    n_converted_now=295_000,
    arrays=("s2_10m", "s2_20m", "s2_60m"),
    split_counts={"train": 269_500, "validation": 123_700, "test": 125_800, "other": 71_000},
    n_classes=43,
    pixel_bytes=94_400_000_000,
    stored_bytes=67_428_571_428,
    plan_s=10.0,
    startup_s=2.5,
    convert_s=590.0,
    finish_s=29.0,
)


def test_a_summary_adds_up_and_suggests_what_to_try_next() -> None:
    text = describe_summary(SUMMARY)
    assert "590,326 found = 590,000 converted + 326 rejected" in text
    assert "269,500 train, 123,700 validation, 125,800 test, 71,000 others" in text
    assert "94.4 GB of pixels in 67.4 GB, ratio 1.40" in text
    assert "10 min 32 s" in text
    assert "500 patches/s" in text
    suggested = text.partition("Try next:\n")[2].splitlines()
    assert len(suggested) == 4
    assert all("/data/ben" in line for line in suggested)


@pytest.mark.parametrize("number", range(4))
def test_what_a_summary_suggests_runs_as_it_stands(number: int, store: Path, tmp_path: Path) -> None:
    named = tmp_path / 'it\'s a "store"'
    named.symlink_to(store)
    command = suggest_commands(replace(SUMMARY, store=named))[number]
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, ""), command
    assert ended.stdout.strip()


def test_a_summary_of_nothing_new_divides_by_nothing() -> None:
    nothing = replace(SUMMARY, n_converted_now=0, convert_s=0.0, split_counts={})
    assert "0 patches" in describe_summary(nothing)


def test_a_store_is_described_with_arrays_bands_and_counts(store: Path) -> None:
    found = describe_store(store)
    text = describe_info(found)
    assert str(store) in text
    assert "22 found = 22 converted + 0 rejected, of 590,326 published" in text
    assert re.search(r"s2_20m +22 x 6 x 60 x 60 +uint16 .* B05 B06 B07 B8A B11 B12", text)
    assert re.search(r"^train +9$", text, re.MULTILINE)
    statistics = found["attributes"]["statistics"]["B8A"]
    assert f"{statistics['mean']:,.1f}" in text
    assert "Transitional woodland/shrub" in text
    assert "Transitional woodland, shrub" in text
    assert re.search(r"1 patch(es)? with seasonal snow, 1 with cloud or shadow", text)


def test_columns_are_aligned(store: Path) -> None:
    lines = describe_info(describe_store(store)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("country"))
    table = lines[start : lines.index("", start)]
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (28_800, "28.8 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (94_452_160_000, "94.5 GB"),
        (999_990_000_000, "1.0 TB"),
        (3.2e15, "3,200.0 TB"),
    ],
)
def test_bytes_are_told_in_the_unit_that_suits_them(n_bytes: float, text: str) -> None:
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.4, "59.4 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3_599.6, "1 h 00 min"),
        (3_725, "1 h 02 min"),
        (100_000, "27 h 46 min"),
        (float("inf"), "unknown time"),
    ],
)
def test_durations_are_told_in_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_statistics_over_nothing_are_shown_as_such(store: Path) -> None:
    found: dict[str, Any] = describe_store(store)
    found["attributes"]["statistics"] = {"B02": dict.fromkeys(("mean", "std", "min", "max", "count"))}
    assert re.search(r"B02 +- +- +- +-", describe_info(found))
