"""SIGINT and SIGTERM as a wish to stop at the next step."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """The signal that asked for a stop, or None."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextmanager
def listening() -> Generator[StopWish]:
    """Catches SIGINT and SIGTERM while the context lasts; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.getsignal(number) for number in caught}

    def remember(number: int, frame: FrameType | None) -> None:
        wish.signal = signal.Signals(number)
        for each, handler in former.items():
            signal.signal(each, handler)

    for number in caught:
        signal.signal(number, remember)
    try:
        yield wish
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
