"""The backend of Keras, while it is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bigearthnet.commandline import end_on_interrupt


@contextmanager
def load_backend() -> Iterator[None]:
    """Keep TensorFlow's notes on its own build out of the output (its errors stay), and let Ctrl-C end the process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with end_on_interrupt():
        yield
