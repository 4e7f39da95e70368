"""What a file system may hold after a power cut: the weakest that POSIX lets a program count on.

What has been flushed is there. Of everything since, any part may be missing, whatever the order it was done in:

- An operation on a folder (a name that is added, removed, replaced or moved) is there whole or not at all, as `rename`
  promises, between two folders too. Operations on the same name keep their order; on different names, even of one
  folder, they may be reordered. Only a flush of the folder itself settles its names. In particular, that of a new file
  does not settle its name, nor that of a folder its own name: ext4 does both, and no standard asks for it.
- Of a file that was not flushed after it was written, each sector of 512 bytes may be the old one, the new one or
  zeros, and it may be cut short; a name may well be there without a byte of its content.

So whatever a stricter file system leaves (ext4 with `data=ordered`, where operations on names become durable in their
order, XFS, Btrfs) is among these states too. Left out are disks that lose what they said was flushed, or a part of a
sector, and errors that `fsync` reports.

Sources: fsync(2) and rename(2) in the Linux manual; Pillai et al., "All File Systems Are Not Created Equal: On the
Complexity of Crafting Crash-Consistent Applications", OSDI 2014, which names these persistence properties and found
that file systems differ in each of them. To record what a program does and to replay it in part is the method of that
paper, of SQLite's crash tests (https://sqlite.org/testing.html) and of TigerBeetle's simulator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, islice, product
from pathlib import Path

ROOT = 0
"""The folder that is recorded, which is there for certain."""

SECTOR = 512

Place = tuple[int, str]
"""A folder, and a name in it."""

Tree = dict[str, bytes | None]
"""What is in a folder, by relative path: the content of a file, None for a folder."""


@dataclass(frozen=True)
class Renamed:
    """Names that change together: one is added, removed or replaced, or one goes and another comes."""

    places: tuple[tuple[Place, int | None], ...]
    """What each name stands for afterwards; None if it is gone."""


@dataclass(frozen=True)
class Written:
    """A file has a new content."""

    file: int
    content: bytes


@dataclass(frozen=True)
class Flushed:
    """A file, or the names of a folder, are on disk for certain."""

    what: int
    caller: str
    """Who asked for it."""


@dataclass(frozen=True)
class Promised:
    """The program has said that something is done, which a power cut must not undo."""

    what: str


Operation = Renamed | Written | Flushed | Promised


@dataclass
class Disk:
    """A disk, and what has not reached it yet."""

    folders: Collection[int]
    """Which of the numbers are folders; the others are files."""
    names: dict[Place, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    renamed: list[Renamed] = field(default_factory=list)
    """Not flushed, in order."""
    written: dict[int, bytes] = field(default_factory=dict)
    """Not flushed: the newest content."""
    promised: tuple[str, ...] = ()

    def copy(self) -> Disk:
        return Disk(
            self.folders, dict(self.names), dict(self.contents), list(self.renamed), dict(self.written), self.promised
        )

    def apply(self, operation: Operation) -> None:
        match operation:
            case Renamed():
                self.renamed.append(operation)
            case Written(file, content):
                self.written[file] = content
            case Flushed(what) if what in self.folders:
                self._settle(what)
            case Flushed(what):
                if what in self.written:
                    self.contents[what] = self.written.pop(what)
            case Promised(what):
                self.promised = (*self.promised, what)

    def _settle(self, folder: int) -> None:
        """Make all names of a folder durable, and what they depend on."""
        asked = {i for i, one in enumerate(self.renamed) if any(place[0] == folder for place, _ in one.places)}
        settled = asked.union(*(self.list_causes(i) for i in asked))
        for i in sorted(settled):
            _rename(self.names, self.renamed[i])
        self.renamed = [one for i, one in enumerate(self.renamed) if i not in settled]

    def list_causes(self, last: int) -> set[int]:
        """List the earlier operations without which this one cannot be there: those on the same names."""
        causes: set[int] = set()
        places = {place for place, _ in self.renamed[last].places}
        for i in reversed(range(last)):
            touched = {place for place, _ in self.renamed[i].places}
            if touched & places:
                causes.add(i)
                places |= touched
        return causes

    def list_effects(self, first: int) -> set[int]:
        """List the later operations that cannot be there without this one."""
        effects: set[int] = set()
        places = {place for place, _ in self.renamed[first].places}
        for i in range(first + 1, len(self.renamed)):
            touched = {place for place, _ in self.renamed[i].places}
            if touched & places:
                effects.add(i)
                places |= touched
        return effects

    def list_contents(self, file: int) -> list[bytes]:
        """List some of what a file that was not flushed may hold: the newest content first, then the old one."""
        return tear_content(self.contents.get(file, b""), self.written[file])

    def count_combinations(self) -> int:
        """Count in how many ways something may be lost and torn, possible or not."""
        return math.prod([2 ** len(self.renamed), *(len(self.list_contents(file)) for file in self.written)])

    def build_tree(self, lost: Collection[int] = (), contents: Mapping[int, bytes] | None = None) -> Tree:
        """Build what is left.

        Args:
            lost: Which of the operations that were not flushed are not there, with all their effects.
            contents: What files that were not flushed hold, if it is not the newest.
        """
        names = dict(self.names)
        for i, one in enumerate(self.renamed):
            if i not in lost:
                _rename(names, one)
        inside: dict[int, dict[str, int]] = {}
        for (folder, name), what in names.items():
            inside.setdefault(folder, {})[name] = what
        held = self.contents | self.written | dict(contents or {})
        tree: Tree = {}
        rest = [("", ROOT)]
        for prefix, folder in rest:
            for name, what in inside.get(folder, {}).items():
                if what in self.folders:
                    tree[prefix + name] = None
                    rest.append((f"{prefix}{name}/", what))
                else:
                    tree[prefix + name] = held.get(what, b"")
        return tree

    def list_survivors(self, limit: int, chance: random.Random) -> Iterator[Tree]:
        """List what may be left by a power cut now.

        Every state if there are at most `limit` combinations of what is lost and torn. Otherwise that nothing or
        everything is lost, that any one thing is lost, or is all there is; that any one file is torn in any way; and
        `limit` random combinations.
        """
        torn = {file: self.list_contents(file) for file in self.written}
        if self.count_combinations() <= limit:
            yield from self._list_all(torn)
        else:
            yield from self._list_single(torn)
            for _ in range(limit):
                share = chance.random()
                lost = {i for i in range(len(self.renamed)) if chance.random() < share}
                yield self._build(lost, {file: chance.choice(kinds) for file, kinds in torn.items()})

    def _list_all(self, torn: Mapping[int, Sequence[bytes]]) -> Iterator[Tree]:
        everything = range(len(self.renamed))
        for lost in chain.from_iterable(combinations(everything, size) for size in range(len(everything) + 1)):
            if all(self.list_effects(i) <= set(lost) for i in lost):
                for kinds in product(*torn.values()):
                    yield self.build_tree(lost, dict(zip(torn, kinds, strict=True)))

    def _list_single(self, torn: Mapping[int, Sequence[bytes]]) -> Iterator[Tree]:
        everything = set(range(len(self.renamed)))
        yield self.build_tree()
        yield self.build_tree((), {file: kinds[1] for file, kinds in torn.items()})
        yield self.build_tree(everything)
        for i in everything:
            yield self._build({i}, {})
            yield self.build_tree(everything - {i} - self.list_causes(i))
        for file, kinds in torn.items():
            for content in kinds[1:]:
                yield self.build_tree((), {file: content})

    def _build(self, lost: Collection[int], contents: Mapping[int, bytes]) -> Tree:
        return self.build_tree({*lost}.union(*map(self.list_effects, lost)), contents)


def tear_content(old: bytes, new: bytes) -> list[bytes]:
    """List some of what a file may hold that was not flushed: the new content, the old one, parts of either, zeros."""
    size = len(new)
    first, middle, last = (min(n, size) // SECTOR * SECTOR for n in (SECTOR, size // 2, size - 1))
    zeros = bytes(size)
    return list(
        dict.fromkeys(
            [
                new,
                old,
                b"",
                zeros,
                *(new[:end] for end in (first, middle, last)),
                *(new[:end] + zeros[end:] for end in (first, middle, last)),
                new[:middle] + zeros[middle : middle + SECTOR] + new[middle + SECTOR :],
                zeros[:first] + new[first:],
                new[:middle] + old[middle:],
            ]
        )
    )


def write_tree(folder: Path, tree: Mapping[str, bytes | None]) -> None:
    """Put what is left into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def _rename(names: dict[Place, int], one: Renamed) -> None:
    for place, what in one.places:
        if what is None:
            names.pop(place, None)
        else:
            names[place] = what


