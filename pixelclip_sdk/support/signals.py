"""Stop a command cleanly: Ctrl-C (SIGINT), SIGTERM from services and containers, SIGHUP of a closed terminal.

A signal that is ignored when the command starts stays ignored, as SIGHUP under ``nohup``. Outside the main
thread nothing is changed: Python handles signals there only.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

_Handlers: TypeAlias = dict[int, Any]
_SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none.
# Seconds until a second stop signal ends a process whose main thread does not come back from native code.
_PATIENCE_S = 2.0
_SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, _SIGHUP) if number is not None]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first stop signal, so that the command cleans up; end at the second.

    A second SIGHUP is ignored: a terminal that is closed may send two. Python handles signals between two of
    its own instructions, so a model that never returns would keep both of them waiting: then the second one
    ends the process after two seconds. `run_command` does all this for every command.
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

    with _handled_by(interrupt), _last_resort():
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
def _last_resort() -> Iterator[None]:
    """End the process `_PATIENCE_S` after a second SIGINT or SIGTERM, whatever the main thread does.

    The interpreter writes the numbers of signals to a pipe as they arrive, and a thread reads them there.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    process = os.getpid()
    ended = threading.Event()

    def watch() -> None:
        received = 0
        while number := int.from_bytes(os.read(read, 1)):
            received += number in (signal.SIGINT, signal.SIGTERM)
            if received == 2 and not ended.wait(_PATIENCE_S):
                os._exit(128 + number)
        os.close(read)

    threading.Thread(target=watch, name="pixelclip-signals", daemon=True).start()
    _forget_in_children()
    try:
        yield
    finally:
        ended.set()
        if os.getpid() == process:
            signal.set_wakeup_fd(before)
            os.close(write)  # The thread reads the end.


@functools.cache
def _forget_in_children() -> None:
    """A forked worker gets the terminal's signals too; it must not report them to its parent's pipe."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


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
