"""The backend of Keras, while it is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from bigearthnet.commandline import end_on_interrupt, hold_notes
from bigearthnet.errors import MissingPackageError
from bigearthnet.machine import advise_install


@contextmanager
def load_backend(*packages: str) -> Iterator[None]:
    """Import what needs Keras: Ctrl-C ends the process, and what libraries always say of themselves is not shown.

    Args:
        packages: What else must be there.

    Raises:
        MissingPackageError: Something is not installed. Said before anything is imported, which takes long.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with end_on_interrupt():
        backend = name_backend()
        missing = [name for name in ("keras", backend, *packages) if find_spec(name) is None]
    if missing:
        extra = f"train,{backend}" if backend in {"jax", "torch"} else "train"
        raise MissingPackageError(
            f"{', '.join(missing)}: not installed; {advise_install(extra)}, or let KERAS_BACKEND name "
            f"another backend than {backend}"
        )
    with end_on_interrupt(), hold_notes():
        yield
        from trainer.model.devices import start_backend  # noqa: PLC0415 - takes long

        start_backend()


def name_backend() -> str:
    """Name the backend that Keras will choose."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    configured = "tensorflow"
    with suppress(OSError, ValueError, KeyError, TypeError):
        configured = str(json.loads((home / "keras.json").read_text())["backend"])
    return os.environ.get("KERAS_BACKEND") or configured
