"""Fuzz the readers of foreign bytes for as long as one likes: `python -m tests.fuzz --seconds 600`.

Guided by coverage where atheris is installed (`pip install atheris`, Python 3.11 to 3.13 on Linux); without it the same
targets get mutations that know nothing of the code. A finding ends the run with its bytes in a file.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import TARGETS, make_seeds

ROUNDS_PER_CHECK = 50


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"which of {', '.join(TARGETS)}; all, one after another, if none")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="where inputs and findings are kept")
    parser.add_argument("--plain", action="store_true", help="without atheris, even if it is there")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    if options.plain or find_spec("atheris") is None:
        for name in names:
            fuzz_plainly(name, options.seconds, options.corpus)
        return
    for name in names:  # libFuzzer never returns, so each target has a process
        pid = os.fork()
        if pid == 0:
            fuzz_guided(name, options.seconds, options.corpus)
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit(f"{name}: a finding, see crash-* in {options.corpus / name}")


def fuzz_guided(name: str, seconds: int, corpus: Path) -> None:
    """Let libFuzzer look for inputs that reach new code."""
    atheris = importlib.import_module("atheris")
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(make_seeds(name)):
        (folder / f"seed-{number}").write_bytes(seed)
    with atheris.instrument_imports(include=["bigearthnet", "converter", "trainer"]):
        for module in TARGETS[name].modules:
            sys.modules.pop(module, None)
        for module in TARGETS[name].modules:
            importlib.import_module(module)
    run = TARGETS[name].make()
    limits = [
        f"-max_total_time={seconds}",
        "-timeout=5",
        "-rss_limit_mb=2048",
        "-max_len=70000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder)], run)
    atheris.Fuzz()


def fuzz_plainly(name: str, seconds: int, corpus: Path) -> None:
    """Mutate the seeds at random, with a fresh seed of chance each time, which is printed."""
    chance = int.from_bytes(os.urandom(4))
    dice, seeds, run = random.Random(chance), make_seeds(name), TARGETS[name].make()
    n_rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(ROUNDS_PER_CHECK):
            content = mutate(dice, seeds)
            n_rounds += 1
            keep_if_it_fails(run, content, corpus / name)
    print(f"{name}: {n_rounds:,} inputs, seed {chance}, no finding")


def mutate(dice: random.Random, seeds: list[bytes]) -> bytes:
    content = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(content) + 1)
        match dice.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << dice.randrange(8)
            case 1:
                content[at : at + 4] = dice.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\x80"))
            case 2:
                del content[at : at + dice.randint(1, 20)]
            case 3:
                content[at:at] = dice.randbytes(dice.randint(1, 20))
            case _:
                other = dice.choice(seeds)
                start = dice.randrange(len(other))
                content[at : at + 30] = other[start : start + 30]
    return bytes(content)


def keep_if_it_fails(run: Callable[[bytes], None], content: bytes, folder: Path) -> None:
    try:
        run(content)
    except BaseException:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"crash-{time.time_ns()}").write_bytes(content)
        raise


if __name__ == "__main__":
    main()
