"""Draw the patches of a sample at random, and say what such a sample finds."""

from __future__ import annotations

import math
import random
import re
from fractions import Fraction
from typing import Final

from bigearthnet.errors import OptionError

_SIZE: Final = re.compile(r"[0-9]+|[0-9]+(\.[0-9]+)?%")


def count_sample(size: str, n_patches: int) -> int:
    """Return how many patches a sample has: `1000`, or `5%` of all of them, rounded up.

    Raises:
        OptionError: It is neither, or none at all.
    """
    if not _SIZE.fullmatch(size):
        raise OptionError(f"expected a sample of a number of patches or a percentage, such as 1000 or 5%, not {size!r}")
    n = math.ceil(Fraction(size[:-1]) * n_patches / 100) if size.endswith("%") else int(size)
    if n < 1:
        raise OptionError(f"expected a sample of at least one patch, not {size}")
    return min(n, n_patches)


def draw_rows(n_sample: int, n_patches: int, seed: int) -> frozenset[int]:
    """Draw rows of which each set of so many is as likely as any other, so that nothing can lie between them."""
    return frozenset(random.Random(seed).sample(range(n_patches), n_sample))  # noqa: S311 - nothing is secret


def find_probability(n_damaged: int, n_sample: int, n_patches: int) -> float:
    """Return the probability that a random sample has at least one of the damaged patches (hypergeometric)."""
    missed = ((n_patches - n_sample - i) / (n_patches - i) for i in range(n_damaged))
    return 1 - math.prod(max(0.0, factor) for factor in missed)
