"""Write on a picture that what it shows is made up."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bigearthnet.look.picture import enlarge
from bigearthnet.names import SYNTHETIC_MARK

_LEAST_PX: Final = 120
"""Width at which the word can be read."""
_BACK: Final = "#8a1538"


def mark_synthetic(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write "SYNTHETIC" along the lower edge of a square picture, (row, col, 3); a small one is enlarged first."""
    image = Image.fromarray(enlarge(picture, math.ceil(_LEAST_PX / len(picture))))
    font = ImageFont.load_default(max(10, image.width // 14))
    draw = ImageDraw.Draw(image)
    _, top, _, bottom = draw.textbbox((0, 0), SYNTHETIC_MARK, font)
    edge = image.height - (bottom - top) - 4
    draw.rectangle((0, edge, image.width, image.height), fill=_BACK)
    draw.text((image.width / 2, edge + 2 - top), SYNTHETIC_MARK, "white", font, anchor="ma")
    return np.array(image)
