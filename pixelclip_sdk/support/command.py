"""Run a command: exit codes, messages on stderr and stop signals are the same for all of them.

====  ==============================================================
0     success
1     failure; stderr says why
2     wrong usage (argparse)
130   stopped by Ctrl-C, SIGTERM or SIGHUP
====  ==============================================================
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.signals import interruptible

# Control characters (category Cc), line and paragraph separators.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_JSON_CONTROL = re.compile(r"[\x7f-\x9f\u2028\u2029]")  # Those that JSON does not escape.


def run_command(name: str, body: Callable[[], int], *, interrupted: str = "nothing was written") -> int:
    """Run the body of a command and return its exit code.

    Errors of the project's tree and of the operating system become a message on stderr; other exceptions
    are faults of the program and keep their traceback. The first Ctrl-C, SIGTERM or SIGHUP raises
    KeyboardInterrupt in the body; a second one ends the process.

    A closed stdout (``… | head -1``) counts as success.

    Args:
        name: The command's name, the first word of every message on stderr.
        body: Parses the arguments, does the work and returns an exit code.
        interrupted: What remains after an interruption; it follows "interrupted; " on stderr.
    """
    _open_closed_descriptors()
    if logging.lastResort is not None:  # It prints the warnings.
        logging.lastResort.setFormatter(_Printable(f"{name}: %(message)s"))
    for handler in logging.getLogger().handlers:
        if type(handler.formatter) is logging.Formatter:  # Of `logging.basicConfig`.
            handler.setFormatter(_Printable(handler.formatter._fmt))
    if isinstance(sys.stdout, io.TextIOWrapper):  # Characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            code = _run_and_flush(body)
    except BrokenPipeError:
        code = 0
    except (PixelClipError, OSError) as error:
        report(f"{name}: {error}")
        code = 1
    except KeyboardInterrupt:
        report(f"{name}: interrupted; {interrupted}")
        code = 130
    try:
        _flush_stdout()
    except (OSError, ValueError):  # Python flushes stdout again at exit: let that succeed.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def report(message: str) -> None:
    """Write a message to stderr, with control characters escaped. A closed or full stderr is ignored."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print("\n".join(map(printable, message.split("\n"))), file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def report_progress(line: str) -> None:
    """Write how far a command is to stderr. On a terminal, the next line replaces this one."""
    if not on_terminal():
        report(line)
        return
    with contextlib.suppress(OSError):
        print(line, end="  \r", file=sys.stderr, flush=True)


def terminal_json(value: Any, **options: Any) -> str:
    r"""JSON for a terminal: readable letters of all scripts, and control characters escaped.

    Examples:
        >>> terminal_json("猫\x9b2J")
        '"猫\\u009b2J"'
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return _JSON_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def printable(text: str) -> str:
    r"""Escape control characters: in the name of a file or class they could command the terminal.

    Examples:
        >>> printable("cat\x1b[2J.jpg")
        'cat\\x1b[2J.jpg'
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class _Printable(logging.Formatter):
    """Writes log lines with control characters escaped, as `report`."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def _run_and_flush(body: Callable[[], int]) -> int:
    try:
        code = body()
    except SystemExit:  # From argparse, which prints its help to stdout.
        _flush_stdout()
        raise
    _flush_stdout()
    return code


def _flush_stdout() -> None:
    """Raises OSError if the disk behind stdout is full; at exit it would be a traceback."""
    print(end="", flush=True)


def _open_closed_descriptors() -> None:
    """Open closed standard descriptors, or the next file would get their number and receive log lines."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest free number, which is this one.
