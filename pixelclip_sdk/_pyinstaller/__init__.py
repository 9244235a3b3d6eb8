"""The PyInstaller hook of this package. PyInstaller finds it through the entry point ``pyinstaller40``."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folders with PyInstaller hooks."""
    return [str(Path(__file__).parent)]
