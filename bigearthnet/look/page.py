"""Render a page that needs nothing else to be read: one HTML file with its styles, drawings and pictures inside.

A page is a folder of a package with `report.html.j2`, which extends `page.html.j2`, `report.css` and, if it has to,
`report.js`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

_QUALITY: Final = 90
"""Of WebP: a fifth of the bytes of a lossless picture, and nothing that the eye could tell at this size."""


def render_page(package: str, folder: str, values: Mapping[str, Any]) -> str:
    """Render the page of a folder; names and texts among the values are anybody's, and never become markup.

    Args:
        package: The package that the folder is in, such as `converter`.
        folder: Its name inside of the package.
        values: What the template shows; `synthetic`, a sentence for its top, where the data are made up.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), PackageLoader("bigearthnet", "look")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"count": "{:,.0f}".format, "share": _format_share, "value": _format_value}
    own = files(package) / folder
    parts = [(files(__package__) / "page.css").read_text("utf-8"), (own / "report.css").read_text("utf-8")]
    script = own / "report.js"
    return environment.get_template("report.html.j2").render(
        **values,
        style=Markup("".join(parts)),  # noqa: S704 - our own files
        script=Markup(script.read_text("utf-8") if script.is_file() else ""),  # noqa: S704
    )


def embed_picture(picture: NDArray[np.uint8], *, lossless: bool = False) -> str:
    """Write a picture, (row, col, 3), as a data URI that a page holds inside of it: WebP, which every browser shows."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=lossless, quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _format_share(part: float, whole: float = 1) -> str:
    """Format a part of something in percent; what is not nothing never looks like it."""
    percent = 100 * part / whole if whole else 0
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def _format_value(value: float | None, digits: int = 1) -> str:
    """Format a number as it is if it is whole, or to so many digits; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    return (f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}").replace("-", "\N{MINUS SIGN}")
