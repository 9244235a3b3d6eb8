"""Embed classes into a bundle: ``python export/embed_text.py --bundle BUNDLE --classes voc-20``.

A vocabulary in a bundle goes by its name (``set_classes("voc-20")``) and needs no text encoder at run time:
a robot may carry a bundle without one. For a file of its own there is ``pixelclip vocab build``.

The vocabulary is written to a place that the bundle's manifest does not list, then the manifest is replaced
in one step. Interrupted anywhere, or on a full disk, the bundle is the old one or the new one, whole. A kill
may leave a file that no manifest lists; nothing reads it, and embedding that name again overwrites it.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk import Bundle, OutputError, PixelClipError, Vocabulary, VocabularyError
from pixelclip_sdk.bundle import MANIFEST, VOCABULARIES
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.files import atomic_write, sha256
from pixelclip_sdk.words.classes import Classes, class_lists
from pixelclip_sdk.words.text_encoder import TextEncoder
from pixelclip_sdk.words.vocabulary import read_classes

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

__all__ = ["add_vocabularies", "check_name", "main", "named_classes", "write_vocabularies"]


def check_name(name: str) -> None:
    """Check what a vocabulary is to be called.

    Raises:
        VocabularyError: It cannot be.
    """
    # No dot: in a file's name it ends the vocabulary's name.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise VocabularyError(
            f"a vocabulary cannot be named {name!r}; "
            "expected at most 64 small letters, digits, '-' and '_', e.g. 'rooms'"
        )


def write_vocabularies(
    folder: Path, encoder: TextEncoder, classes: Mapping[str, Classes], *, listed: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Embed classes and write them into a bundle's folder, for its manifest to list.

    Args:
        folder: The bundle's folder; a manifest need not be there yet.
        encoder: The bundle's text encoder.
        classes: Name of each vocabulary → its words, e.g. ``{"voc-20": "voc-20"}`` for a list of the SDK.
        listed: Files that a manifest lists and that are not touched. A vocabulary goes to
            ``vocabularies/NAME.npz``, or to ``vocabularies/NAME.2.npz`` if the first is listed.

    Returns:
        Relative path → ``{"size": bytes, "sha256": hex}`` of each file: entries for ``Bundle.files``.

    Raises:
        VocabularyError: A name or words cannot be used; nothing was written.
        BackendError: The text encoder failed; nothing was written.
        OutputError: A file cannot be written.
    """
    for name in classes:
        check_name(name)
    made = {name: Vocabulary.encode(words, encoder) for name, words in classes.items()}
    files: dict[str, dict[str, Any]] = {}
    try:
        for name, vocabulary in made.items():
            places = f"{VOCABULARIES}/{name}.npz", f"{VOCABULARIES}/{name}.2.npz"
            path = next(place for place in places if place not in listed)
            vocabulary.save(folder / path)
            files[path] = {"size": (folder / path).stat().st_size, "sha256": sha256(folder / path)}
    except BaseException:
        _remove(folder, files)
        raise
    return files


def add_vocabularies(bundle: Bundle, classes: Mapping[str, Classes]) -> Bundle:
    """Embed classes into a bundle with its own text encoder; vocabularies of these names are replaced.

    Args:
        bundle: The bundle. If another process adds to it as well, one waits for the other (not on Windows).
        classes: Name of each vocabulary → its words.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: The bundle has no text encoder, or is damaged.
        VocabularyError: A name or words cannot be used.
        BackendError: The text encoder failed.
        OutputError: The bundle cannot be written. It is as it was before.
    """
    with _alone(bundle.path):
        return _add(Bundle.open(bundle.path), classes)


def _add(bundle: Bundle, classes: Mapping[str, Classes]) -> Bundle:
    encoder = TextEncoder(bundle)
    added = write_vocabularies(bundle.path, encoder, classes, listed=bundle.files)
    replaced = {bundle.vocabularies[name] for name in classes if name in bundle.vocabularies}
    kept = {name: entry for name, entry in bundle.files.items() if name not in replaced}
    changed = dataclasses.replace(bundle, files={**kept, **added})
    try:
        with atomic_write(bundle.path / MANIFEST) as temporary:
            temporary.write_text(changed.to_json(), encoding="utf-8")
    except OutputError:
        _remove(bundle.path, added)
        raise
    # Only now: until the manifest was replaced, these were in use.
    _remove(bundle.path, replaced)
    return Bundle.open(bundle.path)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time change a folder: each reads what the one before it wrote."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove(folder: Path, files: Collection[str]) -> None:
    for name in files:
        with contextlib.suppress(OSError):  # Nothing lists it any more: harmless.
            (folder / name).unlink()


def named_classes(text: str, name: str | None = None, *, otherwise: str | None = None) -> tuple[str, Classes]:
    """Words as a command line gives them, and what to call them in a bundle.

    Args:
        text: A list such as ``"voc-20"``, a ``.txt`` or ``.json`` file, or ``"cat, sofa"``.
        name: What to call them; None for the list's or the file's name.
        otherwise: What to call them if nothing else gives them a name.

    Raises:
        VocabularyError: The words cannot be read, are embedded already, or have no name.
    """
    words = read_classes(text)
    if isinstance(words, Vocabulary):
        raise VocabularyError(
            f"{text} is embedded already; expected words to embed with the bundle's encoder"
        )
    if name is None and Path(text).suffix.lower() in (".txt", ".json"):
        name = Path(text).stem.lower()
    if name is None and text.strip() in class_lists():
        name = text.strip()
    if name is None:
        name = otherwise
    if name is None:
        raise VocabularyError(
            f"the words {text[:40]!r} have no name to call them by; put them into a file, whose name they "
            "get, or give one with embed_text.py --name"
        )
    return name, words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 it cannot be done, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or its name on this machine")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--classes", help='a list such as voc-20, a .txt or .json file, or "cat, sofa"')
    what.add_argument("--all", action="store_true", help="every list that comes with the SDK")
    parser.add_argument("--name", help="what to call it in the bundle (default: the list's or file's name)")
    options = parser.parse_args(arguments)
    if options.all and options.name:
        parser.error("--name goes with --classes")
    try:
        lists = class_lists() if options.all else [options.classes]
        requested = dict(named_classes(words, options.name) for words in lists)
        bundle = add_vocabularies(find_bundle(options.bundle), requested)
    except PixelClipError as error:
        print(f"embed_text: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embed_text: interrupted; the bundle is whole, as it was or as it was to be", file=sys.stderr)
        return 130
    for name in requested:
        file = bundle.vocabularies[name]
        print(f"{name} → {bundle.path / file} ({bundle.files[file]['size'] / 1e3:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
