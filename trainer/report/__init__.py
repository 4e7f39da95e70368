"""A training on one page: what it was, how it went, and where its model is right and wrong. No framework."""

from trainer.report.page import Report, write_report

__all__ = ["Report", "write_report"]
