"""Try what power cuts leave, each state once, and whether each flush is needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from tests.crash.disk import Flushed, Record, Tree


class Trial(ABC):
    """Tries states.

    Args:
        folder: Where they are built, one after another.

    Attributes:
        known: What was wrong with each state tried, by a hash of it.
        needed: For each line of the product that flushes something, how many of its flushes were found to be needed.
        n_flushes: How many flushes were left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[int, str | None] = {}
        self.needed: Counter[str] = Counter()
        self.n_flushes = 0

    @abstractmethod
    def examine(self, tree: Tree, promised: tuple[str, ...]) -> str | None:
        """Say what is wrong with what is left, or comes of it when the program goes on; None if nothing is."""

    def find_fault(self, tree: Tree, promised: tuple[str, ...]) -> str | None:
        """Examine a state, unless it is known."""
        key = hash((frozenset(tree.items()), promised))
        if key not in self.known:
            self.known[key] = self.examine(tree, promised)
        return self.known[key]

    def leave_out_flushes(self, record: Record, *, again: bool, n_states: int) -> list[str]:
        """Leave out one flush after another, and look for a power cut that does harm then.

        Args:
            record: What was done.
            again: Leave out each; otherwise those of lines that are known to be needed are passed over.
            n_states: States that are tried for each, at most.

        Returns:
            The lines of those that were not needed.
        """
        needless = []
        for i in record.flushes:
            flushed = record.operations[i]
            assert isinstance(flushed, Flushed)
            if again or not self.needed[flushed.caller]:
                states = islice(record.list_states_without(i), n_states)
                is_needed = any(self.find_fault(*state) for state in states)
                self.needed[flushed.caller] += is_needed
                if not is_needed:
                    needless.append(flushed.caller)
                self.n_flushes += 1
        return needless

    @property
    def needless(self) -> list[str]:
        """The lines of which no flush is needed."""
        return [caller for caller, n in self.needed.items() if n == 0]


def list_differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Name the files that differ."""
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
