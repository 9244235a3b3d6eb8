"""How a benchmark's command ends: errors in a line, not a traceback."""

import sys
from collections.abc import Callable
from pathlib import Path

from pixelclip_sdk import PixelClipError

__all__ = ["command"]


def command(main: Callable[[], int]) -> int:
    """Run `main`; return its exit code, 1 where the SDK or a file gave an error, 130 when interrupted."""
    name = Path(sys.argv[0]).stem
    try:
        return main()
    except (PixelClipError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing was written", file=sys.stderr)
        return 130
