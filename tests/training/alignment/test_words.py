import json

import pytest

from pixelclip_sdk import PixelClipError
from training.alignment.words import known_nouns, nouns_of, read_photo_words


@pytest.fixture
def photos(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Two dogs chase a tennis ball in the leaves .", {"dog", "tennis ball", "leaves"}),
        ("Men and women ride BUSES past the cherries", {"man", "woman", "bus", "cherry"}),
        ("The glass on the table", {"glass", "table"}),  # not "glas"
        ("She does watch the camera", set()),  # does is no doe, watch is a verb
        ("", set()),
    ],
)
def test_the_nouns_of_a_sentence(sentence, expected):
    assert nouns_of(sentence, known_nouns()) == expected


def test_words_are_taken_as_they_are_and_sentences_are_read(photos):
    words = {
        "b.jpg": ["Valio Vanilla Yoghurt", "milk"],
        "a.jpg": "A brown dog runs on the beach.",
        "c.jpg": [],
    }
    (photos / "words.json").write_text(json.dumps(words))
    assert read_photo_words(photos / "words.json", photos) == {
        photos / "a.jpg": ("beach", "dog"),
        photos / "b.jpg": ("milk", "valio vanilla yoghurt"),
    }


def test_a_table_says_the_same(photos):
    (photos / "words.csv").write_text(
        'a.jpg,"A brown dog runs, on the beach."\n\nb.jpg,milk,Valio Vanilla Yoghurt\n'
    )
    assert read_photo_words(photos / "words.csv", photos) == {
        photos / "a.jpg": ("beach", "dog"),
        photos / "b.jpg": ("milk", "valio vanilla yoghurt"),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"d.jpg": ["dog"]}', "names the photo 'd.jpg', but there is no"),
        ('["dog"]', "contains a list; expected"),
        ('{"a.jpg": 3}', "has 3 for 'a.jpg'; expected"),
        ('{"a.jpg": ["dog"', "cannot read words from"),
        ('{"a.jpg": []}', "gives no photo a word"),
    ],
)
def test_other_files_are_refused(photos, content, said):
    (photos / "words.json").write_text(content)
    with pytest.raises(PixelClipError, match=said):
        read_photo_words(photos / "words.json", photos)
