"""Fonts for text in images.

Two fonts come with the package. DejaVu Sans covers Latin, Greek, Cyrillic and more. For other scripts, the
fonts of the operating system are searched. What none of them has is drawn with Unifont, which has every
script of Unicode's basic plane in coarse letters.
"""

import functools
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

from pixelclip_sdk.support.files import files_below

_FONTS = Path(__file__).parents[1] / "assets" / "fonts"
_OWN_FONT, _LAST_FONT = _FONTS / "DejaVuSans.ttf", _FONTS / "Unifont.otf"
# A code point that no font has. Fonts draw their placeholder for it, usually a box.
_NO_CHARACTER = "\U0010ffff"
# An odd size, which only scalable fonts have: bitmap fonts could not be drawn at the size of the text.
_PROBE_SIZE = 17


def can_draw(text: str) -> bool:
    """Whether there are fonts for all characters of a text."""
    return all(_font_file(character) is not None for character in text)


def text_width(text: str, size: int) -> float:
    """Width in pixels of a text that is drawn at a font size in pixels."""
    return sum(font.getlength(part) for part, font in _parts(text, size))


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int) -> None:
    """Draw a text in black, with a placeholder for characters that no font has.

    `place` is `(x, y)` of the left end of the text and the middle of the line; `size` is in pixels.
    """
    x, y = place
    for part, font in _parts(text, size):
        draw.text((x, y), part, fill="black", font=font, anchor="lm")
        x += font.getlength(part)


def _parts(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    """Splits a text into parts that one font can draw."""
    for file, characters in itertools.groupby(text, lambda character: _font_file(character) or _OWN_FONT):
        yield "".join(characters), _load(file, size)


@functools.lru_cache(maxsize=4096)
def _font_file(character: str) -> Path | None:
    """The first font file that has a character; None if there is none."""
    for file in (_OWN_FONT, *_system_fonts(), _LAST_FONT):
        try:
            # The simple layout engine, because others put a dotted circle under a single combining mark.
            font = _load(file, _PROBE_SIZE, ImageFont.Layout.BASIC)
            drawn, placeholder = font.getmask(character), font.getmask(_NO_CHARACTER)
            if drawn.size != placeholder.size or bytes(drawn) != bytes(placeholder):
                return file
        except (OSError, ValueError):  # Not a font that FreeType reads at this size.
            continue
    return None


@functools.lru_cache(maxsize=64)
def _load(file: Path, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size, layout_engine=layout)


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """The font files of the operating system, regular styles first."""
    if sys.platform == "win32":
        folders = [r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"]
    elif sys.platform == "darwin":
        folders = ["/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"]
    else:
        folders = ["/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts"]
    files: list[Path] = []
    for folder in folders:
        place = os.path.expandvars(os.path.expanduser(folder))  # noqa: PTH111 (Path's raises without a home)
        files += files_below(Path(place), {".ttf", ".ttc", ".otf"})
    return tuple(sorted(files, key=lambda file: ("regular" not in file.name.lower(), str(file))))
