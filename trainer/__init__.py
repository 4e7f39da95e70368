"""Train from a packed BigEarthNet store.

Importing this package imports no deep-learning framework: Keras is imported with the first name that needs it, such as
`fit`. See `trainer.adapters` for streams in Keras, tf.data, PyTorch and Grain.
"""

from importlib import import_module
from typing import Any

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

_DEFERRED = {
    "EpochEnded": "trainer.training.events",
    "FitDisplay": "trainer.commands.display",
    "FitOptions": "trainer.training.fit",
    "Recipe": "trainer.run.recipe",
    "StepTrained": "trainer.training.events",
    "TrainingStarted": "trainer.training.events",
    "compare": "trainer.training.compare",
    "evaluate": "trainer.score.evaluate",
    "fit": "trainer.training.fit",
    "list_variants": "trainer.training.variants",
    "predict": "trainer.score.predict",
    "predict_raw": "trainer.score.predict",
}
"""Where names are that are imported when they are asked for."""

__all__ = [
    "Batch",
    "BigEarthNetError",
    "EpochEnded",
    "FitDisplay",
    "FitOptions",
    "OptionError",
    "ReadError",
    "Recipe",
    "RemoteError",
    "RunError",
    "Selection",
    "SelectionError",
    "State",
    "StateError",
    "StepTrained",
    "Store",
    "StoreError",
    "Stream",
    "StreamOptions",
    "TrainingStarted",
    "compare",
    "evaluate",
    "fit",
    "list_variants",
    "open_store",
    "predict",
    "predict_raw",
]


def __getattr__(name: str) -> Any:
    if name not in _DEFERRED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_DEFERRED[name]), name)
