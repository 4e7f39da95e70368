"""A training on one page: what it was, how it went, and where its model is right and wrong. No framework."""

from trainer.report.page import Report, write_report
from trainer.report.words import comment

__all__ = ["Report", "comment", "write_report"]
