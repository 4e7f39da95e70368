"""Write what TensorBoard shows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from bigearthnet.errors import MissingPackageError


class EventLog:
    """Scalars of a training, a value an epoch.

    Args:
        path: Folder of the log; each process that writes adds a file.

    Raises:
        MissingPackageError: TensorBoard or TensorFlow is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own dependencies
                import_module("tensorboard")  # TensorFlow fails without it, much later
                import tensorflow as tf  # noqa: PLC0415 - training on other backends does without
        except ImportError as error:
            raise MissingPackageError(f"TensorBoard cannot be written ({error}); install it or go without") from error
        self._summary: Any = tf.summary
        self._writer = tf.summary.create_file_writer(str(path))

    def write(self, record: Mapping[str, float]) -> None:
        """Write the record of an epoch."""
        with self._writer.as_default():
            for name, value in record.items():
                if name != "epoch":
                    self._summary.scalar(name, value, step=int(record["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
