"""How a command is stopped."""

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["sigterm_interrupts"]


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, which services and containers are stopped with, does what Ctrl-C does: clean up."""
    if threading.current_thread() is not threading.main_thread():  # Signals go there.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
