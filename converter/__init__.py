"""Pack the raw BigEarthNet archive once into a sharded Zarr v3 store and a GeoParquet table.

from converter.convert import ConvertOptions, convert

summary = convert("/data/BigEarthNet-v1.0", "/data/ben", ConvertOptions(codec="zstd"))
"""

__version__ = "0.1.0"