@dataclass(frozen=True)
class Record:
    """All that was done to a folder."""

    start: Disk
    """What was there before, all of it flushed."""
    operations: Sequence[Operation]

    @property
    def flushes(self) -> list[int]:
        """Which of the operations flush something."""
        return [i for i, operation in enumerate(self.operations) if isinstance(operation, Flushed)]

    def replay(self, *, without: int | None = None) -> Iterator[Disk]:
        """Go through the disk as it is at first and after each operation; leave one out on demand."""
        disk = self.start.copy()
        yield disk.copy()
        for i, operation in enumerate(self.operations):
            if i != without:
                disk.apply(operation)
            yield disk.copy()

    def sample_states(self, stride: int, limit: int, n_states: int) -> Iterator[tuple[Tree, tuple[str, ...]]]:
        """Choose among what a power cut may leave, with what had been promised by then.

        Args:
            stride: Of every so many moments one is taken; 1 takes all.
            limit: Of a moment with so many combinations of what is lost and torn, all states are taken.
            n_states: States of each other moment. One is that of a killed process, of which nothing is lost.
        """
        chance = random.Random(0)
        for disk in islice(self.replay(), chance.randrange(stride), None, stride):
            states = list(disk.list_survivors(limit, chance))
            if disk.count_combinations() > limit:
                states = [states[0], *chance.sample(states[1:], n_states - 1)]
            for tree in states:
                yield tree, disk.promised

    def list_states_without(self, flush: int) -> Iterator[tuple[Tree, tuple[str, ...]]]:
        """List what a power cut may leave if one flush is left out, and cannot with it: one thing lost or torn each.

        Those of the last moment come first, then those just after a promise, since flushes are for these.
        """
        disks = list(zip(self.replay(), self.replay(without=flush), strict=True))[flush + 1 :]
        kept = [isinstance(operation, Promised) for operation in self.operations[flush:]]
        moments = sorted(range(len(disks)), key=lambda i: (i < len(disks) - 1, not kept[i], i))
        for whole, disk in (disks[i] for i in moments):
            certain = {id(one) for one in whole.renamed}
            for i, one in enumerate(disk.renamed):
                if id(one) not in certain:
                    yield disk.build_tree({i} | disk.list_effects(i)), disk.promised
            for file in disk.written.keys() - whole.written.keys():
                for content in disk.list_contents(file)[1:]:
                    yield disk.build_tree((), {file: content}), disk.promised
