"""Choose patches that show what a store holds, and picture them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.look.page import embed_picture
from bigearthnet.look.picture import FALSE_COLOUR, MAP, RGB, S1, Picture, find_picture, name_planes, render_picture
from bigearthnet.look.sheet import mark_synthetic
from bigearthnet.store.layout import Layout
from bigearthnet.store.query import open_table
from bigearthnet.store.shard import read_pixels
from converter.report.variety import choose_varied, mark_kinds, standardise

N_OF_CLASS: Final = 12
"""Patches of each class that are shown."""
N_CANDIDATES: Final = 48
"""Patches of each class that are looked at to find them: a bound on what is read of a store, however large."""
N_PAIRS: Final = 4
"""Snowy, and cloudy, patches that are shown."""
N_VIEWS: Final = 3
"""Patches that are shown in every form that a store has."""


@dataclass(frozen=True)
class Exhibit:
    """A patch of the gallery."""

    index: int
    patch_id: str
    labels: tuple[str, ...]
    """As the source gives them."""
    country: str | None
    date: str | None
    """Day of sensing, `YYYY-MM-DD`."""
    season: str | None


@dataclass(frozen=True)
class Pair:
    """A patch that is not recommended beside a clean one."""

    flagged: Exhibit
    clean: Exhibit | None
    """None if no patch is clean."""
    same_place: bool
    """Both show the same ground."""


@dataclass(frozen=True)
class Gallery:
    """The patches that a report shows."""

    views: tuple[Exhibit, ...]
    """To be shown in every form that the store has."""
    of_class: dict[str, tuple[Exhibit, ...]]
    """Candidates for each of the 19 classes that occurs, in turn from each country and season that it occurs in."""
    snowy: tuple[Pair, ...]
    cloudy: tuple[Pair, ...]


def choose_gallery(store: Path, classes: Sequence[str], seed: int = 0) -> Gallery:
    """Choose patches of a finished store by a hash of their names: the same again, whatever the machine.

    Args:
        store: The store's folder.
        classes: Those of the 19 of which a patch is wanted, in this order.
        seed: Another seed chooses others.

    Raises:
        StoreError: There is no finished store.
    """
    with open_table(store) as connection:

        def ask(sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = connection.execute(sql, {"seed": str(seed), **parameters}).fetchall()
            return rows

        views = [index for (index,) in ask(_VIEWS, n=N_VIEWS)]
        candidates = dict(ask(_OF_CLASSES, n=N_CANDIDATES))
        snowy, cloudy = (
            ask(_PAIRS.format(flag=f"contains_{what}"), n=N_PAIRS) for what in ("seasonal_snow", "cloud_or_shadow")
        )
        indices = {*views, *(index for row in (*snowy, *cloudy) for index in row[:2])} - {None}
        indices = indices.union(*candidates.values())
        rows = connection.execute(_DESCRIBE, [list(indices)]).fetchall()
    exhibits = {index: Exhibit(index, patch_id, tuple(labels), *rest) for index, patch_id, labels, *rest in rows}
    return Gallery(
        tuple(exhibits[index] for index in views),
        {name: tuple(exhibits[index] for index in candidates[name]) for name in classes if name in candidates},
        *(tuple(Pair(exhibits[one], exhibits.get(clean), same) for one, clean, same in of) for of in (snowy, cloudy)),
    )


_VIEWS: Final = """
    SELECT index FROM patches ORDER BY recommended DESC, has_s1 DESC, md5(patch_id || $seed), index LIMIT $n
"""

_OF_CLASSES: Final = """
    WITH hashed AS (
        SELECT labels_19, index, recommended, country, season, md5_number_lower(patch_id || $seed) AS hash FROM patches
    ),
    carriers AS (SELECT unnest(labels_19) AS class, * EXCLUDE labels_19 FROM hashed),
    drawn AS (
        SELECT class, recommended, arg_min(index, hash, $n) AS indices FROM carriers
        GROUP BY class, recommended, country, season
    ),
    able AS (SELECT * FROM drawn QUALIFY recommended = bool_or(recommended) OVER (PARTITION BY class)),
    turns AS (SELECT class, unnest(indices) AS index, generate_subscripts(indices, 1) AS turn FROM able)
    SELECT class, list(index ORDER BY turn, (index::BIGINT * 40503) % 65521, index)[:$n] FROM turns GROUP BY class
