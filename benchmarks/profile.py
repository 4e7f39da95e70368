"""Where does the time go, of a conversion and of a stream? Run: python -m benchmarks.profile.

Copies of the six real v1.0 patches are converted by `ben-convert convert --profile`, then streamed, all bands in
batches of 128, with clocks around the functions of a stream (`converter.profile`). Shares are of the time of all
workers, or of the threads that decode and the one that takes the batches; each adds up to one.

  first epoch    shards are mapped, pages touched and checksums compared
  later epochs   decoded only

Clocks cost: the rates with and without them stand at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from benchmarks.conditions import clone_real_patches
from benchmarks.turns import save_record, summarize
from converter.profile import OTHER, PIECES, WAITING, put_clocks, run_clock
from trainer.source.store import Selection, open_store
from trainer.stream import stream as streaming
from trainer.stream.options import StreamOptions

_STREAM_PIECES: Final = {
    "order": ("trainer.stream.stream:order_items",),
    "preparing": ("trainer.stream.stream:Stream._start",),
    "taking": ("trainer.stream.stream:Stream._next",),
    "mapping": ("trainer.source.read:MappedShards._open",),
    "checksums": ("trainer.source.decode:_check",),
    "decoding": ("trainer.source.decode:_decompress", "trainer.source.decode:RawDecoder.decode"),
}
"""As `converter.profile.PIECES`; the first three are the caller's, and taking is waiting for the threads."""

_AHEAD_BYTES: Final = 2**26
"""Three batches: what is decoded ahead belongs to the next epoch."""

Record = dict[str, dict[str, dict[str, list[float]]]]


def profile_conversion(raw: Path, folder: Path, n_workers: int, *, clocks: bool) -> dict[str, Any]:
    """Convert by the command line; returns its profile, or its summary if there are to be no clocks."""
    store, path = folder / "store", folder / "profile.json"
    path.unlink(missing_ok=True)
    words = ["convert", raw, store, "--workers", n_workers, "--overwrite", "--json"]
    command = [sys.executable, "-m", "converter", *map(str, words), *(["--profile", str(path)] if clocks else [])]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    found: dict[str, Any] = json.loads(path.read_text() if clocks else ended.stdout)
    return found


class _Threads:
    """Seconds of pieces on the threads of a stream."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def put_clocks(self) -> None:
        """Put clocks around the functions of all streams of this process."""
        decode = streaming._decode  # noqa: SLF001 - what a thread of a stream runs

        def decode_timed(*args: Any) -> None:
            with run_clock() as clock:
                decode(*args)
                seconds = clock.stop()
            with self._lock:
                for piece, taken in seconds.items():
                    self.seconds[piece] += taken

        put_clocks(_STREAM_PIECES)
        streaming._decode = decode_timed  # type: ignore[assignment]  # noqa: SLF001

    def profile_epochs(self, selection: Selection, n_epochs: int) -> list[dict[str, float]]:
        """Stream some epochs; returns seconds of each piece in the first of them, and in the others."""
        found = []
        with streaming.Stream(selection, StreamOptions(prefetch_bytes=_AHEAD_BYTES)) as stream:
            for some in (1, n_epochs - 1):
                self.seconds.clear()
                start = time.perf_counter()
                with run_clock() as clock:
                    for _ in range(some):
                        for _ in stream:
                            pass
                    own = clock.stop()
                elapsed = time.perf_counter() - start
                busy = sum(self.seconds.values())
                pieces = {piece: own.get(piece, 0) + self.seconds.get(piece, 0) for piece in _STREAM_PIECES}
                pieces[OTHER] = own[OTHER] + self.seconds[OTHER]
                pieces[WAITING] = stream.options.threads * elapsed - busy
                found.append({piece: seconds / some for piece, seconds in pieces.items()})
        return found


def time_epoch(selection: Selection) -> float:
    """Return patches/s of a stream in its second epoch."""
    with streaming.Stream(selection) as stream:
        for _ in stream:
            pass
        start = time.perf_counter()
        for _ in stream:
            pass
        return len(selection) / (time.perf_counter() - start)


def run(folder: Path, n_patches: int, n_workers: int, n_rounds: int) -> tuple[Record, list[str]]:
    """Profile both in turns; returns the tables, and a line on what the clocks cost each."""
    raw = folder / "s2"
    clone_real_patches(raw, folder / "s1", n_patches)
    tables: Record = {"convert": {}, "stream, first epoch": {}, "stream, later epochs": {}}
    rates: defaultdict[str, list[float]] = defaultdict(list)

    def note(table: str, pieces: dict[str, float], n: int) -> None:
        total = sum(pieces.values())
        for piece, seconds in pieces.items():
            figures = tables[table].setdefault(piece, {"share": [], "us a patch": []})
            figures["share"].append(seconds / total)
            figures["us a patch"].append(seconds / n * 1e6)

    for _ in range(n_rounds):
        bare = profile_conversion(raw, folder, n_workers, clocks=False)
        rates["convert, without clocks"].append(n_patches / bare["convert_s"])
        found = profile_conversion(raw, folder, n_workers, clocks=True)
        rates["convert, with clocks"].append(n_patches / found["stages"]["convert"])
        pieces = {piece: found["pieces"].get(piece, {"seconds": 0})["seconds"] for piece in (*PIECES, OTHER, WAITING)}
        note("convert", {piece: seconds for piece, seconds in pieces.items() if seconds}, n_patches)
    for _ in range(n_rounds):
        rates["stream, without clocks"].append(time_epoch(open_store(folder / "store").select(recommended=False)))
    threads = _Threads()
    threads.put_clocks()
    for _ in range(n_rounds):
        selection = open_store(folder / "store").select(recommended=False)
        rates["stream, with clocks"].append(time_epoch(selection))
        selection = open_store(folder / "store").select(recommended=False)
        for table, pieces in zip(list(tables)[1:], threads.profile_epochs(selection, 4), strict=True):
            note(table, pieces, len(selection))
    return tables, [f"{name}: {summarize(values)[0]:,.0f} patches/s" for name, values in rates.items()]


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=4096, help="patches of the archive (default: 4096)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to make archive and stores (default: a temporary folder)")
    parser.add_argument("--record", action="store_true", help="keep the figures in benchmarks/records")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tables, lines = run(Path(folder), args.patches, args.workers, args.rounds)
    for table, pieces in tables.items():
        print(f"\n{table:24}{'share':>8}{'us a patch':>12}")
        for piece, figures in pieces.items():
            print(f"{piece:24}{summarize(figures['share'])[0]:8.1%}{summarize(figures['us a patch'])[0]:12.1f}")
    print("\n" + "\n".join(lines))
    if args.record:
        save_record("profile", tables, ("zarr", "dask", "numcodecs", "numpy"))


if __name__ == "__main__":
    main()
