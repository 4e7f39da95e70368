"""Lay pictures out on one contact sheet, with captions, and write PNG files, with Pillow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from bigearthnet.errors import OptionError
from bigearthnet.look.picture import enlarge
from bigearthnet.names import SYNTHETIC_MARK

MAX_PIXELS: Final = 120_000_000
"""Pixels of a sheet at most, 360 MB in memory; much larger pictures do not open in browsers."""

_MARGIN: Final = 16
_GAP: Final = 4
"""Pixels between the pictures of one patch."""
_MARKED_PX: Final = 120
"""Width at which the mark of a synthetic picture can be read."""
_FRAME: Final = "#bdc1c6"
"""Of each picture, outside of it, so that snow ends somewhere."""
_ASPECT: Final = 1.5
"""Width by height that the rows of patches are arranged for."""

Tone = Literal["warning", "strong", "plain", "faint"]
_TONES: Final[dict[Tone, tuple[str, float]]] = {
    "warning": ("#8a1538", 1.0),
    "strong": ("#111111", 1.0),
    "plain": ("#3c4043", 0.9),
    "faint": ("#5f6368", 0.8),
}
"""Colour and relative size of type; the contrast to white is at least 6:1."""

_LEADING: Final = 1.3
"""Distance of lines, in heights of the type."""

_WORDS: Final = re.compile(r"[^\s_]+_*|_+")
"""What a line may be broken between: words, and the parts of a patch name."""


@dataclass(frozen=True)
class TextLine:
    """A line of a caption, wrapped where it is too long."""

    text: str
    tone: Tone = "plain"
    swatch: tuple[int, int, int] | None = None
    """Colour of a small square before it."""


@dataclass(frozen=True)
class Tile:
    """A patch on the sheet."""

    pictures: tuple[NDArray[np.uint8], ...]
    """Side by side, each square, (row, col, 3), of a size that divides that of the largest."""
    caption: tuple[TextLine, ...]


@dataclass(frozen=True)
class SheetLayout:
    """How tiles are arranged."""

    n_tiles: int
    n_pictures: int
    """Pictures of one tile."""
    side: int
    """Pixels that each picture is wide and high on the sheet."""

    def __post_init__(self) -> None:
        self.check_size(self.width, math.ceil(self.n_tiles / self.n_columns) * self.side)

    @property
    def tile_width(self) -> int:
        """Width of a tile without margin."""
        return self.n_pictures * (self.side + _GAP) - _GAP

    @property
    def n_columns(self) -> int:
        """Tiles in a row."""
        return max(1, min(self.n_tiles, round(math.sqrt(_ASPECT * self.n_tiles / self.n_pictures))))

    @property
    def width(self) -> int:
        """Width of the sheet."""
        return _MARGIN + self.n_columns * (self.tile_width + _MARGIN)

    @property
    def type_size(self) -> int:
        """Height of the largest type of a caption; it grows with the pictures."""
        return max(11, min(17, round(self.tile_width / 16)))

    def check_size(self, width: int, height: int) -> None:
        """Make sure that a sheet is not too large.

        Raises:
            OptionError: It is.
        """
        if width * height > MAX_PIXELS:
            raise OptionError(
                f"a sheet of {self.n_tiles:,} patches would have {width * height / 1e6:,.0f} million pixels, at most "
                f"{MAX_PIXELS / 1e6:,.0f} million are drawn; choose fewer patches or a smaller scale, or write a file "
                "for each"
            )


def draw_sheet(
    title: Sequence[TextLine], tiles: Sequence[Tile], layout: SheetLayout, *, synthetic: bool = False
) -> Image.Image:
    """Draw a contact sheet, left to right and top to bottom.

    Args:
        title: Lines above everything.
        tiles: As many as the layout says.
        layout: How they are arranged.
        synthetic: Write on each picture that it is made up.

    Raises:
        OptionError: It would be too large.
    """
    head = _Text(title, layout.width - 2 * _MARGIN, 18)
    captions = [_Text(tile.caption, layout.tile_width, layout.type_size) for tile in tiles]
    rows = [range(len(tiles))[start : start + layout.n_columns] for start in range(0, len(tiles), layout.n_columns)]
    heights = [layout.side + _GAP + max(captions[position].height for position in row) + _MARGIN for row in rows]
    height = 2 * _MARGIN + head.height + sum(heights)
    layout.check_size(layout.width, height)
    sheet = Image.new("RGB", (layout.width, height), "white")
    draw = ImageDraw.Draw(sheet)
    head.draw(draw, _MARGIN, _MARGIN)
    top = 2 * _MARGIN + head.height
    for row, row_height in zip(rows, heights, strict=True):
        for column, position in enumerate(row):
            left = _MARGIN + column * (layout.tile_width + _MARGIN)
            for number, picture in enumerate(tiles[position].pictures):
                at = (left + number * (layout.side + _GAP), top)
                sheet.paste(enlarge_picture(picture, layout.side, synthetic=synthetic), at)
                draw.rectangle((at[0] - 1, at[1] - 1, at[0] + layout.side, at[1] + layout.side), outline=_FRAME)
            captions[position].draw(draw, left, top + layout.side + _GAP)
        top += row_height
    return sheet


def write_png(image: Image.Image, path: Path, text: Iterable[TextLine]) -> None:
    """Write a picture as PNG, with words for it in the file as its description."""
    info = PngInfo()
    info.add_itxt("Description", "\n".join(line.text for line in text))
    image.save(path, "PNG", pnginfo=info)


def enlarge_picture(picture: NDArray[np.uint8], side: int, *, synthetic: bool) -> Image.Image:
    """Enlarge a square picture, (row, col, 3), to a side that is a multiple of its own; mark it if it is synthetic."""
    whole = enlarge(picture, side // len(picture))
    return Image.fromarray(mark_synthetic(whole) if synthetic else whole)


def mark_synthetic(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write "SYNTHETIC" along the lower edge of a square picture, (row, col, 3); a small one is enlarged first."""
    image = Image.fromarray(enlarge(picture, math.ceil(_MARKED_PX / len(picture))))
    font = ImageFont.load_default(max(10, image.width // 14))
    draw = ImageDraw.Draw(image)
    _, top, _, bottom = draw.textbbox((0, 0), SYNTHETIC_MARK, font)
    edge = image.height - (bottom - top) - 4
    draw.rectangle((0, edge, image.width, image.height), fill=_TONES["warning"][0])
    draw.text((image.width / 2, edge + 2 - top), SYNTHETIC_MARK, "white", font, anchor="ma")
    return np.array(image)


class _Text:
    """Lines of text, wrapped to a width."""

    def __init__(self, lines: Sequence[TextLine], width: int, size: int) -> None:
        self._lines: list[tuple[TextLine, ImageFont.FreeTypeFont, int, list[str]]] = []
        """Each line, its font, the indent of all that stands below its start, and its parts."""
        self.height = 0
        for line in lines:
            font = _load_font(round(size * _TONES[line.tone][1]))
            indent = round(font.size * (1.2 if line.swatch else 0.8))
            wrapped = _wrap(line.text, font, width - indent)
            self._lines.append((line, font, indent, wrapped))
            self.height += len(wrapped) * round(font.size * _LEADING)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        for line, font, indent, wrapped in self._lines:
            if line.swatch:
                side = round(font.size * 0.8)
                box = (left, top + round(font.size * 0.25), left + side, top + round(font.size * 0.25) + side)
                draw.rectangle(box, fill=line.swatch, outline="#5f6368")
            for number, text in enumerate(wrapped):
                inner = indent if number or line.swatch else 0
                draw.text((left + inner, top), text, fill=_TONES[line.tone][0], font=font)
                top += round(font.size * _LEADING)


def _load_font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of a width in pixels; a longer word has a line to itself."""
    lines = [""]
    end = 0
    for word in _WORDS.finditer(text):
        between = " " if word.start() > end else ""
        end = word.end()
        if lines[-1] and font.getlength(lines[-1] + between + word[0]) > width:
            lines.append(word[0])
        else:
            lines[-1] += (between if lines[-1] else "") + word[0]
    return lines
