"""Which patches to make up: listed v1.0 patches, and what they are called and said to be in v2.0."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import nsmallest
from random import Random
from typing import Final

from bigearthnet.archive.lists import OfficialLists
from bigearthnet.errors import OptionError
from bigearthnet.names import Dataset, PatchName, parse_patch_name
from converter.sample.classes import draw_labels

_ORBIT_EPOCH: Final = datetime(2017, 1, 1)
_ORBITS_PER_DAY: Final = 14.3
_ORBITS: Final = 143
_ORBIT_SHIFT: Final = {"S2A": 26.98, "S2B": 98.48}
"""Sentinel-2 flies 143 orbits in 10 days; fitted to the orbit numbers of the v2.0 names, all of which it gives."""

_BLOCK: Final = 30
"""Side, in patches, of the squares of a tile that lie in one split together."""
_SPLIT_SHARES: Final = ("train", "train", "validation", "test")
"""Splits of four squares on average: roughly the shares of v2.0."""


@dataclass(frozen=True, slots=True)
class Brief:
    """One patch to make up."""

    name: str
    """Of the Sentinel-2 patch in v1.0."""
    s1_name: str
    country: str
    season: str
    snow: bool
    cloud: bool
    with_19: bool
    """The patch must have a label with a 19-class form, or must have none."""
    seed: int

    @property
    def tile(self) -> str:
        """MGRS tile, which only the Sentinel-1 name tells."""
        return self.s1_name.split("_")[-3]

    @property
    def parsed(self) -> PatchName:
        """What the v1.0 name tells."""
        parsed = parse_patch_name(self.name)
        assert parsed is not None, self.name  # the packaged lists have no other names
        return parsed

    @property
    def sensed(self) -> datetime:
        """When Sentinel-2 saw the patch, by its name, whose hour may lack its zero and whose seconds may exceed 59."""
        date, clock = self.name.split("_")[2].split("T")
        clock = clock.zfill(6)
        return datetime.strptime(f"{date}{clock[:4]}{min(int(clock[4:]), 59):02}", "%Y%m%d%H%M%S")

    @property
    def s1_sensed(self) -> datetime:
        """When Sentinel-1 saw the patch."""
        return datetime.strptime(self.s1_name.split("_")[4], "%Y%m%dT%H%M%S")

    @property
    def orbit(self) -> int:
        """Relative orbit of Sentinel-2."""
        days = (self.sensed - _ORBIT_EPOCH) / timedelta(days=1)
        return round(days * _ORBITS_PER_DAY - _ORBIT_SHIFT[self.parsed.satellite]) % _ORBITS or _ORBITS

    @property
    def v2_name(self) -> str:
        """A name as v2.0 has them. Synthetic: most are the true ones, but the official list is not at hand to tell."""
        parsed = self.parsed
        return (
            f"{parsed.satellite}_MSIL2A_{self.sensed:%Y%m%dT%H%M%S}_N9999_R{self.orbit:03}_T{self.tile}"
            f"_{parsed.column:02}_{parsed.row:02}"
        )

    @property
    def v2_split(self) -> str:
        """A split as v2.0 makes them: neighbours lie in the same one. Synthetic too."""
        parsed = self.parsed
        place = f"{self.tile} {parsed.column // _BLOCK} {parsed.row // _BLOCK}"
        return _SPLIT_SHARES[hash_text(self.seed, "split", place) % len(_SPLIT_SHARES)]

    def draw_details(self) -> tuple[tuple[str, ...], timedelta]:
        """Draw the labels, and how long after sensing the source product was made."""
        # Random.random is the one stream that Python promises never to change.
        draw = Random(hash_text(self.seed, "labels", self.name)).random  # noqa: S311 - nothing is secret
        labels = draw_labels(self.country, draw, with_19=self.with_19)
        return labels, timedelta(seconds=int(1200 * draw()))


def choose_briefs(
    lists: OfficialLists, dataset: Dataset, real: Collection[str], n_patches: int, seed: int
) -> list[Brief]:
    """Choose listed patches to make up: the first in the order of their hashes, so that larger samples extend smaller.

    Args:
        lists: The official v1.0 lists.
        dataset: v2.0 has no patches without a 19-class label, and no real ones.
        real: Names of the real patches, which are never made up.
        n_patches: Patches of the sample, real ones included.
        seed: Decides which.

    Raises:
        OptionError: There are not so many.
    """
    left_out = {*real, *(lists.no_19 if dataset == "v2" else ())}
    free = [name for name in lists.pairing_of if name not in left_out]
    n_real = len(real) if dataset == "v1" else 0
    if n_patches > len(free) + n_real:
        raise OptionError(f"a sample can have at most the {len(free) + n_real:,} listed patches, not {n_patches:,}")
    chosen = nsmallest(n_patches - n_real, free, key=lambda name: hash_text(seed, "choice", name))
    return [_make_brief(name, lists, seed) for name in chosen]


def hash_text(seed: int, purpose: str, text: str) -> int:
    """Hash a text to an integer of 128 bits, another for each seed and purpose."""
    return int.from_bytes(blake2b(f"{seed} {purpose} {text}".encode(), digest_size=16).digest(), "big")


def _make_brief(name: str, lists: OfficialLists, seed: int) -> Brief:
    pairing = lists.pairing_of[name]
    return Brief(
        name,
        s1_name=pairing.s1_name,
        country=pairing.country,
        season=pairing.season,
        snow=name in lists.snow,
        cloud=name in lists.cloud,
        with_19=name not in lists.no_19,
        seed=seed,
    )
