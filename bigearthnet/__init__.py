"""What the BigEarthNet data are, as published and as stored, and how they look; no dask, no Keras."""

__version__ = "0.1.0"
