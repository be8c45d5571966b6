"""Ctrl-C and SIGTERM, by which a machine takes its place back, wait for the end of a training step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether a signal came.

    Attributes:
        came: Whether it did.
    """

    def __init__(self) -> None:
        self.came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. Only the first one waits."""
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Notes the signals of the block instead of raising, so that no step is cut between its update and its count.

    Python gives signals to the main thread only; in another one nothing is held back.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.note) for number in _SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
