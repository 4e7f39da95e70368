"""Count what the table of a store holds. Everything is added up inside DuckDB; no row comes to Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bigearthnet.names import SPLITS
from bigearthnet.store.layout import REJECTS
from bigearthnet.store.query import open_table

LAG_BIN_H: Final = 12
"""Hours that a bar of the time lags spans."""

N_REASONS: Final = 20
"""Reasons to leave patches out that are told at most."""


@dataclass(frozen=True)
class ClassCount:
    """How many patches carry a label."""

    name: str
    n_patches: int
    """In the whole store."""
    of_split: dict[str, int]
    """Recommended patches, by split."""


@dataclass(frozen=True)
class Nomenclature:
    """The labels of all patches in one set of classes."""

    classes: tuple[ClassCount, ...]
    """In the order of the store's attributes, those that no patch carries included."""
    sizes: dict[int, int]
    """Patches by their number of labels."""

    @property
    def n_present(self) -> int:
        """Classes that any patch carries."""
        return sum(one.n_patches > 0 for one in self.classes)

    @property
    def mean_size(self) -> float:
        """Labels a patch."""
        return sum(size * n for size, n in self.sizes.items()) / max(sum(self.sizes.values()), 1)


@dataclass(frozen=True)
class CountryCount:
    """The patches of one country."""

    name: str | None
    """None where no list says it."""
    n_patches: int
    of_season: dict[str | None, int]


@dataclass(frozen=True)
class Lags:
    """How long after Sentinel-2 a place was seen by Sentinel-1."""

    n_patches: int
    bins: dict[int, int]
    """Patches by the start of their bin, in units of `LAG_BIN_H` hours."""
    least_h: float
    median_h: float
    most_h: float


@dataclass(frozen=True)
class RejectCount:
    """Patches that were left out for the same reason."""

    n_patches: int
    file: str
    """One of the files at fault."""
    reason: str


@dataclass(frozen=True)
class Census:
    """What the table of a store holds, counted."""

    n_patches: int
    n_recommended: int
    of_split: dict[str | None, tuple[int, int]]
    """Recommended and other patches by split; None where no list names the patch."""
    labels_43: Nomenclature | None
    """None where the source has 19 classes only (v2.0)."""
    labels_19: Nomenclature
    together: tuple[tuple[int, ...], ...]
    """Patches that carry two of the 19 classes, in their order, shape (class, class); on the diagonal, each."""
    countries: tuple[CountryCount, ...]
    """Most patches first."""
    seasons: dict[str | None, int]
    months: dict[str, int]
    """Patches by the month of their first sensing, `YYYY-MM`, without gaps."""
    n_snow: int
    n_cloud: int
    n_snow_and_cloud: int
    n_with_zeros: int | None
    """Patches with a zero in the 10 m bands; None without such bands."""
    n_without_s1: int
    satellites: dict[str, int]
    n_tiles: int
    lags: Lags | None
    """None where either sensor is not in the store."""
    reasons: tuple[RejectCount, ...]
    """Why patches were left out, the most frequent reasons first."""


def take_census(store: Path, attributes: dict[str, Any]) -> Census:
    """Count the patches of a finished store.

    Args:
        store: The store's folder.
        attributes: Its root attributes.

    Raises:
        StoreError: There is no finished store.
    """
    with open_table(store) as connection:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
            return rows

        (totals,) = connection.sql(_TOTALS).to_arrow_table().to_pylist()
        names_43, names_19 = attributes["labels_43"], attributes["labels_19"]
        return Census(
            **totals,
            of_split={
                split: (n_recommended, n - n_recommended)
                for split, n_recommended, n in ask(
                    "SELECT split, count(*) FILTER (recommended), count(*) FROM patches GROUP BY ALL"
                )
            },
            labels_43=_count_labels(ask, "labels", names_43) if names_43 else None,
            labels_19=_count_labels(ask, "labels_19", names_19),
            together=_count_together(ask, names_19),
            countries=_count_countries(ask),
            seasons=dict(ask("SELECT season, count(*) AS n FROM patches GROUP BY ALL ORDER BY n DESC, season")),
            months=dict(ask(_MONTHS)),
            satellites=dict(ask("SELECT satellite, count(*) FROM patches GROUP BY ALL ORDER BY ALL")),
            lags=_count_lags(ask),
            reasons=tuple(RejectCount(*row) for row in ask(_REASONS)) if (store / REJECTS).is_file() else (),
        )


