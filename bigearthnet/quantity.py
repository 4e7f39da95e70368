"""Write quantities as people read them."""

from __future__ import annotations


def format_bytes(n_bytes: float) -> str:
    """Format bytes with a decimal unit, as disks are sold."""
    if n_bytes < 999.5:
        return f"{n_bytes:,.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 999.95:
            return f"{n_bytes:,.1f} {unit}"
    return f"{n_bytes / 1000:,.1f} TB"


def format_count(n: int, noun: str) -> str:
    """Format a number of things; the noun is given in the singular."""
    plural = f"{noun}es" if noun.endswith(("ch", "s")) else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def format_seconds(seconds: float) -> str:
    """Format a duration as the two largest units that matter."""
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def format_pace(n_done: int, n_total: int, seconds: float, n_before: int = 0) -> str:
    """Format how many patches are done, at what rate, and how long the rest takes.

    Args:
        n_done: Patches that are done.
        n_total: All that there are; 0 if nobody knows.
        seconds: What it took.
        n_before: Those that were done before.
    """
    rate = (n_done - n_before) / max(seconds, 1e-9)
    if not n_total:
        return f"{format_count(n_done, 'patch')}, {rate:,.0f} patches/s"
    left = format_seconds((n_total - n_done) / rate if rate else float("inf"))
    return f"{n_done:,} of {n_total:,} patches, {rate:,.0f} patches/s, {left} left"
