"""Make small archives in the exact form of BigEarthNet, without a download."""

from converter.sample.product import SampleForm
from converter.sample.write import SampleSummary, write_sample

__all__ = ["SampleForm", "SampleSummary", "write_sample"]
