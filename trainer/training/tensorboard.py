"""Write what TensorBoard shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from bigearthnet.errors import MissingPackageError


@contextmanager
def open_log(path: Path) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Add a file to a folder of logs, and give what writes the record of an epoch to it.

    Raises:
        MissingPackageError: TensorBoard or TensorFlow is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            import_module("tensorboard")  # TensorFlow fails without it, much later
            import tensorflow as tf  # noqa: PLC0415 - training on other backends does without
    except ImportError as error:
        raise MissingPackageError(f"TensorBoard cannot be written ({error}); install it or go without") from error
    writer = tf.summary.create_file_writer(str(path))

    def write(record: Mapping[str, float]) -> None:
        with writer.as_default():
            for name, value in record.items():
                if name != "epoch":
                    tf.summary.scalar(name, value, step=int(record["epoch"]))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
