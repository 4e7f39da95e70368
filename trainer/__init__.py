"""Train from a packed BigEarthNet store.

Importing this package imports no deep-learning framework; see `trainer.keras_data` for Keras and tf.data.
"""

from trainer.errors import (
    OptionError,
    ReadError,
    RemoteError,
    RunError,
    SelectionError,
    StateError,
    StoreFormatError,
    TrainerError,
)
from trainer.options import StreamOptions
from trainer.state import State
from trainer.store import Selection, Store, open_store
from trainer.stream import Batch, Stream

__all__ = [
    "Batch",
    "OptionError",
    "ReadError",
    "RemoteError",
    "RunError",
    "Selection",
    "SelectionError",
    "State",
    "StateError",
    "Store",
    "StoreFormatError",
    "Stream",
    "StreamOptions",
    "TrainerError",
    "open_store",
]
