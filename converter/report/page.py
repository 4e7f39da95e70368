"""Write all that is worth knowing about a store as one page, which needs nothing else to be read."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from bigearthnet import __version__
from bigearthnet.errors import OptionError, OutputError
from bigearthnet.files import write_new
from bigearthnet.labels import CORINE_CODES, LABEL_19_OF_43
from bigearthnet.look.colours import CORINE_COLOURS
from bigearthnet.names import SPLITS, SYNTHETIC_NOTE
from bigearthnet.store.images import read_layout
from bigearthnet.store.summary import describe_parts
from converter.report.census import LAG_BIN_H, Census, Lags, Nomenclature, take_census
from converter.report.charts import ColumnChart, draw_columns, draw_ridge
from converter.report.footprints import count_footprints, draw_map
from converter.report.gallery import Studio, choose_gallery
from converter.report.pixels import OnAdvance, draw_sample, survey_pixels

SEASONS: Final = ("Spring", "Summer", "Fall", "Winter")
"""In the order of the year; the lists of BigEarthNet write them so."""


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made."""

    sample: int = 256
    """Patches whose pixels are read for the histograms, at most."""
    seed: int = 0
    """Another seed draws other patches, for histograms and pictures."""
    overwrite: bool = False
    """Replace a page that is already there."""

    def __post_init__(self) -> None:
        if self.sample < 1:
            raise OptionError(f"expected a sample of at least one patch, found {self.sample}")


def name_report(store: Path) -> Path:
    """Name the page where no name is given: beside the store, since nothing else may lie in it."""
    return store.absolute().with_name(f"{store.absolute().name}-report.html")


def write_report(
    store: Path, path: Path, options: ReportOptions | None = None, advance: OnAdvance = lambda *_: None
) -> None:
    """Write a page about a finished store; the same store and options give the same bytes.

    Args:
        store: The store's folder.
        path: The page.
        options: How it is made.
        advance: Called with the number of patches that are read, and with how many there are to read.

    Raises:
        StoreError: There is no finished store, or a part of it is damaged.
        OutputError: The page is already there and may not be replaced, or it cannot be written.
    """
    options = options or ReportOptions()
    if path.exists() and not options.overwrite:
        raise OutputError(f"{path}: it is already there; replace it with --overwrite, or name another with --out")
    page = render_report(store, options, advance)
    with write_new(path, overwrite=options.overwrite) as temporary:
        temporary.write_text(page, "utf-8")


def render_report(store: Path, options: ReportOptions, advance: OnAdvance = lambda *_: None) -> str:
    """Render the page.

    Raises:
        StoreError: There is no finished store, or a part of it is damaged.
    """
    attributes, arrays = describe_parts(store)
    layout = read_layout(store, attributes)
    census = take_census(store, attributes)
    sample = draw_sample(store, options.sample, options.seed)
    survey = survey_pixels(store, layout, attributes["statistics"], sample, advance)
    return _load_template().render(
        name=store.absolute().name,
        style=Markup((files(__package__) / "report.css").read_text("utf-8")),  # noqa: S704 - the package's own file
        converter_version=__version__,
        attributes=attributes,
        arrays=arrays,
        layout=layout,
        splits=SPLITS,
        census=census,
        seasons=_order_seasons(census),
        corine_codes=CORINE_CODES,
        label_19_of_43=LABEL_19_OF_43,
        charts=_draw_charts(census),
        map=draw_map(count_footprints(store)),
        gallery=choose_gallery(store, attributes["labels_19"], options.seed),
        studio=Studio(store, layout, synthetic=bool(attributes.get("synthetic"))),
        synthetic=SYNTHETIC_NOTE if attributes.get("synthetic") else None,
        survey=survey,
        ridges=[draw_ridge(histogram) for histogram in survey.histograms],
        corine_colours=CORINE_COLOURS,
    )


def _load_template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"count": _format_count, "share": _format_share, "value": _format_value}
    return environment.from_string((files(__package__) / "report.html.jinja").read_text("utf-8"))


def _format_count(n: int) -> str:
    return f"{n:,}"


def _format_share(part: float, whole: float = 1) -> str:
    """Format a part of something in percent; what is not nothing never looks like it."""
    percent = 100 * part / whole if whole else 0
    if 0 < percent < 0.05:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def _format_value(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return (f"{value:,}" if isinstance(value, int) else f"{value:,.1f}").replace("-", "\N{MINUS SIGN}")


def _order_seasons(census: Census) -> list[str | None]:
    known: list[str | None] = [season for season in SEASONS if season in census.seasons]
    return [*known, *(season for season in census.seasons if season not in SEASONS)]


def _draw_charts(census: Census) -> dict[str, ColumnChart]:
    charts = {}
    for name, nomenclature in (("sizes_19", census.labels_19), ("sizes_43", census.labels_43)):
        if nomenclature is not None:
            charts[name] = _draw_sizes(nomenclature, name[-2:])
    if census.months:
        charts["months"] = _draw_months(census.months)
    if census.lags is not None:
        charts["lags"] = _draw_lags(census.lags)
    return charts


def _draw_sizes(nomenclature: Nomenclature, n_classes: str) -> ColumnChart:
    sizes = nomenclature.sizes
    every = range(min(sizes), max(sizes) + 1)
    title = f"labels of {n_classes} a patch"
    return draw_columns(
        f"Patches by number of {title}", [str(size) for size in every], [sizes.get(size, 0) for size in every], title
    )


def _draw_months(months: dict[str, int]) -> ColumnChart:
    first, last = (f"{calendar.month_name[int(month[5:])]} {month[:4]}" for month in (min(months), max(months)))
    # Up to a year, the name of a month says which.
    names = [calendar.month_abbr[int(month[5:])] for month in months] if len(months) <= 12 else list(months)
    title = first if first == last else f"{first} to {last}"
    return draw_columns(f"Patches by month of sensing, {title}", names, list(months.values()), title)


def _draw_lags(lags: Lags) -> ColumnChart:
    bins = range(min(lags.bins), max(lags.bins) + 1)
    edges = [f"{edge * LAG_BIN_H / 24:g}".replace("-", "\N{MINUS SIGN}") for edge in (*bins, bins.stop)]
    title = "days from Sentinel-2 to Sentinel-1"
    return draw_columns(f"Patches by {title}", edges, [lags.bins.get(one, 0) for one in bins], title, on_edges=True)
