"""What the BigEarthNet data are, as published and as stored, and how they look; no dask, no Keras."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError(
        "bigearthnet-store runs on Linux and macOS, not on Windows, which lacks the locks of files that it "
        "needs; install it in the Windows Subsystem for Linux (wsl --install)"
    )
