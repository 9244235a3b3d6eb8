"""Class names in text: the conventions of other tools, read without extra packages.

=================================  =============================================================
``cat, sofa``                      also separated by ``;``, ``|`` or tabs
``cat . sofa .``                   the captions of GroundingDINO
one class per line                 synonyms after commas, ``|`` or tabs; ``#`` starts a comment
one line                           ``cat, sofa``: as many classes as on the command line
``0: cat``, ``1 cat``, ``0,cat``   lines numbered in order from 0 or 1, also ``cat 0``, ``cat: 0``
``cat:128,0,0::``                  the labelmap.txt of VOC and CVAT; colours are ignored
``n02123045 tabby, tabby cat``     the synset_words.txt of ImageNet; ids are ignored
``["cat", "sofa"]``                JSON, also ``{"cat": ["cat", "kitten"]}``
``{0: cat, 1: sofa}``              JSON or one flat YAML list or mapping, ids in order from 0 or 1
``- cat``                          a YAML list of one level
``names:``                         this key of a YAML file (data.yaml), in any of the forms above
=================================  =============================================================

Everything else is refused with a `VocabularyError`.
"""

import json
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pixelclip_sdk.errors import VocabularyError

_SEPARATORS = ",;|\t"
# Names behind or before an id.
_NUMBERED_LINE = re.compile(r"(?P<id>\d{1,6})(?:\s*[:.),;]\s*|\s+)(?P<name>\S.*)")
# A name ends in no space: otherwise the time grows with the square of the spaces in a line.
_TRAILING_ID = re.compile(r"(?P<name>\S(?:.*?\S)??)(?:\s*[:,;|]\s*|\s+)(?P<id>\d{1,6})")
# Lines of other tools, in which only the name counts.
_LABELMAP = re.compile(r"(?P<name>[^:]+):(\d+,\d+,\d+)?:[^:]*:[^:]*")
_YAML_ITEM = re.compile(r"-\s+(?P<name>\S.*)")
_SYNSET = re.compile(r"n\d{8}\s+(?P<name>\S.*)")
_NUMBERED_ITEM = re.compile(r"(?P<id>\d{1,6})\s*:\s*(?P<name>\S.*)")
_YAML_NAMES = re.compile(r"^names\s*:(.*)$", re.MULTILINE)
_FLAT_YAML = re.compile(r"\[[^][{}]*\]|\{[^][{}]*\}")


def parse_line(text: str) -> list[str] | dict[str, Any]:
    """Return names, or name → synonyms, of text that a person typed. The names are not checked yet."""
    text = text.strip()
    if text[:1] in ("[", "{") or len(text.splitlines()) > 1 or _YAML_NAMES.match(text):
        return parse_lines(text)
    items = _split(text)
    return _unnumbered(items, _NUMBERED_ITEM) if len(items) > 1 else items


def parse_lines(text: str) -> list[str] | dict[str, Any]:
    """Read the content of a file: as `parse_line`, but commas in several lines separate synonyms."""
    text = text.strip()
    if text[:1] in ("[", "{"):
        return _structured(text)
    if names := _YAML_NAMES.search(text):
        return _yaml_names(names[1], text[names.end() :])
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line != "---"]
    for pattern in (_YAML_ITEM, _LABELMAP, _SYNSET):
        found = [match["name"] for line in lines if (match := pattern.fullmatch(line))]
        if found and len(found) == len(lines):
            lines = found
            break
    else:
        if len(lines) == 1:
            return parse_line(lines[0].removesuffix(","))
    if len(lines) > 1:
        lines = _unnumbered(lines, _NUMBERED_LINE)
    for line in lines:
        if re.match(r"[\w-]+:([\s\d]|$)", line):
            raise VocabularyError(f"the line {shown(line)} has a key; expected classes, or the key `names:`")
    texts = [_split(line.removesuffix(",")) for line in lines]
    for line, parts in zip(lines, texts, strict=True):
        if not parts:
            raise VocabularyError(f"the line {shown(line)} has no name; expected a class, or no such line")
        if len(parts) > 1 and any(re.fullmatch(r"[\d.]+", part) for part in parts):
            raise VocabularyError(f"the line {shown(line)} has a column of numbers; expected only names")
    return _mapping([(parts[0], parts) for parts in texts])


def names_by_id(classes: Mapping[Any, Any]) -> list[Any] | None:
    """Return the values of an id → name mapping in order, or None for another mapping."""
    if any(isinstance(value, list | tuple) for value in classes.values()):  # Synonyms of a name such as "7".
        return None
    ids = [int(key) if isinstance(key, str) and re.fullmatch(r"\d{1,6}", key) else key for key in classes]
    if not ids or not all(type(key) is int for key in ids):
        return None
    ordered = sorted(zip(ids, classes.values(), strict=True), key=operator.itemgetter(0))
    _check_ids([number for number, _ in ordered])
    return [name for _, name in ordered]


