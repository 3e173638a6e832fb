"""Signals that ask a run to stop: obeyed where nothing is lost, never mistaken for a failure."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts", "listening"]

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")

# A terminal and a launcher both pass Ctrl-C on: what follows sooner is the same request.
SECONDS_TO_SECOND = 1.0


class Interrupted(KeyboardInterrupt):
    """A run that a signal stopped, with everything saved that was finished.

    It is a `KeyboardInterrupt`, so no `except Exception` on the way takes it for a failed attack.

    Args:
        signum: The signal.
        saved: What is kept.
        advice: How to go on.
    """

    exit_code = 75

    def __init__(self, signum: int, saved: str = "", advice: str = "") -> None:
        self.signum, self.saved = signum, saved
        self.advice = advice or "run the same command again"
        done = f"stopped by {signal.Signals(signum).name}"
        super().__init__(f"{done}{saved and ', '}{saved}. To go on: {self.advice}")


class Interrupts:
    """What signals have asked for, and where they may act.

    Outside `held` a signal raises `Interrupted` at once; inside it waits for the end of the block.
    A second signal, a second after the first or later, does what it would do without us.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._since = 0.0
        self._held = 0
        self._previous: dict[int, Any] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish first."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.pending is not None and not self._held:
            raise Interrupted(self.pending)

    def stop_together(self, accelerator: Any) -> None:
        """Raise `Interrupted` in all processes of a launch if one of them was told to stop."""
        if accelerator.num_processes == 1:
            return
        import torch

        told = torch.tensor([self.pending or 0], device=accelerator.device)
        signum = int(accelerator.gather(told).max())
        if signum:
            raise Interrupted(signum)

    def install(self) -> None:
        """Take the signals over, except those that this process was told to ignore."""
        for name in SIGNALS:
            signum = getattr(signal, name, None)
            if signum is None or signal.getsignal(signum) in (signal.SIG_IGN, None):
                continue
            self._previous[signum] = signal.signal(signum, self._arrived)

    def restore(self) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.pending is None:
            self.pending, self._since = signum, now
            if not self._held:
                raise Interrupted(signum)
        elif now - self._since >= SECONDS_TO_SECOND:
            self.restore()
            signal.raise_signal(signum)


_current: Interrupts | None = None


@contextlib.contextmanager
def listening() -> Iterator[Interrupts]:
    """Watch for SIGTERM, SIGINT and SIGUSR1 inside the block; an outer block's watch is shared.

    Outside the main thread, where Python cannot take signals, nothing is watched.

    Example:
        >>> import signal
        >>> steps = []
        >>> try:
        ...     with listening() as signals, signals.held():
        ...         signal.raise_signal(signal.SIGTERM)
        ...         steps.append("saved")
        ... except Interrupted as stop:
        ...     print(steps, stop)
        ['saved'] stopped by SIGTERM. To go on: run the same command again
    """
    global _current
    if _current is not None:
        yield _current
        return
    signals = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    _current = signals
    try:
        signals.install()
        yield signals
    finally:
        _current = None
        signals.restore()
