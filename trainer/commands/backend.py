"""The backend of Keras, while it is loaded."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from bigearthnet.commandline import end_on_interrupt
from bigearthnet.errors import MissingPackageError


@contextmanager
def load_backend(*packages: str) -> Iterator[None]:
    """Import what needs Keras: Ctrl-C ends the process, and what libraries always say of themselves is not shown.

    Args:
        packages: What else must be there.

    Raises:
        MissingPackageError: Something is not installed. Said before anything is imported, which takes long.
    """
    backend = _name_backend()
    missing = [name for name in ("keras", backend, *packages) if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"{', '.join(missing)}: not installed; pip install 'bigearthnet-store[train]', or let KERAS_BACKEND name "
            f"another backend than {backend}"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with end_on_interrupt(), _hold_notes():
        yield
        from trainer.model.devices import start_backend  # noqa: PLC0415 - takes long

        start_backend()


def _name_backend() -> str:
    """Name the backend that Keras will choose."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    configured = "tensorflow"
    with suppress(OSError, ValueError, KeyError, TypeError):
        configured = str(json.loads((home / "keras.json").read_text())["backend"])
    return os.environ.get("KERAS_BACKEND") or configured


@contextmanager
def _hold_notes() -> Iterator[None]:
    """Hold back what is written to stderr, by whatever library; show it if there is an error."""
    sys.stderr.flush()
    with TemporaryFile() as held, open(os.dup(2), "wb", buffering=0) as shown:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            shown.write(held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown.fileno(), 2)
