"""Stop a command cleanly: Ctrl-C (SIGINT), SIGTERM from services and containers, SIGHUP of a closed terminal.

A signal that is ignored when the command starts stays ignored, as SIGHUP under ``nohup``. Outside the main
thread nothing is changed: Python handles signals there only.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

_Handlers: TypeAlias = dict[int, Any]
_SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none.
_SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, _SIGHUP) if number is not None]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first stop signal, so that the command cleans up; end at the second.

    A second SIGHUP is ignored: a terminal that is closed may send two. `run_command` does all this for every
    command.
    """
    process = os.getpid()

    def interrupt(handlers: _Handlers, number: int, _: object) -> None:
        if os.getpid() != process:  # A forked worker: its parent ends it with SIGTERM.
            signal.signal(number, handlers[number])
            signal.raise_signal(number)
            return
        for stop in handlers:
            signal.signal(stop, signal.SIG_IGN if stop == _SIGHUP else signal.SIG_DFL)
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop signal arrived.

    The first stop signal only sets this flag. A second SIGINT or SIGTERM acts as it did before this block.
    """
    received: list[int] = []

    def note(handlers: _Handlers, number: int, _: object) -> None:
        received.append(number)
        for stop, handler in handlers.items():
            if stop != _SIGHUP:
                signal.signal(stop, handler)

    with _handled_by(note):
        yield lambda: bool(received)


@contextlib.contextmanager
def _handled_by(function: Callable[[_Handlers, int, object], None]) -> Iterator[None]:
    """Handle the stop signals that are not ignored. `function` gets the old handlers first.

    The old handlers are put back in the end.
    """
    handlers: _Handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        # None: the handler was not installed by Python and cannot be put back.
        handlers = {n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in handlers:
            signal.signal(number, functools.partial(function, handlers))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
