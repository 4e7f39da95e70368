"""Show a conversion to whoever waits for it: plan, progress and summary as text."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Never

from tqdm import tqdm

from bigearthnet.archive.metadata import FILES
from bigearthnet.bands import BandGroup
from bigearthnet.look.quantity import format_bytes, format_count, format_seconds
from bigearthnet.names import N_PATCHES, SYNTHETIC_NOTE, TITLES
from bigearthnet.store.layout import IMAGES
from converter.conversion import Summary
from converter.events import Advanced, Event, Finishing, Planned, Scanned, Started
from converter.plan import Plan
from converter.verify.verification import Verification

_LINE_EVERY_S: Final = 10
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class ProgressDisplay:
    """Draws events on stderr: a bar on a terminal, plain lines elsewhere. Call it with each event, then close it."""

    def __init__(self, doing: str = "Converting", bad: str = "rejected") -> None:
        self._doing, self._bad = doing, bad
        self._on_terminal = sys.stderr.isatty()
        self._bar: tqdm[Never] | None = None
        self._started_at = self._printed_at = time.monotonic()
        self._n_before = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Scanned(n_found):
                self._say(f"Scanning: {format_count(n_found, 'patch folder')}")
            case Planned():
                self._say(describe_plan(event))
            case Started():
                self._start(event)
            case Advanced():
                self._advance(event)
            case Finishing():
                self.close()
                self._say("Writing statistics, coordinates and table")

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this class is the display

    def _start(self, event: Started) -> None:
        workers = format_count(event.n_workers, "worker")
        self._say(f"{workers}, ready after {event.startup_s:.1f} s; dashboard: {event.dashboard}")
        if event.n_done:
            self._say(f"Going on after {event.n_done:,} patches that an earlier run finished")
        self._n_before, self._started_at = event.n_done, time.monotonic()
        if self._on_terminal:
            self.close()
            self._bar = tqdm(
                total=event.n_total,
                initial=event.n_done,
                unit=" patches",
                desc=self._doing,
                dynamic_ncols=True,
                smoothing=0.05,
                postfix=f"0 {self._bad}",
            )

    def _advance(self, event: Advanced) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{event.n_rejected:,} {self._bad}", refresh=False)
            self._bar.update(event.n_done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed_at < _LINE_EVERY_S and event.n_done + event.n_rejected < event.n_total:
            return
        self._printed_at = now
        rate = (event.n_done - self._n_before) / max(now - self._started_at, 1e-9)
        left = (event.n_total - event.n_done) / rate if rate else float("inf")
        self._say(
            f"{event.n_done:,} of {event.n_total:,} patches, {rate:,.0f} patches/s, "
            f"{format_seconds(left)} left, {event.n_rejected:,} {self._bad}"
        )


def describe_plan(planned: Planned) -> str:
    """Describe a plan, and whatever of the archive does not look as published."""
    plan, archive = planned.plan, planned.archive
    n_found, n_published = plan.n_patches + len(archive.left_out), N_PATCHES[archive.dataset]
    lines = [
        f"Found     {n_found:,} of the {n_published:,} patches of {TITLES[archive.dataset]}",
        f"Order     {_describe_splits(plan)}",
        f"Arrays    {'; '.join(_describe_group(group) for group in plan.layout.groups)}",
        f"Shards    {plan.n_shards:,} of each array, {format_count(plan.layout.shard_size, 'patch')} a shard, "
        f"codec {plan.layout.codec}",
        f"Bytes     {format_bytes(plan.pixel_bytes)} of pixels, about {format_bytes(plan.projected_bytes)} stored",
        f"Memory    about {format_bytes(plan.worker_bytes)} a worker",
    ]
    if archive.n_missing:
        lines.append(
            f"Note      {format_count(archive.n_missing, 'listed patch')} not there: right for a subset; if this "
            "should be the whole archive, its extraction was cut short"
        )
    if archive.n_unlisted:
        lines.append(
            f"Note      {format_count(archive.n_unlisted, 'patch')} in no official list: no split, not recommended"
        )
    if archive.left_out:
        lines.append(
            f"Note      {format_count(len(archive.left_out), 'patch')} in no metadata file, left out, such as "
            f"{archive.left_out[0].patch_id}; is {FILES[1]} missing?"
        )
    if archive.n_stray:
        lines.append(f"Note      {format_count(archive.n_stray, 'other thing')} beside the patch folders, left alone")
    return "\n".join(lines)


def _describe_group(group: BandGroup) -> str:
    return f"{group.name} ({' '.join(group.bands)})" if group.band_axis else group.name


def _describe_splits(plan: Plan) -> str:
    counts = plan.split_counts
    others = "snow, cloud or shadow"
    if plan.layout.dataset == "v1":
        others += ", no 19-class label, in no list"
    return (
        f"{counts['train']:,} train, {counts['validation']:,} validation, {counts['test']:,} test, "
        f"{counts['other']:,} others ({others})"
    )


def describe_summary(summary: Summary) -> str:
    """Describe what a conversion did, and what to try next."""
    rate = summary.n_converted_now / summary.convert_s if summary.convert_s else 0
    seconds = summary.startup_s + summary.convert_s + summary.finish_s
    counts = summary.split_counts
    return "\n".join(
        [
            f"Finished  {summary.store}",
            f"Patches   {summary.n_patches + summary.n_rejected:,} found = {summary.n_patches:,} converted "
            f"+ {summary.n_rejected:,} rejected; {summary.n_classes} classes",
            f"Splits    {counts.get('train', 0):,} train, {counts.get('validation', 0):,} validation, "
            f"{counts.get('test', 0):,} test, {counts.get('other', 0):,} others",
            f"Bytes     {format_bytes(summary.pixel_bytes)} of pixels in {format_bytes(summary.stored_bytes)}, "
            f"ratio {summary.pixel_bytes / summary.stored_bytes:.2f}",
            f"Time      {format_seconds(seconds)}: {summary.startup_s:.1f} s start, {summary.convert_s:.1f} s for "
            f"{summary.n_converted_now:,} patches ({rate:,.0f} patches/s), {summary.finish_s:.1f} s finish",
            "",
            "Try next:",
            *(f"  {command}" for command in suggest_commands(summary)),
        ]
    )


def suggest_commands(summary: Summary) -> list[str]:
    """Suggest shell commands that show what is in a store; the Python that runs this can run them."""
    python, store = _shorten(Path(sys.executable)), _shorten(summary.store)
    # Double quotes inside, so that the shell's single ones need no escapes.
    array = json.dumps(f"{store}/{IMAGES}/{summary.arrays[0]}")
    classes = (
        "SELECT unnest(labels_19) AS class, count(*) AS patches FROM patches WHERE recommended GROUP BY 1 ORDER BY 2"
    )
    commands = (
        ["-m", "converter", "info", store],
        ["-m", "converter", "report", store],
        ["-m", "converter", "query", store, classes],
        ["-c", f'import zarr; print(zarr.open({array}, mode="r")[0].mean(axis=(-2, -1)))'],
    )
    return [shlex.join([python, *command]) for command in commands]


def _shorten(path: Path) -> str:
    """Write a path relative to the current folder if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def describe_verification(found: Verification) -> str:
    """Describe what a verification found, fault by fault."""
    faults = [f"Fault     {fault}" for fault in found.faults]
    compared = f", {found.n_compared:,} of them against the archive" if found.n_compared else ""
    verdict = format_count(len(faults), "fault") if faults else "no fault"
    return "\n".join(
        [
            *faults,
            f"Verified  {format_count(found.n_patches, 'patch')}{compared}, "
            f"in {format_seconds(found.seconds)}: {verdict}",
        ]
    )


