"""Gather the members of a tar archive into patches as they come by, in one pass and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import Final

from bigearthnet.archive.compression import Stream, StreamError, name_format
from bigearthnet.archive.records import STDIN
from bigearthnet.archive.scan import Scan, has_note
from bigearthnet.archive.tar import BLOCK, CutShortError, Member, TarError, TarWalk
from bigearthnet.errors import SourceError
from bigearthnet.names import SYNTHETIC_FILE, PatchName, parse_patch_name

MAX_FILE_BYTES: Final = 2**20
"""Size of the largest file that is taken; those of BigEarthNet have 58 kB at most."""

_MAX_OPEN_BYTES: Final = 64 * 2**20
"""Files of patches that are not whole yet, in memory at once: some 400 patches whose members lie mixed."""

_MAX_OTHERS: Final = 10_000
"""Entries that belong to no patch, up to which they are counted."""


@dataclass(frozen=True)
class GatheredPatch:
    """Files of one patch."""

    name: str
    folder: str
    """Where it lies in the archive."""
    files: dict[str, bytes | OSError]
    """Files that are wanted, by name; an error for one that cannot be taken."""
    is_whole: bool
    """These are all wanted files that the archive has; if not, others come or came apart from these."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(content) for content in self.files.values() if isinstance(content, bytes))


@dataclass
class _Open:
    """A patch some of whose files have come by."""

    folder: str
    files: dict[str, bytes | OSError] = field(default_factory=dict)
    n_bytes: int = 0


