"""A position in a stream as a small JSON object: say it, and recognise it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bigearthnet.errors import StateError
from trainer.source.store import Selection
from trainer.stream.options import StreamOptions

State = dict[str, Any]
"""A position in a stream, as a small JSON object."""

_STATE_VERSION: Final = 1
_DECIDING: Final = ("seed", "batch_size", "order", "window", "drop_last", "turns")
"""Options that decide which patches are in which batch."""


def describe_position(selection: Selection, options: StreamOptions, epoch: int, step: int) -> State:
    """Describe the position before a batch."""
    return {
        "version": _STATE_VERSION,
        "store": selection.store.fingerprint,
        "selection": selection.digest,
        **{name: getattr(options, name) for name in _DECIDING},
        "epoch": epoch,
        "step": step,
    }


def check_state(state: Mapping[str, Any], selection: Selection, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a position belongs to a selection and to the options given.

    Args:
        state: From `describe_position`, perhaps through JSON.
        selection: The patches.
        given: Options by name.

    Returns:
        The options that the state decides, by name.

    Raises:
        StateError: It does not.
    """
    missing = [name for name in ("version", "store", "selection", "epoch", "step", *_DECIDING) if name not in state]
    if missing or state["version"] != _STATE_VERSION:
        problem = f"it lacks {', '.join(missing)}" if missing else f"found version {state['version']}"
        raise StateError(f"not a state of version {_STATE_VERSION}: {problem}")
    for what, actual in (("store", selection.store.fingerprint), ("selection", selection.digest)):
        if state[what] != actual:
            raise StateError(
                f"the state belongs to another {what} ({state[what]}) than this one ({actual}); open the one it was "
                "saved with, or start anew"
            )
    saved = {name: state[name] for name in _DECIDING}
    for name, value in saved.items():
        if name in given and given[name] != value:
            raise StateError(f"the state was saved with {name}={value!r}, not {given[name]!r}; give the same")
    return saved
