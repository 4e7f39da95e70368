"""Draw a part of some patches: nested in every larger part, and with its share of every class."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bigearthnet.errors import OptionError

_GOLDEN: Final = 2**63 * (5**0.5 - 1)
"""The golden ratio's fraction, in units of 2**-64: its multiples are spread most evenly over every interval."""


def draw_fraction(label_bits: NDArray[np.int64], n_classes: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Draw a part of some patches.

    Patches are lined up by the rarest class that they have, and then by all of their classes, so that those that are
    alike stand together, in an order that the seed decides. Patch i on this line gets the fractional part of i times
    the golden ratio, plus an offset by the seed, and those below `fraction` are taken: of every stretch of the line its
    share, up to one or two patches. As the numbers do not depend on `fraction`, a smaller part is inside a larger one.

    Args:
        label_bits: Bit i is set where a patch has class i; shape (patch,).
        n_classes: How many bits there are.
        fraction: Above 0, up to 1; the part has this share of the patches, rounded, and one at least.
        seed: Another one draws others.

    Returns:
        Positions of the patches drawn, ascending.

    Raises:
        OptionError: The fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise OptionError(f"fraction must be above 0 and at most 1, not {fraction}")
    n_patches = len(label_bits)
    random = np.random.default_rng([seed, n_patches])
    shuffled = random.permutation(n_patches)
    bits = label_bits[shuffled]
    counts = np.array([np.count_nonzero(bits >> place & 1) for place in range(n_classes)])
    rarest = np.full(n_patches, n_classes)
    for place in np.argsort(-counts, kind="stable"):  # the rarest last, over all others
        rarest[(bits >> place & 1) > 0] = place
    line = shuffled[np.lexsort((bits, rarest))]
    drawn = np.empty(n_patches, np.uint64)
    steps = np.arange(n_patches, dtype=np.uint64) * np.uint64(_GOLDEN)  # overflow takes the fractional part
    drawn[line] = steps + random.integers(2**64, dtype=np.uint64)
    n_drawn = max(round(fraction * n_patches), 1)
    return np.sort(np.argsort(drawn, kind="stable")[:n_drawn])
