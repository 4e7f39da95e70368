"""Every error that this project raises on purpose.

    BigEarthNetError
    ├── SourceError            the raw archive, or a list that describes it, cannot be used
    │   └── PatchError         one patch of the archive is bad; the others may be fine
    ├── OptionError            an option out of range, or options that contradict one another (a ValueError too)
    ├── SelectionError         no such patch, split, class list or column; SQL that cannot be answered; nothing chosen
    ├── OutputError            a file or folder is already there, or cannot be written
    │   └── BusyError          another process is writing there
    ├── MissingPackageError    an optional package is not installed
    ├── ClusterError           the dask cluster cannot be used, or was lost
    ├── StoreError             no finished store of a format that this version reads, or a damaged one
    │   └── ReadError          pixels of a store that are missing or damaged
    ├── VerificationError      a finished store is not what it claims to be
    ├── RemoteError            an object of a remote store could not be fetched
    ├── StateError             a saved position that belongs to another store, selection or set of options
    └── RunError               a training's folder or model that cannot be used

Messages name the file or patch, what was expected, what was found and what to do about it. All of them pickle, since
many are born in a worker process and reported in another.
"""

from __future__ import annotations

from typing import Final

EXIT_INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


class BigEarthNetError(Exception):
    """Base of every error that is raised on purpose."""


class SourceError(BigEarthNetError):
    """The raw archive, or a list that describes it, cannot be used."""


class PatchError(SourceError):
    """One patch of the archive cannot be read.

    Attributes:
        patch_id: Name of the patch folder.
        file: Name of the file at fault, without its folder.
        reason: What was expected and what was found.
    """

    def __init__(self, patch_id: str, file: str, reason: str) -> None:
        super().__init__(patch_id, file, reason)
        self.patch_id = patch_id
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.patch_id}/{self.file}: {self.reason}"


class OptionError(BigEarthNetError, ValueError):
    """An option is out of range, or contradicts another one, the archive or the store."""


class SelectionError(BigEarthNetError):
    """The patches asked for cannot be selected, or the question cannot be answered."""


class OutputError(BigEarthNetError):
    """A file or folder is already there, or cannot be written."""


class BusyError(OutputError):
    """Another process is writing there."""


class MissingPackageError(BigEarthNetError):
    """An optional package is not installed."""


class ClusterError(BigEarthNetError):
    """The dask cluster cannot be used, or was lost."""


class StoreError(BigEarthNetError):
    """The store cannot be continued or read."""


class ReadError(StoreError):
    """Pixels of a store are missing or damaged."""


class VerificationError(BigEarthNetError):
    """A finished store is not what it claims to be."""


class RemoteError(BigEarthNetError):
    """An object of a remote store cannot be fetched."""


class StateError(BigEarthNetError):
    """A stream cannot be resumed from this state."""


class RunError(BigEarthNetError):
    """A training's folder or a model cannot be used."""
