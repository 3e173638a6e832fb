"""A limit on how long a piece of Python code may run."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

__all__ = ["deadline"]


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError inside the block when it runs for longer than `seconds`.

    It interrupts Python code, sleeping and waiting for a connection, but not a library call that
    never returns to Python. It needs the main thread and a system with interval timers; elsewhere
    the block is judged when it ends. A timer that was running before goes on afterwards.
    """
    if seconds is None:
        yield
        return
    start = time.monotonic()

    def late() -> TimeoutError:
        return TimeoutError(f"took longer than {seconds:g} s")

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        if time.monotonic() - start > seconds:
            raise late()
        return

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        raise late()

    handler = signal.signal(signal.SIGALRM, on_alarm)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:
            left = max(remaining - (time.monotonic() - start), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