def shown(value: object) -> str:
    """Return a short repr of anything, for messages."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # A number of more than 4300 digits, or deep nesting.
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _split(line: str) -> list[str]:
    """Split one line at its separator."""
    found = [separator for separator in _SEPARATORS if separator in line]
    if len(found) > 1:
        raise VocabularyError(
            f"the classes {shown(line)} mix the separators {' and '.join(map(repr, found))}; expected one"
        )
    if found:
        parts = line.split(found[0])
        # A final semicolon ends the list. An empty word between commas is a typing error.
        return [_unquoted(part) for part in (parts if found[0] == "," or parts[-1].strip() else parts[:-1])]
    if line.endswith(".") or re.search(r"\s\.\s", line):
        return [part for part in re.split(r"(?<!\s)\s*\.(?:\s+|$)", line) if part]
    return [_unquoted(line)] if line else []


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] not in ('"', "'"):
        return text
    if len(text) < 2 or text[-1] != text[0]:
        raise VocabularyError(
            f"{shown(text)} has one quotation mark; expected a pair. For names with commas use a JSON list."
        )
    return text[1:-1]


def _unnumbered(items: list[str], pattern: re.Pattern[str]) -> list[str]:
    """Remove the ids before (`pattern`) or behind all items."""
    found = [match for item in items if (match := pattern.fullmatch(item))]
    if len(found) == len(items) - 1 > 1 and not pattern.fullmatch(items[0]):
        raise VocabularyError(
            f"the first line {shown(items[0])} has no number, and all others have one; remove a heading"
        )
    if len(found) < len(items):
        found = [match for item in items if (match := _TRAILING_ID.fullmatch(item))]
        # Not an id: "boeing 747", and "floor 1", "floor 2".
        if len({match["name"] for match in found}) < len(items) or found[0]["id"] not in ("0", "1"):
            return items
    _check_ids([int(match["id"]) for match in found])
    return [match["name"] for match in found]


def _check_ids(numbers: Sequence[int]) -> None:
    if not numbers or list(numbers) != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        few = ", ".join(map(shown, numbers[:4]))
        raise VocabularyError(
            f"the classes have the ids {few}{', …' if len(numbers) > 4 else ''}; expected 0, 1, 2, … or "
            "1, 2, 3, …, because a label is the position of its class. Give the names alone, in order."
        )


def _structured(text: str) -> list[str] | dict[str, Any]:
    """Read JSON, or one flat YAML list or mapping."""
    try:
        loaded: list[str] | dict[str, Any] = json.loads(text, object_pairs_hook=_mapping)
    except VocabularyError:
        raise
    except (ValueError, RecursionError) as error:
        loaded = _flat_yaml(text, error)
    if isinstance(loaded, dict):
        for key in ("names", "id2label"):  # A dataset's or a model's configuration.
            if isinstance(inner := loaded.get(key), dict):
                loaded = inner
    return loaded


def _flat_yaml(text: str, error: Exception) -> list[str] | dict[str, Any]:
    if not _FLAT_YAML.fullmatch(text):
        raise VocabularyError(
            f"{shown(text)} is not JSON ({shown(error)}) and not a flat YAML list; "
            'expected e.g. ["cat", "sofa"]'
        ) from error
    parts = text[1:-1].strip().removesuffix(",").split(",")
    if text[0] == "[":
        return [_unquoted(part) for part in parts]
    pairs = [part.partition(":") for part in parts]
    if not all(colon for _, colon, _ in pairs):
        raise VocabularyError(f'{shown(text)} is not a mapping; expected e.g. {{"cat": ["cat", "kitten"]}}')
    if all(re.fullmatch(r"\s*\d+\s*", value) for _, _, value in pairs):
        raise VocabularyError(f"{shown(text)} maps names to ids; expected e.g. {{0: cat, 1: sofa}}")
    return _mapping([(_unquoted(key), _unquoted(value)) for key, _, value in pairs])


def _yaml_names(first: str, rest: str) -> list[str] | dict[str, Any]:
    """Read the value of the key `names` of a YAML file."""
    own = re.split(r"^\w+\s*:", rest, maxsplit=1, flags=re.MULTILINE)[0]  # Up to the next key.
    text = re.sub("#.*", "", first + own).strip()
    if not text:
        raise VocabularyError("the key `names:` is empty; expected a list of classes")
    return parse_lines(text)


def _mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict and refuse repeated names."""
    classes: dict[str, Any] = {}
    for name, texts in pairs:
        if name in classes:
            raise VocabularyError(f"the name {shown(name)} is repeated; expected each class once")
        classes[name] = texts
    return classes