def describe_info(found: dict[str, Any]) -> str:
    """Describe a store from what `describe_store` found."""
    attributes, counts, arrays = found["attributes"], found["counts"], found["arrays"]
    raw_bytes, stored_bytes = (sum(array[key] for array in arrays) for key in ("raw_bytes", "stored_bytes"))
    reconciled, options = attributes["counts"], attributes["options"]
    lines = [
        *([SYNTHETIC_NOTE, ""] if attributes.get("synthetic") else []),
        f"Store     {found['store']}",
        f"Data      {attributes['dataset']}, {attributes['license']}; format {attributes['format_version']}, "
        f"written by converter {attributes['converter_version']}",
        f"Patches   {reconciled['found']:,} found = {reconciled['converted']:,} converted "
        f"+ {reconciled['rejected']:,} rejected, of {reconciled['expected']:,} published",
        f"Bytes     {format_bytes(raw_bytes)} of pixels in {format_bytes(stored_bytes)}, "
        f"ratio {raw_bytes / stored_bytes:.2f}, codec {options['codec']}, {options['shard_size']:,} patches a shard",
        f"Identity  {attributes['fingerprint']}",
        "",
        *_align(("array", "shape", "type", "stored", "ratio", "bands"), map(_describe_array, arrays)),
        "",
        *_align(
            ("band", "mean", "std", "min", "max"),
            (
                (band, *(_format_value(values[key]) for key in ("mean", "std", "min", "max")))
                for band, values in attributes["statistics"].items()
            ),
        ),
        "statistics over the recommended training patches, in stored units: reflectance x 10,000; dB for VV and VH",
    ]
    for title, key in (
        ("split (recommended patches)", "recommended_split"),
        ("country", "country"),
        ("season", "season"),
        ("class of 19", "labels_19"),
        *([("class of 43", "labels")] if attributes["labels_43"] else []),
    ):
        lines += ["", *_align((title, "patches"), ((name, f"{n:,}") for name, n in counts[key].items()))]
    snow, cloud = (counts[f"contains_{key}"].get("true", 0) for key in ("seasonal_snow", "cloud_or_shadow"))
    return "\n".join([*lines, "", f"{snow:,} patches with seasonal snow, {cloud:,} with cloud or shadow"])


def _format_value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _describe_array(array: dict[str, Any]) -> tuple[str, ...]:
    return (
        array["name"],
        " x ".join(f"{length:,}" for length in array["shape"]),
        array["dtype"],
        format_bytes(array["stored_bytes"]),
        f"{array['raw_bytes'] / array['stored_bytes']:.2f}",
        " ".join(array["bands"]),
    )


def _align(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lay a table out in columns, numbers to the right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [all(row[i].lstrip("-")[:1].isdigit() or row[i] == "-" for row in table[1:]) for i in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]
