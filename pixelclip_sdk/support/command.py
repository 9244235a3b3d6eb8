"""How every command of this project ends: an exit code and one line on stderr, never a traceback.

====  ===================================================
0     done
1     it could not be done; stderr says why
2     wrong usage (argparse)
130   interrupted by Ctrl-C or SIGTERM
====  ===================================================
"""

import contextlib
import os
import sys
from collections.abc import Callable

from pixelclip_sdk.errors import PixelClipError

__all__ = ["run_command"]


def run_command(name: str, body: Callable[[], int], *, interrupted: str = "nothing was written") -> int:
    """Run the body of a command and return its exit code.

    A new command parses its arguments, then returns ``run_command(NAME, lambda: body(options))``.

    Args:
        name: The command's name; it starts every line on stderr.
        body: What the command does. It returns an exit code.
        interrupted: What an interruption leaves behind; it follows "interrupted; " on stderr.

    Returns:
        The body's exit code; 1 for an error of the project's tree or of the operating system; 130 for an
        interruption. A closed stdout (``… | head -1``) is no error.
    """
    try:
        code = body()
        if sys.stdout is not None:
            sys.stdout.flush()  # A full disk behind stdout shows here at the latest.
        return code
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except (PixelClipError, OSError) as error:
        if isinstance(error, OSError):
            _discard_stdout()  # It may be stdout that failed; Python flushes it again at its end.
        _report(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        _report(f"{name}: interrupted; {interrupted}")
        return 130


def _report(line: str) -> None:
    """Write a line to stderr; a closed or full stderr changes nothing about the exit code."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
