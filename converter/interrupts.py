"""Put Ctrl-C off where it would leave a mess."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Put Ctrl-C off until the end of something short that cannot be ended cleanly in the middle.

    What Ctrl-C means is not changed: where it is ignored, as in jobs in the background, it stays so.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no other thread is ever interrupted
    if not is_main or signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):  # None: not Python's own to change
        yield
        return
    held: list[int] = []

    def hold(number: int, _: Any) -> None:
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)
