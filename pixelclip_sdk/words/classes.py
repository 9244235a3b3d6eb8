"""Class names as people give them: words, lists, files, and the lists that ship with the SDK."""

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.support.files import is_file, is_folder, user_path
from pixelclip_sdk.support.hints import did_you_mean, find_name, folded
from pixelclip_sdk.words.formats import names_by_id, parse_line, parse_lines, shown

MAX_CLASSES = 4096
NOUNS = "everyday-nouns"
"""The class list that `Segmenter.suggest` chooses from. It is long, so its embeddings are cached."""
_MAX_NAME_LENGTH = 200

Classes = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names: ``"cat, sofa"``, ``["cat", "sofa"]``, with synonyms ``{"cat": ["cat", "kitten"]}``, or ``"voc-20"``,
the name of a list of `class_lists`."""

CLASS_FILES = (".txt", ".json", ".npz", ".names", ".yaml", ".yml", ".csv", ".tsv")
"""Suffixes of files with classes; see `pixelclip_sdk.words.vocabulary.read_classes`."""

_MAX_FILE_SIZE = 4 << 20
_LISTS = Path(__file__).parents[1] / "assets" / "classes"


def class_lists() -> list[str]:
    """Return the names of the class lists that ship with the SDK: benchmarks and everyday nouns.

    Examples:
        >>> from pixelclip_sdk import class_lists
        >>> "voc-20" in class_lists()
        True
    """
    return sorted(path.stem for path in _LISTS.glob("*.txt"))


def class_list(name: str) -> dict[str, tuple[str, ...]]:
    """Return a class list that ships with the SDK.

    Args:
        name: A name of `class_lists`, e.g. ``"voc-20"``, in upper or lower case.

    Returns:
        Name → synonyms, in label order.

    Raises:
        VocabularyError: No list has that name.

    Examples:
        >>> from pixelclip_sdk import class_list
        >>> list(class_list("voc-20"))[:3]
        ['aeroplane', 'bicycle', 'bird']
    """
    file_name = find_name(name, class_lists())
    if file_name is None:
        check_list_name(name, class_lists())
        hint = did_you_mean(name.casefold(), class_lists())
        raise VocabularyError(f"no list of classes {shown(name)}.{hint} Lists: {', '.join(class_lists())}")
    return parse_classes(read_class_file(_LISTS / f"{file_name}.txt"))


def parse_classes(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Check class names and return name → synonyms, in label order.

    A class without synonyms has its name as the only one. Surrounding spaces are removed, and letters are
    normalised to Unicode NFC. `pixelclip_sdk.words.formats` describes the forms of text.

    Raises:
        VocabularyError: There are no names or more than 4 096; a name is empty, repeated (ignoring case),
            longer than 200 characters or not text; or the text is nearly the name of a list or is a path.
    """
    if isinstance(classes, str):
        if find_name(classes.strip(), class_lists()):
            return class_list(classes.strip())
        check_no_path(classes)
        check_list_name(classes, class_lists())
        classes = parse_line(classes)
    if isinstance(classes, Mapping):
        classes = names_by_id(classes) or classes
    if not isinstance(classes, Mapping | Sequence) or isinstance(classes, bytes | bytearray):
        raise VocabularyError(f"classes is {type(classes).__name__}; expected names, e.g. ['cat', 'sofa']")
    pairs = classes.items() if isinstance(classes, Mapping) else [(name, (name,)) for name in classes]
    result: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    for raw, texts in pairs:
        name = _checked(raw, "name")
        if isinstance(classes, list) and len(classes) == 1 and "," in name:
            raise VocabularyError(
                f"{shown(name)} is one name; expected one per item: {shown(re.split(' *, *', name))}. "
                f"If it is one class, write it with its synonyms: {{{shown(name)}: [{shown(name)}]}}"
            )
        key = folded(name)
        if other := seen.get(key):
            form = f" (as {other!r})" if other != name else ""
            raise VocabularyError(f"the name {name!r} is repeated{form}; expected each class once")
        seen[key] = name
        if not isinstance(texts, str | list | tuple):
            raise VocabularyError(f"the synonyms of {name!r} are a {type(texts).__name__}; expected texts")
        words = [texts] if isinstance(texts, str) else texts
        # dict.fromkeys drops repeated synonyms and keeps their order.
        result[name] = tuple(dict.fromkeys(_checked(word, f"synonym of {name!r}") for word in words))
        if not result[name]:
            raise VocabularyError(f"the class {name!r} has an empty list of synonyms; expected at least one")
    if not result:
        raise VocabularyError("no classes; expected at least one name, e.g. ['cat', 'sofa']")
    if len(result) > MAX_CLASSES:
        raise VocabularyError(f"got {len(result)} classes; expected at most {MAX_CLASSES}: split them")
    return result


