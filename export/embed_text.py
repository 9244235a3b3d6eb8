"""Embed classes into a bundle: ``python export/embed_text.py --bundle BUNDLE --classes voc-20``.

A program selects a vocabulary of a bundle by its name and needs no text encoder: ``set_classes("voc-20")``.
To write a vocabulary to a file instead, use ``pixelclip vocab build``.

The name ``background`` is for the words that compete with the classes in ``Segmentation.confidence``. Its
constants come with ``--calibration FILE``, a result of ``benchmarks/calibration.py``.

The manifest is replaced last and in one step: an interrupt, a kill or a full disk leaves a whole bundle.
"""

import argparse
import contextlib
import dataclasses
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.staging import bundle_lock
from pixelclip_sdk import Bundle, OutputError, PixelClipError, Vocabulary, VocabularyError
from pixelclip_sdk.bundle import BACKGROUND, MANIFEST, VOCABULARIES
from pixelclip_sdk.confidence import Calibration
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write, sha256
from pixelclip_sdk.support.json_files import read_json
from pixelclip_sdk.words.classes import Classes, class_lists, parse_classes
from pixelclip_sdk.words.text_encoder import TextEncoder
from pixelclip_sdk.words.vocabulary import read_classes

__all__ = [
    "add_vocabularies",
    "check_name",
    "file_entry",
    "main",
    "replace_files",
    "vocabularies",
    "write_vocabularies",
]


def check_name(name: str) -> None:
    """Raise VocabularyError if a vocabulary cannot have this name."""
    # No dot: the name ends at the first dot of the file's name.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise VocabularyError(
            f"a vocabulary cannot be named {name!r}; "
            "expected at most 64 lower-case letters, digits, '-' and '_', e.g. 'rooms'"
        )


def file_entry(path: Path) -> dict[str, Any]:
    """Size and hash of a file, as `Bundle.files` lists them."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def write_vocabularies(
    folder: Path, encoder: TextEncoder, classes: Mapping[str, Classes], *, listed: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Embed classes and write them into a bundle's folder. The caller lists the files in the manifest.

    A vocabulary goes to ``vocabularies/NAME.npz``, or to ``vocabularies/NAME.2.npz`` if the first is `listed`
    in a manifest. Returns relative path → `file_entry`. If an error is raised, nothing was written.
    """
    for name in classes:
        check_name(name)
    embedded = {name: Vocabulary.encode(words, encoder) for name, words in classes.items()}
    files: dict[str, dict[str, Any]] = {}
    try:
        for name, vocabulary in embedded.items():
            candidates = f"{VOCABULARIES}/{name}.npz", f"{VOCABULARIES}/{name}.2.npz"
            path = next(candidate for candidate in candidates if candidate not in listed)
            vocabulary.save(folder / path)
            files[path] = file_entry(folder / path)
    except BaseException:
        _remove(folder, files)
        raise
    return files


def add_vocabularies(
    bundle: Bundle, classes: Mapping[str, Classes], calibration: Calibration | None = None
) -> Bundle:
    """Embed classes into a bundle with its own text encoder; vocabularies with the same names are replaced.

    A `calibration` replaces the constants of the bundle's confidence.

    Waits while another process writes to the bundle's folder. If an error is raised, the bundle is unchanged.
    Returns the changed bundle.
    """
    with bundle_lock(bundle.path):
        bundle = Bundle.open(bundle.path)  # Another process may have replaced it.
        added = write_vocabularies(bundle.path, TextEncoder(bundle), classes, listed=bundle.files)
        before = bundle.vocabulary_files
        replaced = {before[name] for name in classes if name in before}
        changes = {} if calibration is None else {"confidence": calibration._asdict()}
        return replace_files(bundle, added, replaced, **changes)


def replace_files(
    bundle: Bundle, added: Mapping[str, Mapping[str, Any]], replaced: Collection[str], **changes: Any
) -> Bundle:
    """List files in a bundle's manifest that were written into its folder, instead of the `replaced` ones.

    `added` is relative path → `file_entry`, `changes` are other fields of the bundle. The caller has the
    bundle's lock. If an error is raised, the added files are removed and the bundle is unchanged.
    """
    kept = {name: entry for name, entry in bundle.files.items() if name not in replaced}
    changed = dataclasses.replace(bundle, files={**kept, **added}, **changes)
    try:
        with atomic_write(bundle.path / MANIFEST) as temporary:
            temporary.write_text(changed.to_json(), encoding="utf-8")
    except OutputError:
        _remove(bundle.path, added)
        raise
    _remove(bundle.path, replaced)  # Last: the old manifest lists these.
    return Bundle.open(bundle.path)


def read_calibration(file: Path) -> Calibration:
    """Read the constants of ``"calibration"`` in a JSON file; raise PixelClipError if it has none."""
    try:
        return Calibration(**read_json(file)["calibration"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelClipError(
            f"{file} has no calibration: {error!r}. Expected a result of benchmarks/calibration.py"
        ) from error


def _remove(folder: Path, files: Collection[str]) -> None:
    """Remove files that no manifest lists; one that stays is harmless."""
    for name in files:
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def vocabularies(
    texts: Sequence[str], name: str | None = None, *, default: str | None = None
) -> dict[str, Classes]:
    """Vocabulary name → classes, from the options --classes and --name.

    Each text is a class list such as ``"voc-20"``, a ``.txt`` or ``.json`` file, or ``"cat, sofa"``. Its name
    is `name`, else that of the list or file, else `default`.
    """
    if name is not None and len(texts) != 1:
        raise VocabularyError(
            f"--name {name} works with one --classes, but there are {len(texts)}; put the classes into "
            "files: their names are used"
        )
    result: dict[str, Classes] = {}
    for text in texts:
        words = read_classes(text)
        if isinstance(words, Vocabulary):
            raise VocabularyError(
                f"{text} is embedded already; expected classes to embed with the bundle's text encoder"
            )
        if Path(text).suffix.lower() in (".txt", ".json"):
            key = name or Path(text).stem.lower()
        else:
            key = name or (text.strip() if text.strip() in class_lists() else default)
        if key is None:
            raise VocabularyError(
                f"the classes {text[:40]!r} need a name in the bundle; give one with --name, or put them "
                "into a file: its name is used"
            )
        if key in result:
            raise VocabularyError(
                f"two vocabularies would be named {key!r}; put the classes into files: their names are used"
            )
        check_name(key)
        result[key] = parse_classes(words)  # Now, since an export would fail only at its end.
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(prog="embed_text.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or a model's name")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", help='a class list such as voc-20, a .txt or .json file, or "cat, sofa"')
    words.add_argument("--all", action="store_true", help="every class list of the SDK")
    parser.add_argument("--calibration", type=path, metavar="FILE", help="with --name background: see above")
    parser.add_argument("--name", help="name of the vocabulary (default: the name of the list or file)")
    options = parser.parse_args(arguments)
    if options.all and options.name:
        parser.error("--name works with --classes only")
    if options.calibration and options.name != BACKGROUND:
        parser.error(f"--calibration requires --name {BACKGROUND}")
    return run_command("embed_text", lambda: _run(options), interrupted="the bundle is unchanged or complete")


def _run(options: argparse.Namespace) -> int:
    texts = class_lists() if options.all else [options.classes]
    requested = vocabularies(texts, options.name)
    calibration = read_calibration(options.calibration) if options.calibration else None
    bundle = add_vocabularies(find_bundle(options.bundle), requested, calibration)
    for name in requested:
        file = bundle.vocabulary_files[name]
        print(f"{name} → {bundle.path / file} ({bundle.files[file]['size'] / 1e3:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
