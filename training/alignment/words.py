"""Photos and their words, from a JSON or CSV file; the nouns of sentences."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pixelclip_sdk import class_list
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.json_files import parse_json

__all__ = ["known_nouns", "nouns_of", "read_photo_words"]

_LONGEST = 3  # words in a name; longer texts are sentences
_LISTS = ("everyday-nouns", "common-150")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "knives": "knife",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "shelves": "shelf",
    "teeth": "tooth",
    "women": "woman",
    "wolves": "wolf",
}
# In sentences, most of these are verbs, colours, or nothing that covers cells of a picture.
_NOT_SEEN = """
    air arm back bar camera can city collar concrete costume cross doe ear eye face fly foot hand head image
    ledge light metal nose orange park path picture plastic rain ring scale school shore shoulder slide star
    station step stream string sun sunrise sunset swing tongue top toy trunk uniform watch wave wood
"""


def known_nouns() -> frozenset[str]:
    """Returns the nouns that are looked for in sentences: two of the SDK's lists, in lower case."""
    nouns = {text.lower() for name in _LISTS for texts in class_list(name).values() for text in texts}
    return frozenset(nouns.difference(_NOT_SEEN.split()))


def nouns_of(sentence: str, known: Collection[str]) -> set[str]:
    """Returns the known nouns of an English sentence, singular or as they are known.

    The longest noun wins: "a tennis ball" has no "ball".

    Example:
        >>> from training.alignment.words import nouns_of
        >>> sorted(nouns_of("Two dogs chase a tennis ball.", {"dog", "ball", "tennis ball"}))
        ['dog', 'tennis ball']
    """
    tokens = re.findall(r"[^\W\d_]+(?:[-'][^\W\d_]+)*", sentence.lower())
    found: set[str] = set()
    start = 0
    while start < len(tokens):
        for length in range(_LONGEST, 0, -1):
            *head, last = tokens[start : start + length]
            names = [" ".join([*head, form]) for form in _forms(last)]
            if match := next((name for name in names if name in known), None):
                found.add(match)
                start += len(head)
                break
        start += 1
    return found


def _forms(word: str) -> list[str]:
    """Returns a word and what its singular may be."""
    forms = [word]
    if word in _IRREGULAR:
        forms.insert(0, _IRREGULAR[word])
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    return forms


def read_photo_words(file: Path, photos: Path) -> dict[Path, tuple[str, ...]]:
    """Reads which words each photo has.

    A JSON file maps the path of a photo, relative to `photos`, to words or sentences, one text or a list. A
    CSV file has a line for each photo: its path, then words or sentences. A text of up to three words is
    taken as it is; of a longer one, the `known_nouns` are taken.

    Returns:
        Path of a photo → its words, lower case, sorted; photos in the order of their paths. Photos without a
        word are left out.

    Raises:
        PixelClipError: The file cannot be read, is of another form, names a photo that does not exist, or
            gives no photo a word.
    """
    known = known_nouns()
    result: dict[Path, tuple[str, ...]] = {}
    for name, texts in sorted(_read(file).items()):
        path = photos / name
        if not path.is_file():
            raise PixelClipError(
                f"{file} names the photo {name!r}, but there is no {path}; expected paths in {photos}"
            )
        words: set[str] = set()
        for text in texts:
            short = " ".join(text.lower().split())
            words |= {short} if len(short.split()) <= _LONGEST else nouns_of(text, known)
        if words := {word for word in words if word}:
            result[path] = tuple(sorted(words))
    if not result:
        raise PixelClipError(f"{file} gives no photo a word")
    return result


def _read(file: Path) -> Mapping[str, Sequence[str]]:
    expected = 'expected {"photo.jpg": ["word", "a sentence"]} (JSON) or lines of photo.jpg,word,… (CSV)'
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".csv":
            rows = [row for row in csv.reader(text.splitlines()) if row]
            content: object = {row[0]: row[1:] for row in rows}
        else:
            content = parse_json(text)
    except (OSError, ValueError, csv.Error) as error:
        raise PixelClipError(f"cannot read words from {file}: {error}; {expected}") from error
    if not isinstance(content, dict):
        raise PixelClipError(f"{file} contains a {type(content).__name__}; {expected}")
    result = {}
    for name, value in content.items():
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
            raise PixelClipError(f"{file} has {value!r} for {name!r}; {expected}")
        result[name] = texts
    return result
