"""A page about a finished store: counts, map, histograms and pictures, in one HTML file without any script."""

from converter.report.page import ReportOptions, name_report, write_report

__all__ = ["ReportOptions", "name_report", "write_report"]
