"""Write what TensorBoard shows. Needs TensorBoard alone, on any backend."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bigearthnet.errors import MissingPackageError


@contextmanager
def open_log(path: Path) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Add a file to a folder of logs, and give what writes the record of an epoch to it.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - an extra
            from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
            from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(f"TensorBoard cannot be written ({error}); install it or go without") from error
    writer = EventFileWriter(str(path))

    def write(record: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in record.items() if name != "epoch"]
        writer.add_event(Event(step=int(record["epoch"]), wall_time=time.time(), summary=Summary(value=values)))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
