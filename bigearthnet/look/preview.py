"""Draw patches as PNG files or on a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bigearthnet.bands import S2_10M
from bigearthnet.errors import OptionError
from bigearthnet.files import check_new, write_new
from bigearthnet.labels import CORINE_CODES, CORINE_COLOURS
from bigearthnet.look.album import Album, View
from bigearthnet.look.picture import MAP, NEUTRAL, RGB, S1, STRETCHES, Picture, Stretch, find_picture, render_picture
from bigearthnet.look.sheet import SheetLayout, TextLine, Tile, draw_sheet, enlarge_picture, write_png
from bigearthnet.names import SYNTHETIC_NOTE
from bigearthnet.quantity import format_count

OnAdvance = Callable[[int, int], None]
"""Called with how many patches are done, and how many there are."""

_CLASS_OF: Final = {code: name for name, code in CORINE_CODES.items()}


@dataclass(frozen=True)
class PreviewOptions:
    """What to draw, and how."""

    pictures: tuple[str, ...] = ()
    """Names of `bigearthnet.look.picture.PICTURES`; the first that the patches have bands for, if empty."""
    stretch: Stretch = "fixed"
    scale: int = 2
    """Every picture is 120 pixels times this wide; pixels of 20 m and 60 m are repeated more often."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise OptionError(f"expected a scale of 1 or more, not {self.scale}")
        for name in self.pictures:
            find_picture(name)

    @property
    def side(self) -> int:
        """Width and height of a picture in pixels."""
        return S2_10M.size * self.scale


def write_pictures(album: Album, options: PreviewOptions, folder: Path, advance: OnAdvance = lambda *_: None) -> int:
    """Write one PNG a patch and picture, `<patch>_<picture>.png`, and return how many.

    Raises:
        OptionError: The patches lack a band, or a file is already there or cannot be written.
    """
    pictures = _choose_pictures(album, options.pictures)
    paths = [[folder / f"{name}_{picture.name}.png" for picture in pictures] for name in album.names]
    check_new(path for of_patch in paths for path in of_patch)
    for position, of_patch in enumerate(paths):
        view = album.read(position, _list_bands(pictures))
        for picture, path in zip(pictures, of_patch, strict=True):
            drawn = render_picture(picture.name, view.planes, options.stretch)
            image = enlarge_picture(drawn, options.side, synthetic=album.is_synthetic)
            with write_new(path) as temporary:
                write_png(image, temporary, [*_warn(album), *_caption(view, [picture])])
        advance(position + 1, len(paths))
    return len(paths) * len(pictures)


def write_sheet(album: Album, options: PreviewOptions, path: Path, advance: OnAdvance = lambda *_: None) -> int:
    """Write one PNG of all patches with labels, date, country and name, and return how many there are.

    Raises:
        OptionError: The patches lack a band, the sheet would be too large, or it is already there or cannot be written.
    """
    check_new([path])
    pictures = _choose_pictures(album, options.pictures)
    layout = SheetLayout(len(album.names), len(pictures), options.side)
    title = [*_warn(album), *_entitle(pictures, options.stretch, layout)]
    tiles = []
    for position in range(layout.n_tiles):
        view = album.read(position, _list_bands(pictures))
        drawn = tuple(render_picture(picture.name, view.planes, options.stretch) for picture in pictures)
        tiles.append(Tile(drawn, tuple(_caption(view, pictures))))
        advance(len(tiles), layout.n_tiles)
    words = [*title, *(line for tile in tiles for line in tile.caption)]
    with write_new(path) as temporary:
        write_png(draw_sheet(title, tiles, layout, synthetic=album.is_synthetic), temporary, words)
    return layout.n_tiles


def _choose_pictures(album: Album, names: Sequence[str]) -> tuple[Picture, ...]:
    pictures = tuple(dict.fromkeys(map(find_picture, names)))
    if not pictures:
        pictures = tuple(picture for picture in (RGB, S1, MAP) if _has(album, picture))[:1]
    if not pictures:
        pictures = tuple(map(find_picture, album.bands[:1]))
    for picture in pictures:
        if not _has(album, picture):
            missing = ", ".join(band for band in picture.bands if band not in album.bands)
            raise OptionError(
                f"expected {missing} to draw {picture.name} from, found patches that have only "
                f"{', '.join(album.bands) or 'no band'}; choose another picture"
            )
    return pictures


def _has(album: Album, picture: Picture) -> bool:
    return set(picture.bands) <= set(album.bands)


def _list_bands(pictures: Sequence[Picture]) -> list[str]:
    return list(dict.fromkeys(band for picture in pictures for band in picture.bands))


def _warn(album: Album) -> list[TextLine]:
    """Say of a sample that it is one."""
    return [TextLine(SYNTHETIC_NOTE, "warning")] if album.is_synthetic else []


def _entitle(pictures: Sequence[Picture], stretch: Stretch, layout: SheetLayout) -> list[TextLine]:
    titles = " | ".join(picture.title for picture in pictures)
    lines = [TextLine(f"{format_count(layout.n_tiles, 'patch')}: {titles}", "strong")]
    return (
        lines
        if all(picture is MAP for picture in pictures)
        else [*lines, TextLine(f"Dark to bright: {STRETCHES[stretch]}", "faint")]
    )


def _caption(view: View, pictures: Sequence[Picture]) -> Iterator[TextLine]:
    """Yield the classes, one a line, then when and where, then the name, and what the colours of a map mean."""
    yield from (TextLine(label, "strong") for label in view.labels)
    radar_only = all(set(picture.bands) <= set(S1.bands) for picture in pictures)
    day = view.day_of.get("s1" if radar_only else "s2")
    facts = [fact for fact in (day, view.country, view.split) if fact]
    if facts:
        yield TextLine(" · ".join(facts))
    yield TextLine(view.name, "faint")
    if MAP in pictures:
        yield from _explain_map(view)


def _explain_map(view: View) -> Iterator[TextLine]:
    """Yield the classes of a map with their colours and shares, the largest first."""
    codes = view.planes[MAP.bands[0]]
    for code, n_pixels in Counter(codes.ravel().tolist()).most_common():
        share = f"{100 * n_pixels / codes.size:.0f} %" if n_pixels >= codes.size / 200 else "< 1 %"
        name = _CLASS_OF.get(code, f"code {code}, not a class")
        yield TextLine(f"{share} {name}", "plain", CORINE_COLOURS.get(code, NEUTRAL))
