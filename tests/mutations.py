"""JSON values with one of them changed to what no writer would have written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

DEEP: Final = "deeply nested"
"""Stands for lists in lists, 100,000 times, which `json.dumps` cannot write."""

STRANGE: Final[tuple[Any, ...]] = (
    None,
    "",
    "../x",
    -1,
    0,
    2**31,
    2**63,
    10**12,
    0.5,
    [],
    {},
    [[]],
    True,
    DEEP,
    float("nan"),
)


def list_places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the place of every value, as the keys that lead to it; of a long list the first and the last."""
    yield place
    if isinstance(values, dict):
        for key, value in values.items():
            yield from list_places(value, (*place, key))
    elif isinstance(values, list):
        for index in sorted({0, len(values) - 1} & set(range(len(values)))):
            yield from list_places(values[index], (*place, index))


def change_value(values: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Change the value at a place in a copy."""
    if not place:
        return value
    changed = copy.deepcopy(values)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def nest(text: str) -> str:
    """Put the nested lists where they are meant."""
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