class ArchiveReader:
    """Reads an archive file, or standard input, once from end to end. Call `peek`, then iterate over `gather`.

    Args:
        path: The archive, compressed or not; `STDIN` for a stream.

    Raises:
        SourceError: It cannot be opened, or is compressed in a way that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.stream = Stream(path)
        self._walk = TarWalk(self.stream)
        self._members = iter(self._walk)
        self._folder_of: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self._kind: PatchName | None = None
        self._others: dict[tuple[str, ...], str] = {}
        self._n_notes = 0
        self._held: tuple[str, str, Member, str] | None = None
        self.in_parts: set[str] = set()
        """Patches whose files lie too far apart to be kept until they are whole."""
        self.repeated: dict[str, str] = {}
        """A file that came again after its patch had been given out, by patch."""
        self.n_whole = 0
        """Patches of which all wanted files have come."""

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def peek(self) -> str:
        """Return the name of the first patch.

        Raises:
            SourceError: There is none, or the archive is damaged before it.
        """
        self._held = self._held or next(self._find_members(), None)
        if self._held is None:
            raise self._miss_patches()
        return self._held[0]

    def gather(
        self, suffixes: Collection[str], is_wanted: Callable[[str], bool] = lambda _: True
    ) -> Iterator[GatheredPatch]:
        """Yield every patch, as soon as it is whole or memory for those that are not runs out.

        Args:
            suffixes: What follows the name of the patch in the names of its files that are wanted.
            is_wanted: Tells by its name whether any file of a patch is.

        Raises:
            SourceError: The archive is damaged, cut short, not one of BigEarthNet, or holds a patch in two places.
        """
        self.peek()
        opened: dict[str, _Open] = {}
        n_open = 0
        bits = {suffix: 1 << number for number, suffix in enumerate(suffixes)}  # small, as there are many patches
        for name, file, member, folder in self._find_members():
            if not is_wanted(name):
                continue
            if name not in self._seen:
                self._seen[name] = 0
                opened[name] = _Open(folder)
            seen, patch = self._seen[name], opened.get(name)
            bit = bits.get(file[len(name) :])
            if bit is None or not file.startswith(name):
                continue
            if seen & bit and (patch is None or file not in patch.files):
                self.repeated[name] = file
                continue
            if patch is None:  # a further part of a patch that was given out
                patch = opened[name] = _Open(folder)
            content: bytes | OSError = OSError("it is in the archive twice") if seen & bit else self._take(member)
            self._seen[name] = seen = seen | bit
            patch.files[file] = content
            size = len(content) if isinstance(content, bytes) else 0
            patch.n_bytes, n_open = patch.n_bytes + size, n_open + size
            if seen == (1 << len(bits)) - 1:
                self.n_whole += 1
                n_open -= patch.n_bytes
                yield self._give(name, opened.pop(name))
            while n_open > _MAX_OPEN_BYTES:
                oldest = next(iter(opened))
                self.in_parts.add(oldest)
                n_open -= opened[oldest].n_bytes
                yield self._give(oldest, opened.pop(oldest))
        for name, patch in opened.items():
            yield self._give(name, patch)

    def make_scan(self) -> Scan:
        """Say what the archive holds, once it has been read, as `scan_folder` does of a folder."""
        path = self.stream.path
        is_synthetic = self._n_notes > 0 or (path != STDIN and has_note(path))
        return Scan(path, self._folder_of, self._count_strays(), is_synthetic)

    def _give(self, name: str, patch: _Open) -> GatheredPatch:
        return GatheredPatch(name, patch.folder, patch.files, name not in self.in_parts)

    def _take(self, member: Member) -> bytes | OSError:
        if member.kind == "link":
            return OSError(
                f"it is a link to {member.target!r}; expected the file itself, as tar has it with dereference"
            )
        if member.kind != "file":
            return OSError(f"expected a regular file, found a member of the kind {member.kind}")
        if member.size > MAX_FILE_BYTES:
            return OSError(f"expected at most {MAX_FILE_BYTES:,} bytes, found {member.size:,}")
        try:
            return self._walk.read_content()
        except (TarError, StreamError) as error:
            raise self._blame(error) from error

    def _find_members(self) -> Iterator[tuple[str, str, Member, str]]:
        """Yield patch, file, member and the folder of the patch for each member that lies in one."""
        if self._held is not None:
            held, self._held = self._held, None
            yield held
        last: str | None = None
        try:
            for member in self._members:
                before, _, file = member.name.rpartition("/")
                if before != last or file in ("", ".."):  # else it lies where the one before it does
                    located = self._locate(member)
                    last = before if located and member.kind != "folder" else None
                if located:
                    name, folder, is_direct = located
                    yield name, file if is_direct else "", member, folder
        except (TarError, StreamError) as error:
            raise self._blame(error) from error

    def _locate(self, member: Member) -> tuple[str, str, bool] | None:
        """Return patch and folder that a member lies in, and whether right in it; None if it lies in none."""
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if member.name.startswith("/") or ".." in parts:
            raise SourceError(
                f"{self.stream.label}: the member {member.name!r} leads out of the archive; expected paths such as "
                "BigEarthNet-v1.0/<patch>/<file>, nothing was written there. Is this an archive of BigEarthNet?"
            )
        if any(part.startswith(".") for part in parts):  # as for folders: hidden, such as what macOS adds
            return None
        for depth, part in enumerate(parts if member.kind == "folder" else parts[:-1]):
            if named := parse_patch_name(part):
                self._check_kind(part, named)
                folder = "/".join(parts[: depth + 1])
                if (other := self._folder_of.setdefault(part, folder)) != folder:
                    raise SourceError(
                        f"{self.stream.label}: the patch {part} is there twice, as {other} and {folder}; remove one"
                    )
                return part, folder, depth == len(parts) - 2
        if parts and parts[-1] == SYNTHETIC_FILE:
            self._n_notes += 1
        elif parts and len(self._others) < _MAX_OTHERS:
            self._others.setdefault(parts[:4], member.name)
        return None

    def _check_kind(self, patch_id: str, named: PatchName) -> None:
        first = self._kind = self._kind or named
        if (named.sensor, named.dataset) != (first.sensor, first.dataset):
            kinds = [f"{kind.sensor.upper()} {kind.dataset or ''}".strip() for kind in (first, named)]
            raise SourceError(
                f"{self.stream.label}: expected patches of one kind, found {kinds[1]} ({patch_id}) after "
                f"{len(self._folder_of):,} of {kinds[0]}; give each an archive of its own"
            )

    def _count_strays(self) -> int:
        """Count what lies beside the patch folders and what is around them, and holds no patch."""
        parents = {tuple(folder.split("/")[:-1]) for folder in self._folder_of.values()}
        around = {parent[:depth] for parent in parents for depth in range(len(parent) + 1)}
        root = reduce(_share, parents)
        return len({other[: len(_share(root, other)) + 1] for other in self._others} - around)

    def _miss_patches(self) -> SourceError:
        inner = next((name for name in self._others.values() if name.endswith((".tar", ".gz", ".zst", ".bz2"))), None)
        hint = f"It holds the archive {inner!r}: unpack that" if inner else "Is this an archive of BigEarthNet?"
        return SourceError(
            f"{self.stream.label}: expected patch folders such as S2A_MSIL2A_20170613T101031_87_48, found "
            f"{len(self._others):,} other entries and no patch. {hint}"
        )

    def _blame(self, error: TarError | StreamError) -> SourceError:
        """Say what is wrong with the archive, and how much of it came before."""
        stream, walk = self.stream, self._walk
        if isinstance(error, TarError) and not self._folder_of and walk.position <= BLOCK:
            what = name_format(walk.head) or repr(walk.head[:16]) if walk.head else "nothing"
            return SourceError(f"{stream.label}: expected a tar archive, found {what} ({error})")
        n_whole = self.n_whole or max(0, len(self._folder_of) - 1)
        is_cut = stream.is_cut or isinstance(error, CutShortError)
        what = "cut short, as by a download that broke off" if is_cut else "damaged"
        total = "" if stream.n_raw_total is None else f" of its {stream.n_raw_total:,}"
        return SourceError(
            f"{stream.label}: {what}: {error}. Before that came {n_whole:,} whole patches, in {stream.n_bytes:,} bytes "
            f"of content; {stream.n_raw:,}{total} bytes were read. Download it again, then run the same command: "
            "what was converted is kept"
        )


def _share(path: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Return what two paths begin with."""
    return tuple(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False)))


def scan_archive(path: Path, progress: Callable[[int], None] = lambda _: None) -> Scan:
    """Find the patches of an archive without reading any, which takes as long as decompressing all of it.

    Raises:
        SourceError: As `ArchiveReader.gather` says.
    """
    reader = ArchiveReader(path)
    try:
        for n_found, _ in enumerate(reader.gather(())):
            if n_found % 10_000 == 0:
                progress(n_found)
    finally:
        reader.close()
    scan = reader.make_scan()
    progress(len(scan.folder_of))
    return scan
