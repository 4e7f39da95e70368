"""Train from a packed BigEarthNet store.

Importing this package imports no deep-learning framework; see `trainer.adapters.keras_data` for Keras and tf.data.
"""

from bigearthnet.errors import (
    BigEarthNetError,
    OptionError,
    ReadError,
    RemoteError,
    RunError,
    SelectionError,
    StateError,
    StoreError,
)
from trainer.source.store import Selection, Store, open_store
from trainer.stream.options import StreamOptions
from trainer.stream.state import State
from trainer.stream.stream import Batch, Stream

__all__ = [
    "Batch",
    "BigEarthNetError",
    "OptionError",
    "ReadError",
    "RemoteError",
    "RunError",
    "Selection",
    "SelectionError",
    "State",
    "StateError",
    "Store",
    "StoreError",
    "Stream",
    "StreamOptions",
    "open_store",
]
