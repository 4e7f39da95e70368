"""What a conversion, a verification and a store were found to be, as text for people."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigearthnet.names import SYNTHETIC_NOTE
from bigearthnet.quantity import format_bytes, format_count, format_seconds
from bigearthnet.store.layout import IMAGES
from converter.commands.display import describe_splits

if TYPE_CHECKING:  # importing these takes half a second
    from converter.conversion import Summary
    from converter.profile import Profile
    from converter.verify.verification import Verification


def describe_summary(summary: Summary) -> str:
    """Describe what a conversion did, and what to try next."""
    rate = summary.n_converted_now / summary.convert_s if summary.convert_s else 0
    seconds = summary.plan_s + summary.startup_s + summary.convert_s + summary.finish_s
    return "\n".join(
        [
            f"Finished  {summary.store}",
            f"Patches   {summary.n_patches + summary.n_rejected:,} found = {summary.n_patches:,} converted "
            f"+ {summary.n_rejected:,} rejected; {summary.n_classes} classes",
            f"Splits    {describe_splits(summary.split_counts)}",
            f"Bytes     {format_bytes(summary.pixel_bytes)} of pixels in {format_bytes(summary.stored_bytes)}, "
            f"ratio {summary.pixel_bytes / summary.stored_bytes:.2f}",
            f"Time      {format_seconds(seconds)}: {summary.plan_s:.1f} s plan, {summary.startup_s:.1f} s start, "
            f"{summary.convert_s:.1f} s for {summary.n_converted_now:,} patches ({rate:,.0f} patches/s), "
            f"{summary.finish_s:.1f} s finish",
            "",
            "Try next:",
            *(f"  {command}" for command in suggest_commands(summary)),
        ]
    )


def describe_profile(profile: Profile) -> str:
    """Describe where the time of a conversion went."""
    pieces = profile.sum_pieces()
    total = sum(pieces.values())
    cpu_s, workers = sum(profile.cpu_s.values()), format_count(len(profile.cpu_s), "worker")
    return "\n".join(
        [
            "Stages    " + ", ".join(f"{seconds:.1f} s {stage}" for stage, seconds in profile.stages.items()),
            f"Workers   {total:.1f} s of {workers}, {cpu_s:.1f} s of the processor, "
            f"for {format_count(profile.n_patches, 'patch')}",
            *_align(
                ("piece", "seconds", "share", "us a patch"),
                (
                    (piece, f"{s:.2f}", f"{s / total:.1%}", f"{s / max(profile.n_patches, 1) * 1e6:.0f}")
                    for piece, s in pieces.items()
                ),
            ),
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


def describe_verification(verification: Verification) -> str:
    """Describe what a verification found, fault by fault."""
    faults = [f"Fault     {fault}" for fault in verification.faults]
    compared = f", {verification.n_compared:,} of them against the archive" if verification.n_compared else ""
    verdict = format_count(len(faults), "fault") if faults else "no fault"
    chances = ", ".join(  # rounded down: a sample makes nothing certain
        f"{min(math.floor(1_000 * probability) / 10, 99.9)}% in {n:,}"
        for n, probability in verification.detection.items()
    )
    return "\n".join(
        [
            *faults,
            *([f"Sample    chance to find differences by patches that differ: {chances}"] if chances else []),
            f"Verified  {format_count(verification.n_patches, 'patch')}{compared}, "
            f"in {format_seconds(verification.seconds)}: {verdict}",
        ]
    )


def describe_info(description: dict[str, Any]) -> str:
    """Describe a store from what `describe_store` found."""
    attributes, counts, arrays = description["attributes"], description["counts"], description["arrays"]
    raw_bytes, stored_bytes = (sum(array[key] for array in arrays) for key in ("raw_bytes", "stored_bytes"))
    reconciled, options = attributes["counts"], attributes["options"]
    lines = [
        *([SYNTHETIC_NOTE, ""] if attributes.get("synthetic") else []),
        f"Store     {description['store']}",
        f"Data      {attributes['dataset']}, {attributes['license']}; format {attributes['format_version']}, "
        f"written by converter {attributes['converter_version']}",
        f"Patches   {reconciled['found']:,} found = {reconciled['converted']:,} converted "
        f"+ {reconciled['rejected']:,} rejected, of {reconciled['expected']:,} published",
        f"Bytes     {format_bytes(raw_bytes)} of pixels in {format_bytes(stored_bytes)}, "
        f"ratio {raw_bytes / stored_bytes:.2f}, codec {options['codec']}, {options['shard_size']:,} patches a shard",
        f"Identity  {attributes['fingerprint']}",
        *_describe_part(attributes.get("part_of")),
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


def _describe_part(part: dict[str, Any] | None) -> list[str]:
    if part is None:
        return []
    chosen = [f"bands {','.join(part['bands'])}", *(["recommended"] if part["recommended"] else []), *part["splits"]]
    return [f"Part of   {part['whole']}, from {part['origin']}: {'; '.join([*chosen, *part['where']])}"]


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
