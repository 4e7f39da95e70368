"""Write all that is worth knowing about a store as one page, which needs nothing else to be read."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bigearthnet import __version__
from bigearthnet.bands import SENSORS
from bigearthnet.errors import OptionError, OutputError
from bigearthnet.files import write_new
from bigearthnet.labels import CORINE_CODES, CORINE_COLOURS, LABEL_19_OF_43
from bigearthnet.look.charts import Chart, draw_columns, draw_ridge
from bigearthnet.look.page import render_page
from bigearthnet.look.preview import OnAdvance
from bigearthnet.names import SPLITS, SYNTHETIC_NOTE
from bigearthnet.store.images import read_layout
from bigearthnet.store.layout import MANIFEST
from bigearthnet.store.summary import describe_parts
from converter.report.census import LAG_BIN_H, Census, Lags, Nomenclature, take_census
from converter.report.footprints import count_footprints, draw_map
from converter.report.gallery import N_CANDIDATES, Studio, choose_gallery
from converter.report.pixels import BandHistogram, draw_sample, survey_pixels

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
        raise OutputError(f"{path}: it is already there; replace it with the option overwrite, or name another")
    attributes, arrays = describe_parts(store)
    layout = read_layout(store, attributes)
    census = take_census(store, attributes)
    sample = draw_sample(store, options.sample, options.seed)
    survey = survey_pixels(store, layout, attributes["statistics"], sample, advance)
    values = {
        "name": store.absolute().name,
        "converter_version": __version__,
        "finished": f"{datetime.fromtimestamp((store / MANIFEST).stat().st_mtime, UTC):%Y-%m-%d %H:%M}",
        "sensors": [name for sensor, name in SENSORS.items() if sensor in layout.sensors],
        "attributes": attributes,
        "arrays": arrays,
        "layout": layout,
        "splits": SPLITS,
        "census": census,
        "seasons": sorted(census.seasons, key=lambda season: SEASONS.index(season) if season in SEASONS else 4),
        "corine_codes": CORINE_CODES,
        "label_19_of_43": LABEL_19_OF_43,
        "charts": _draw_charts(census),
        "map": draw_map(count_footprints(store)),
        "gallery": choose_gallery(store, attributes["labels_19"], options.seed),
        "n_candidates": N_CANDIDATES,
        "studio": Studio(store, layout, synthetic=bool(attributes.get("synthetic"))),
        "synthetic": SYNTHETIC_NOTE if attributes.get("synthetic") else None,
        "survey": survey,
        "ridges": {histogram.band: _draw_histogram(histogram) for histogram in survey.histograms},
        "corine_colours": CORINE_COLOURS,
    }
    page = render_page("converter", "report", values)
    with write_new(path, overwrite=options.overwrite) as temporary:
        temporary.write_text(page, "utf-8")


def _draw_charts(census: Census) -> dict[str, Chart]:
    charts = {}
    for name, nomenclature in (("sizes_19", census.labels_19), ("sizes_43", census.labels_43)):
        if nomenclature is not None:
            charts[name] = _draw_sizes(nomenclature, name[-2:])
    if census.months:
        charts["months"] = _draw_months(census.months)
    if census.lags is not None:
        charts["lags"] = _draw_lags(census.lags)
    return charts


def _draw_sizes(nomenclature: Nomenclature, n_classes: str) -> Chart:
    sizes = nomenclature.sizes
    every = range(min(sizes), max(sizes) + 1)
    title = f"labels of {n_classes} a patch"
    return draw_columns(
        f"Patches by number of {title}", [str(size) for size in every], [sizes.get(size, 0) for size in every], title
    )


def _draw_months(months: dict[str, int]) -> Chart:
    first, last = (f"{calendar.month_name[int(month[5:])]} {month[:4]}" for month in (min(months), max(months)))
    # Up to a year, the name of a month says which.
    names = [calendar.month_abbr[int(month[5:])] for month in months] if len(months) <= 12 else list(months)
    title = first if first == last else f"{first} to {last}"
    return draw_columns(f"Patches by month of sensing, {title}", names, list(months.values()), title)


def _draw_lags(lags: Lags) -> Chart:
    bins = range(min(lags.bins), max(lags.bins) + 1)
    edges = [f"{edge * LAG_BIN_H / 24:g}".replace("-", "\N{MINUS SIGN}") for edge in (*bins, bins.stop)]
    title = "days from Sentinel-2 to Sentinel-1"
    return draw_columns(f"Patches by {title}", edges, [lags.bins.get(one, 0) for one in bins], title, on_edges=True)


def _draw_histogram(histogram: BandHistogram) -> Chart:
    first, last, mean, std = histogram.first, histogram.last, histogram.mean, histogram.std
    unit = "dB" if histogram.sensor == "s1" else "reflectance x 10,000"
    known = "" if mean is None or std is None else f", mean {mean:,.1f}, standard deviation {std:,.1f}"
    label = f"Histogram of {histogram.band} from {first:,.0f} to {last:,.0f} {unit}{known}"
    return draw_ridge(label, histogram.counts, (first, last), mean, std)
