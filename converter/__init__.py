"""From the archive to the store: pack BigEarthNet once, verify, look at it and export from it.

from converter.conversion import ConvertOptions, convert

summary = convert("/data/BigEarthNet-v1.0", "/data/ben", ConvertOptions(codec="zstd"))
"""
