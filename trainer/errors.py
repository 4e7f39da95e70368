"""What can go wrong, as one tree.

TrainerError
├── StoreFormatError   not a finished store of a format that this version reads, or table and arrays do not match
├── SelectionError     no such split, class list or column; or a choice that leaves no patch
├── OptionError        an option out of range, or options that contradict one another
├── StateError         a saved position that belongs to another store, selection or set of options
├── RunError           a training's folder or model that cannot be used: finished, of other options, of another model
├── ReadError          a shard or chunk that is missing or damaged
└── RemoteError        an object that could not be fetched

Every error carries one message and nothing else, so it survives pickling between processes.
"""


class TrainerError(Exception):
    """Anything that this package raises on purpose."""


class StoreFormatError(TrainerError):
    """The store cannot be opened."""


class SelectionError(TrainerError):
    """The patches asked for cannot be selected."""


class OptionError(TrainerError, ValueError):
    """An option is out of range or contradicts another."""


class StateError(TrainerError):
    """A stream cannot be resumed from this state."""


class RunError(TrainerError):
    """A training's folder or a model cannot be used."""


class ReadError(TrainerError):
    """Pixels cannot be read."""


class RemoteError(TrainerError):
    """An object of a remote store cannot be fetched."""
