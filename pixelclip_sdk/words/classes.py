"""Class names as people give them: words, lists, files, and the lists that come with the SDK."""

import contextlib
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.support.hints import did_you_mean

__all__ = [
    "CLASS_FILES",
    "MAX_CLASSES",
    "MAX_NAME_LENGTH",
    "Classes",
    "check_list_name",
    "class_list",
    "class_lists",
    "parse_classes",
    "read_class_file",
]

MAX_CLASSES = 4096
MAX_NAME_LENGTH = 200

Classes = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names: ``"cat, sofa"``, ``["cat", "sofa"]``, with synonyms ``{"cat": ["cat", "kitten"]}``, or ``"voc-20"``,
the name of a list of `class_lists`."""

CLASS_FILES = (".txt", ".json", ".npz")
"""Suffixes of files with classes; see `pixelclip_sdk.words.vocabulary.read_classes`."""

_LISTS = Path(__file__).parents[1] / "assets" / "classes"


def class_lists() -> list[str]:
    """Names of the lists that come with the SDK: benchmarks' classes in label order, and everyday words."""
    return sorted(path.stem for path in _LISTS.glob("*.txt"))


def class_list(name: str) -> dict[str, tuple[str, ...]]:
    """One of the lists that come with the SDK.

    Args:
        name: A name of `class_lists`, e.g. ``"voc-20"``.

    Returns:
        Name → synonyms, in label order.

    Raises:
        VocabularyError: There is no such list.
    """
    if name not in class_lists():
        hint = did_you_mean(name.casefold(), class_lists())
        raise VocabularyError(f"no list of classes {name!r}.{hint} There are: {', '.join(class_lists())}")
    return parse_classes(read_class_file(_LISTS / f"{name}.txt"))


def parse_classes(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Check names and bring them into one form.

    Args:
        classes: The words; see `Classes`. Surrounding blanks are dropped.

    Returns:
        Name → synonyms, in label order. A class without synonyms of its own has its name as the only one.

    Raises:
        VocabularyError: There are no names, more than 4 096, one is empty, repeated (capitals do not
            count), longer than 200 characters, or no text; or this is nearly the name of a list.
    """
    if isinstance(classes, str):
        if classes.strip() in class_lists():
            return class_list(classes.strip())
        check_list_name(classes, class_lists())
        if "," not in classes and Path(classes).suffix.lower() in CLASS_FILES:
            raise VocabularyError(
                f"{classes[:MAX_NAME_LENGTH]!r} names a file; pass its content: "
                "classes=pixelclip_sdk.read_classes(PATH)"
            )
        classes = _split(classes)
    pairs: Iterable[tuple[str, str | Sequence[str]]]
    if isinstance(classes, Mapping):
        pairs = classes.items()
    elif isinstance(classes, Sequence):
        pairs = [(name, (name,)) for name in classes]
    else:
        raise VocabularyError(f"classes is {type(classes).__name__}; expected names, e.g. ['cat', 'sofa']")
    result: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    for raw, texts in pairs:
        name = _checked(raw, "name")
        if other := seen.get(name.casefold()):
            raise VocabularyError(f"the name {name!r} is repeated (as {other!r}); expected each class once")
        seen[name.casefold()] = name
        if not isinstance(texts, str | list | tuple):
            raise VocabularyError(
                f"the synonyms of {name!r} are a {type(texts).__name__}; expected a text or a list of texts"
            )
        words = [texts] if isinstance(texts, str) else texts
        # dict.fromkeys drops repeated synonyms and keeps their order.
        result[name] = tuple(dict.fromkeys(_checked(word, f"synonym of {name!r}") for word in words))
        if not result[name]:
            raise VocabularyError(
                f"the class {name!r} has an empty list of synonyms; expected at least one text"
            )
    if not result:
        raise VocabularyError("no classes; expected at least one name, e.g. ['cat', 'sofa']")
    if len(result) > MAX_CLASSES:
        raise VocabularyError(
            f"got {len(result)} classes; expected at most {MAX_CLASSES}. Split them over several passes."
        )
    return result


def read_class_file(path: Path) -> Classes:
    """Read a ``.txt`` file (a class a line, synonyms after commas, ``#`` comments) or a ``.json`` file.

    Raises:
        VocabularyError: The file cannot be read, or repeats a name.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            loaded: Classes = json.loads(content, object_pairs_hook=functools.partial(_once, path))
            return loaded
    except VocabularyError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f"classes cannot be read from {path}: {error}.{_hint(path)}") from error
    lines = [_split(line.partition("#")[0]) for line in content.splitlines()]
    return _once(path, [(texts[0], texts) for texts in lines if texts])


def check_list_name(text: str, known: Iterable[str]) -> None:
    """Refuse a single word that is nearly the name of a list: as a class it would be a silent mistake.

    Refused is a word that lacks a name's number or differs by capitals (``"cityscapes"``), and one with a
    hyphen or digit that is close to a name (``"voc-21"``). Other words are not, and words in a list never.

    Args:
        text: Classes in one text.
        known: The lists' names.

    Raises:
        VocabularyError: It is nearly a name.
    """
    word = text.strip()
    names = {name: re.sub(r"-\d+$", "", name) for name in known}
    if word in names:
        return
    near = [name for name, stem in names.items() if word.casefold() in (name, stem)]
    if not near and re.fullmatch(r"[\w-]*[-\d_][\w-]*", word, re.ASCII):
        near = difflib.get_close_matches(
            word.casefold(), names, n=1, cutoff=0.72 if re.search(r"\d", word) else 0.8
        )
    if near:
        raise VocabularyError(
            f"no list of classes {word!r}. Did you mean {near[0]!r}? There are: {', '.join(sorted(names))}. "
            f"If it is the one class you want, write it in a list: [{word!r}]"
        )


def _hint(path: Path) -> str:
    """The nearest name of a list or of a file beside a missing file."""
    if is_file(path) or is_folder(path):
        return ""
    if path.stem in class_lists():
        return f" For the list that comes with the SDK write {path.stem!r}."
    folder, files = path.parent, []
    with contextlib.suppress(OSError):
        files = [p.name for p in folder.iterdir() if p.suffix.lower() in CLASS_FILES]
    near = difflib.get_close_matches(path.name, files, n=1)
    return f" Did you mean {str(folder / near[0])!r}?" if near else ""


def _once(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of what a file holds.

    Raises:
        VocabularyError: It repeats a name.
    """
    classes: dict[str, Any] = {}
    for name, texts in pairs:
        if name in classes:
            raise VocabularyError(f"{path}: the name {name!r} is repeated; expected each class once")
        classes[name] = texts
    return classes


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise VocabularyError(f"a {what} is {text!r} ({type(text).__name__}); expected text")
    stripped = " ".join(text.split())
    if not stripped:
        raise VocabularyError(f"a {what} is empty; expected a word")
    if len(stripped) > MAX_NAME_LENGTH:
        raise VocabularyError(
            f"the {what} {stripped[:40]!r}… has {len(stripped)} characters; "
            f"expected at most {MAX_NAME_LENGTH}"
        )
    if any("\ud800" <= c <= "\udfff" for c in stripped):
        raise VocabularyError(
            f"the {what} {stripped[:40]!a} has half a character (a lone surrogate); expected whole ones"
        )
    return stripped