def read_class_file(path: Path) -> Classes:
    """Read classes from a text, JSON or simple YAML file of at most 4 MiB."""
    try:
        if (size := path.stat().st_size) > _MAX_FILE_SIZE:
            raise VocabularyError(f"it has {size} bytes; expected at most {_MAX_FILE_SIZE}")
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json" and content.strip()[:1] not in ("[", "{"):
            raise VocabularyError("it is not a JSON list or object")
        classes = parse_lines(content)
        parse_classes(classes)  # Raises here, so that the message has the file.
        return classes
    except (OSError, ValueError) as error:  # VocabularyError and UnicodeError are ValueErrors.
        reason = str(error)
        if isinstance(error, UnicodeError):
            reason = f"it is not UTF-8 text ({error}). Save it as UTF-8"
        raise VocabularyError(f"classes cannot be read from {path}: {reason}.{_hint(path)}") from error


def check_list_name(text: str, known: Iterable[str]) -> None:
    """Refuse a single word that is nearly a known list's name, because it would silently become a class.

    Refused are the first words of a name (``"cityscapes"``, ``"coco"``), and a word with a hyphen or digit
    that is close to a name (``"voc-21"``). Words in a list are never refused.
    """
    word, names = text.strip(), sorted(known)
    if not word or find_name(word, names):
        return
    near = [name for name in names if re.match(re.escape(word.casefold()) + "(?![a-z])", name)]
    if not near and len(word) < 40 and re.fullmatch(r"[\w-]*[-\d_][\w-]*", word, re.ASCII):
        cutoff = 0.72 if re.search(r"\d", word) else 0.8
        near = difflib.get_close_matches(word.casefold(), names, n=1, cutoff=cutoff)
    if near:
        raise VocabularyError(
            f"no list of classes {word!r}. Did you mean {near[0]!r}? Lists: {', '.join(names)}. "
            f"If it is the one class you want, write it in a list: [{word!r}]"
        )


def check_no_path(text: str) -> None:
    """Refuse text with the path of a file or folder, because it would silently become a class."""
    if text.strip()[:1] in ("[", "{") or len(text.strip().splitlines()) > 1:
        return
    parts = [part.strip() for part in re.split(r"[,;|\t]", text)]
    for part in parts:
        suffix = Path(part).suffix.lower()
        alone = len(parts) == 1 and ("/" in part or os.sep in part or (suffix and is_file(part)))
        if alone or suffix in CLASS_FILES or part.startswith(("/", "./", "../", "~/")):
            use = "pass its content: classes=pixelclip_sdk.read_classes(PATH)"
            if not is_file(user_path(part)):
                use = "it is a folder" if is_folder(user_path(part)) else "there is no such file"
            elif len(parts) > 1:
                use = "a file goes without other words"
            raise VocabularyError(
                f"{shown(part)} looks like a path; {use}. "
                f"If it is a class, write the classes in a list: [{shown(part)}]"
            )


def _hint(path: Path) -> str:
    """Return a suggestion for a missing file: a list of that name, or a similar file beside it."""
    if is_file(path) or is_folder(path):
        return ""
    if path.stem in class_lists():
        return f" For the list that ships with the SDK write {path.stem!r}."
    folder, files = path.parent, []
    with contextlib.suppress(OSError):
        files = [p.name for p in folder.iterdir() if p.suffix.lower() in CLASS_FILES]
    near = difflib.get_close_matches(path.name, files, n=1)
    return f" Did you mean {str(folder / near[0])!r}?" if near else ""


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise VocabularyError(f"a {what} is {shown(text)} ({type(text).__name__}); expected text")
    # "ü" can be one character or two; without normalisation these would be two classes.
    stripped = " ".join(unicodedata.normalize("NFC", text).split())
    if not stripped:
        raise VocabularyError(f"a {what} is empty; expected a word")
    if len(stripped) > _MAX_NAME_LENGTH:
        raise VocabularyError(
            f"the {what} {stripped[:40]!r}… has {len(stripped)} characters, more than {_MAX_NAME_LENGTH}"
        )
    if any("\ud800" <= c <= "\udfff" for c in stripped):
        raise VocabularyError(f"the {what} {stripped[:40]!a} has half a character (a lone surrogate)")
    return stripped