_Ask = Callable[[str], list[tuple[Any, ...]]]
"""Answers a question in SQL with rows."""

_TOTALS: Final = """
    SELECT
        count(*) AS n_patches,
        count(*) FILTER (recommended) AS n_recommended,
        count(*) FILTER (contains_seasonal_snow) AS n_snow,
        count(*) FILTER (contains_cloud_or_shadow) AS n_cloud,
        count(*) FILTER (contains_seasonal_snow AND contains_cloud_or_shadow) AS n_snow_and_cloud,
        CASE WHEN count(zero_pixels) > 0 THEN count(*) FILTER (zero_pixels > 0) END AS n_with_zeros,
        count(*) FILTER (NOT has_s1) AS n_without_s1,
        count(DISTINCT tile) AS n_tiles
    FROM patches
"""

_MONTHS: Final = """
    WITH sensed AS (SELECT date_trunc('month', coalesce(s2_time, s1_time)::TIMESTAMP) AS month FROM patches),
    counted AS (SELECT month, count(*) AS n FROM sensed WHERE month IS NOT NULL GROUP BY ALL),
    every AS (SELECT unnest(generate_series(min(month), max(month), INTERVAL 1 MONTH)) AS month FROM counted)
    SELECT strftime(month, '%Y-%m'), coalesce(n, 0) FROM every LEFT JOIN counted USING (month) ORDER BY month
"""

_REASONS: Final = f"""
    SELECT count(*) AS n, min(file), reason FROM rejected GROUP BY reason ORDER BY n DESC, reason LIMIT {N_REASONS}
"""


def _count_labels(ask: _Ask, column: str, names: Sequence[str]) -> Nomenclature:
    splits = ", ".join(f"count(*) FILTER (recommended AND split = '{split}')" for split in SPLITS)
    counted = {
        name: (n, dict(zip(SPLITS, of_split, strict=True)))
        for name, n, *of_split in ask(
            f"SELECT label, count(*), {splits} "
            f"FROM (SELECT unnest({column}) AS label, recommended, split FROM patches) GROUP BY ALL"
        )
    }
    nothing = (0, dict.fromkeys(SPLITS, 0))
    # Names that the attributes do not have would be a fault of the store; they are shown, not dropped.
    every = [*names, *sorted(counted.keys() - set(names))]
    return Nomenclature(
        tuple(ClassCount(name, *counted.get(name, nothing)) for name in every),
        dict(ask(f"SELECT len({column}) AS size, count(*) FROM patches GROUP BY ALL ORDER BY ALL")),
    )


def _count_together(ask: _Ask, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    # Most patches share their set of labels with others, so sets are counted first: 590,326 rows become 2,000 or so.
    counted = {
        (first, second): n
        for first, second, n in ask(
            "WITH sets AS (SELECT labels_19, count(*) AS n FROM patches GROUP BY ALL), "
            "firsts AS (SELECT unnest(labels_19) AS first, labels_19, n FROM sets), "
            "pairs AS (SELECT first, unnest(labels_19) AS second, n FROM firsts) "
            "SELECT first, second, sum(n)::BIGINT FROM pairs GROUP BY ALL"
        )
    }
    return tuple(tuple(counted.get((first, second), 0) for second in names) for first in names)


def _count_countries(ask: _Ask) -> tuple[CountryCount, ...]:
    rows = ask(
        "WITH seasons AS (SELECT country, season, count(*) AS n FROM patches GROUP BY ALL) "
        "SELECT country, sum(n)::BIGINT AS total, list(row(season, n)) FROM seasons "
        "GROUP BY country ORDER BY total DESC, country"
    )
    return tuple(CountryCount(name, total, dict(of_season)) for name, total, of_season in rows)


def _count_lags(ask: _Ask) -> Lags | None:
    lags = (
        "(SELECT epoch(s1_time - s2_time) / 3600 AS hours FROM patches "
        "WHERE s1_time IS NOT NULL AND s2_time IS NOT NULL)"
    )
    ((n_patches, least, middle, most),) = ask(f"SELECT count(*), min(hours), median(hours), max(hours) FROM {lags}")
    if not n_patches:
        return None
    bins = ask(f"SELECT floor(hours / {LAG_BIN_H})::INTEGER AS bin, count(*) FROM {lags} GROUP BY ALL ORDER BY ALL")
    return Lags(n_patches, dict(bins), least, middle, most)