"""
"""Patches that carry each class, recommended ones if there are any: in turn one from each country and season."""

# The last key only spreads the choice; a hash of names would be computed for every patch of the store.
_PAIRS: Final = """
    WITH clean AS (
        SELECT index, labels, country, epsg, x_ul, y_ul FROM patches
        WHERE NOT (contains_seasonal_snow OR contains_cloud_or_shadow)
    ),
    places AS (SELECT DISTINCT epsg, x_ul, y_ul, true AS seen_clean FROM clean),
    chosen AS (
        SELECT index, patch_id, labels, country, epsg, x_ul, y_ul, seen_clean IS NOT NULL AS same_place
        FROM patches AS flagged LEFT JOIN places USING (epsg, x_ul, y_ul) WHERE {flag}
        ORDER BY same_place DESC, md5(patch_id || $seed) LIMIT $n
    )
    SELECT chosen.index, arg_min(clean.index, (
        (clean.epsg, clean.x_ul, clean.y_ul) <> (chosen.epsg, chosen.x_ul, chosen.y_ul),
        clean.country IS DISTINCT FROM chosen.country,
        -len(list_intersect(clean.labels, chosen.labels)),
        (clean.index::BIGINT * 40503 + chosen.index::BIGINT * 30011) % 65521
    )), any_value(same_place)
    FROM chosen LEFT JOIN clean ON true
    GROUP BY chosen.index, chosen.patch_id ORDER BY any_value(same_place) DESC, md5(chosen.patch_id || $seed)
"""
"""Flagged patches, and for each a clean one: of the same place, else of the same country and alike."""


_DESCRIBE: Final = """
    SELECT index, patch_id, labels, country, strftime(coalesce(s2_time, s1_time)::TIMESTAMP, '%Y-%m-%d'), season
    FROM patches
    WHERE list_contains($1, index)
"""


class Studio:
    """Pictures of the patches of one store."""

    def __init__(self, store: Path, layout: Layout, *, synthetic: bool = False) -> None:
        self._store = store
        self._synthetic = synthetic
        self._layout = layout
        candidates = (RGB, FALSE_COLOUR, S1, MAP)
        known = [picture for picture in candidates if set(picture.bands) <= set(layout.bands)]
        self.pictures = tuple(known) or (find_picture(layout.bands[0]),)
        """What can be drawn of every patch, the one that says most first."""
        self._looks: dict[int, tuple[float, ...]] = {}

    def take(self, exhibit: Exhibit, picture: Picture) -> tuple[str, int]:
        """Picture a patch; returns the picture as a data URL, and its pixels in a row.

        Raises:
            StoreError: A chunk is damaged.
        """
        rendered = self._draw(exhibit.index, picture)
        drawn = mark_synthetic(rendered) if self._synthetic else rendered
        return embed_picture(drawn, lossless=picture is MAP), len(drawn)

    def select(self, candidates: Sequence[Exhibit], n: int = N_OF_CLASS) -> tuple[Exhibit, ...]:
        """Select patches that differ in country, season, colour and contrast, the most typical one first.

        Raises:
            StoreError: A chunk is damaged.
        """
        looks = np.array([self._look_at(one.index) for one in candidates])
        features = [
            mark_kinds([one.country for one in candidates], 1.0),
            mark_kinds([one.season for one in candidates], 0.7),
            standardise(looks) / 2,
        ]
        return tuple(candidates[place] for place in choose_varied(np.concatenate(features, axis=1), n))

    def _look_at(self, index: int) -> tuple[float, ...]:
        """Measure the mean red, green and blue of a patch, and how much its brightness varies; each patch once."""
        if index not in self._looks:
            drawn = self._draw(index, self.pictures[0])
            self._looks[index] = (*drawn.mean(axis=(0, 1)).tolist(), float(drawn.mean(axis=2).std()))
        return self._looks[index]

    def _draw(self, index: int, picture: Picture) -> NDArray[np.uint8]:
        planes: dict[str, NDArray[Any]] = {}
        for group in self._layout.groups:
            if set(group.bands) & set(picture.bands):
                planes |= name_planes(group, read_pixels(self._store, self._layout, group, index))
        return render_picture(picture.name, planes)
