"""Show a conversion to whoever waits for it: its plan, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from bigearthnet.archive.metadata import FILES
from bigearthnet.archive.records import is_archive_file
from bigearthnet.bands import SENSORS, BandGroup
from bigearthnet.commandline import LINE_EVERY_S, echo, open_bar
from bigearthnet.lock import Watching
from bigearthnet.names import N_PATCHES, SPLITS, TITLES
from bigearthnet.quantity import format_bytes, format_count, format_pace, format_seconds
from converter.events import Advanced, Event, Finishing, Ingesting, Planned, Scanned, Started, Waiting


class ProgressDisplay:
    """Draws events on stderr: a bar on a terminal, plain lines elsewhere. Call it with each event, then close it."""

    def __init__(self, doing: str = "Converting", bad: str = "rejected") -> None:
        self._doing, self._bad = doing, bad
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._started_at = self._printed_at = time.monotonic()
        self._n_before = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Scanned(n_found):
                echo(f"Scanning: {format_count(n_found, 'patch folder')}", err=True)
            case Planned():
                echo(describe_plan(event), err=True)
            case Ingesting():
                self._ingest(event)
            case Waiting(seconds):
                echo(f"No worker is there; waiting up to {format_seconds(seconds)} for one", err=True)
            case Watching(holder, seconds):
                echo(
                    f"{holder} was writing this store; looking for {format_seconds(seconds)} if it still does", err=True
                )
            case Started():
                self._start(event)
            case Advanced():
                self._advance(event)
            case Finishing():
                self.close()
                echo("Writing statistics, coordinates and table", err=True)

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, event: Started) -> None:
        workers = format_count(event.n_workers, "worker")
        dashboard = f"; dashboard: {event.dashboard}" if event.dashboard else ""
        if event.startup_s:
            echo(f"{workers}, ready after {event.startup_s:.1f} s{dashboard}", err=True)
        if event.n_done:
            echo(f"Going on after {event.n_done:,} patches that an earlier run finished", err=True)
        self._n_before, self._started_at = event.n_done, time.monotonic()
        self.close()
        if self._on_terminal and event.n_total:
            self._bar = open_bar(
                self._doing,
                " patches",
                total=event.n_total,
                initial=event.n_done,
                leave=True,
                smoothing=0.05,
                postfix=f"0 {self._bad}",
            )

    def _ingest(self, event: Ingesting) -> None:
        """Show how far an archive is read: in bytes, since nobody knows how many patches will come."""
        if self._on_terminal:
            if self._bar is None or SENSORS[event.sensor] not in self._bar.desc:
                self.close()
                self._bar = open_bar(
                    f"Reading {SENSORS[event.sensor]}", "B", total=event.n_bytes_total, leave=True, unit_scale=True
                )
            self._bar.set_postfix_str(f"{event.n_patches:,} patches, {event.n_bad:,} {self._bad}", refresh=False)
            self._bar.update(event.n_bytes - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed_at < LINE_EVERY_S:
            return
        self._printed_at = now
        of = f" of {format_bytes(event.n_bytes_total)}" if event.n_bytes_total else ""
        echo(
            f"Reading {SENSORS[event.sensor]}: {event.n_patches:,} patches, {event.n_bad:,} {self._bad}, "
            f"{format_bytes(event.n_bytes)}{of} read",
            err=True,
        )

    def _advance(self, event: Advanced) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{event.n_rejected:,} {self._bad}", refresh=False)
            self._bar.update(event.n_done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed_at < LINE_EVERY_S and event.n_done + event.n_rejected < event.n_total:
            return
        self._printed_at = now
        pace = format_pace(event.n_done, event.n_total, now - self._started_at, self._n_before)
        echo(f"{pace}, {event.n_rejected:,} {self._bad}", err=True)


def describe_plan(planned: Planned) -> str:
    """Describe a plan, and whatever of the archive does not look as published."""
    plan, archive = planned.plan, planned.archive
    others = "snow, cloud or shadow" + (", no 19-class label, in no list" if archive.dataset == "v1" else "")
    n_found, n_published = plan.n_patches + len(archive.left_out), N_PATCHES[archive.dataset]
    is_spilled = any(map(is_archive_file, archive.roots.values()))
    lines = [
        f"Found     {n_found:,} of the {n_published:,} patches of {TITLES[archive.dataset]}",
        f"Order     {describe_splits(plan.split_counts)} ({others})",
        f"Arrays    {'; '.join(_describe_group(group) for group in plan.layout.groups)}",
        f"Shards    {plan.n_shards:,} of each array, {format_count(plan.layout.shard_size, 'patch')} a shard, "
        f"codec {plan.layout.codec}",
        f"Bytes     {format_bytes(plan.pixel_bytes)} of pixels, about {format_bytes(plan.projected_bytes)} stored",
        f"Memory    about {format_bytes(plan.worker_bytes)} a worker",
    ]
    if is_spilled:
        lines.append(
            f"Spill     about {format_bytes(plan.projected_bytes)} of encoded patches in STORE/.progress, freed as "
            "shards are written"
        )
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


def describe_splits(counts: Mapping[str, int]) -> str:
    """Describe how many patches there are of each split."""
    return ", ".join(f"{counts.get(split, 0):,} {split}" for split in SPLITS) + f", {counts.get('other', 0):,} others"
