"""Every error the converter raises on purpose.

    ConverterError
    ├── SourceError          the raw archive, or a list that describes it, cannot be used
    │   └── PatchError       one patch of the archive is bad; the others may be fine
    ├── PlanError            the options contradict each other, the archive or the machine
    ├── StoreError           the store cannot be created, continued or read
    ├── QueryError           no such patch, or SQL that cannot be answered
    └── VerificationError    the store is complete but not what it claims to be

Messages name the file or patch, what was expected, what was found and what to do about it. All of
them pickle, since most are born in a worker process and reported in another.
"""

from __future__ import annotations

from typing import Final

EXIT_INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


class ConverterError(Exception):
    """Base of every error that the converter raises on purpose."""


class SourceError(ConverterError):
    """The raw archive, or a list that describes it, cannot be used."""


class PatchError(SourceError):
    """One patch of the archive cannot be converted.

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


class PlanError(ConverterError):
    """The options contradict each other, the archive or the machine."""


class StoreError(ConverterError):
    """The store cannot be created, continued or read."""


class QueryError(ConverterError):
    """No such patch in the store, or SQL that cannot be answered."""


class VerificationError(ConverterError):
    """The store is complete but not what it claims to be."""
