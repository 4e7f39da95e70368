"""The backend of Keras, before it is loaded."""

from __future__ import annotations

import os


def quieten_backend() -> None:
    """Keep TensorFlow's notes on its own build out of the output; its errors stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
