"""Text in images: the bundled font, and the fonts of the system."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk.support import fonts

FONTS = Path(fonts.__file__).parents[1] / "assets" / "fonts"
BUNDLED, LAST = FONTS / "DejaVuSans.ttf", FONTS / "Unifont.otf"


@pytest.fixture
def latin_font(tmp_path) -> Path:
    """Pillow's own font, which has Latin letters only."""
    pytest.importorskip("PIL._imagingft")
    file = tmp_path / "latin.ttf"
    content = ImageFont.load_default(20).path
    assert isinstance(content, io.BytesIO)
    file.write_bytes(content.getvalue())
    return file


@pytest.fixture
def only(monkeypatch):
    """Makes a machine that has the given fonts and no others."""

    def install(own: Path, *system: Path, last: Path = BUNDLED) -> None:
        monkeypatch.setattr(fonts, "_OWN_FONT", own)
        monkeypatch.setattr(fonts, "_LAST_FONT", last)
        monkeypatch.setattr(fonts, "_system_fonts", lambda: system)
        fonts._font_file.cache_clear()

    yield install
    fonts._font_file.cache_clear()


def drawn(text: str, size: int = 24) -> np.ndarray:
    image = Image.new("RGB", (300, 60), "white")
    fonts.draw_text(ImageDraw.Draw(image), (10, 30), text, size)
    return np.asarray(image)


def reference(text: str, file: Path, size: int = 24) -> np.ndarray:
    image = Image.new("RGB", (300, 60), "white")
    font = ImageFont.truetype(str(file), size)
    ImageDraw.Draw(image).text((10, 30), text, fill="black", font=font, anchor="lm")
    return np.asarray(image)


@pytest.mark.parametrize("text", ["cat", "Kätzchen", "кошка", "γάτα", "två ord"])
def test_the_bundled_font_draws_european_scripts(text, only):
    only(BUNDLED)
    assert fonts.can_draw(text)
    np.testing.assert_array_equal(drawn(text), reference(text, BUNDLED))
    box = reference("\U0010ffff", BUNDLED)
    assert all((drawn(letter) != box).any() for letter in text)


@pytest.mark.parametrize(
    "text", ["猫", "自転車", "고양이", "नीला", "বিড়াল", "தமிழ்", "నీలం", "แมว", "አማርኛ", "ខ្មែរ", "ᠮᠣᠩᠭᠣᠯ"]
)
def test_the_second_bundled_font_draws_all_other_scripts(text, only):
    only(BUNDLED, last=LAST)
    assert fonts.can_draw(text)
    np.testing.assert_array_equal(drawn(text), reference(text, LAST))
    assert len({drawn(letter).tobytes() for letter in text}) == len(set(text))
    assert not any((drawn(letter) == reference("\U0010ffff", LAST)).all() for letter in text)


def test_a_font_of_the_system_is_preferred_to_the_coarse_one(latin_font, only):
    only(latin_font, BUNDLED, last=LAST)
    np.testing.assert_array_equal(drawn("кот"), reference("кот", BUNDLED))
    np.testing.assert_array_equal(drawn("猫"), reference("猫", LAST))


@pytest.mark.parametrize("text", ["\U0010fffe", "a\U0010fffe"])
def test_characters_that_no_font_has(text, only):
    only(BUNDLED, last=LAST)
    assert not fonts.can_draw(text)


def test_other_scripts_are_drawn_with_a_system_font(latin_font, only, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    only(latin_font, last=latin_font)
    assert fonts.can_draw("cat")
    assert not fonts.can_draw("кот")
    only(latin_font, broken, BUNDLED)
    assert fonts.can_draw("кот")
    np.testing.assert_array_equal(drawn("кот"), reference("кот", BUNDLED))
    np.testing.assert_array_equal(drawn("cat"), reference("cat", latin_font))


def test_a_text_of_two_fonts_is_drawn_part_by_part(latin_font, only):
    only(latin_font, BUNDLED)
    latin, bundled = (ImageFont.truetype(str(file), 24) for file in (latin_font, BUNDLED))
    expected = latin.getlength("cat ") + bundled.getlength("кот")
    assert fonts.text_width("cat кот", 24) == pytest.approx(expected)
    ink = (drawn("cat кот") < 255).any(axis=(0, 2))
    assert ink[10 : 10 + round(expected)].any()
    assert not ink[12 + round(expected) :].any()
    space = 10 + round(latin.getlength("cat"))
    np.testing.assert_array_equal(drawn("cat кот")[:, :space], drawn("cat")[:, :space])


def test_the_fonts_of_this_system_are_files():
    assert all(file.is_file() for file in fonts._system_fonts())
