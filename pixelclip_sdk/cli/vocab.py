"""`pixelclip vocab`: embed words into a file, list the class lists, show a vocabulary."""

import argparse
from typing import Any

import numpy as np

from pixelclip_sdk.cli import common
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable
from pixelclip_sdk.words.classes import class_list, class_lists
from pixelclip_sdk.words.vocabulary import Vocabulary


def add_parser(commands: common.Parsers) -> None:
    """Add the verb and its own verbs."""
    parser = commands.add_parser("vocab", help="embed words once, list class lists, show a vocabulary")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    build = verbs.add_parser("build", help="embed words into a .npz, which needs no text encoder later")
    build.add_argument("classes", help=common.CLASSES_HELP)
    build.add_argument("--out", required=True, type=path, metavar="FILE.npz")
    common.add_model_option(build)
    build.set_defaults(run=_build)

    listing = verbs.add_parser("list", help="list the class lists that --classes takes by name")
    common.add_model_option(listing)
    common.add_json_option(listing)
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show the names of a .npz, each with its most similar other name")
    show.add_argument("file", type=path, metavar="FILE.npz")
    common.add_json_option(show)
    show.set_defaults(run=_show)


def _build(options: argparse.Namespace) -> int:
    with Segmenter.from_pretrained(options.model, backend="onnx", device="cpu") as segmenter:
        vocabulary = segmenter.set_classes(common.parse_classes(options.model, options.classes))
    file = vocabulary.save(options.out)
    print(f"{len(vocabulary)} names → {printable(str(file))} ({file.stat().st_size / 1e3:.0f} kB)")
    return 0


def _list(options: argparse.Namespace) -> int:
    bundle = find_bundle(options.model)
    rows: list[dict[str, Any]] = []
    for name in sorted({*class_lists(), *bundle.vocabularies}):
        precomputed = name in bundle.vocabularies
        if precomputed:
            names = list(Vocabulary.load(bundle.file(bundle.vocabularies[name])).names)
            state = f"precomputed in {bundle.name}"
        else:
            names = list(class_list(name))
            state = f"not usable: {bundle.name} has no text encoder"
            if bundle.has_text_encoder:
                state = f"uses the text encoder of {bundle.name}"
        usable = precomputed or bundle.has_text_encoder
        rows.append({"name": name, "precomputed": precomputed, "usable": usable, "names": names})
        if not options.json:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            print(printable(f"{name:<20} {len(names):>5}  {shown}  ({state})"))
    if options.json:
        common.print_json({"model": bundle.name, "lists": rows})
    return 0


def _show(options: argparse.Namespace) -> int:
    vocabulary = Vocabulary.load(options.file)
    cosines = vocabulary.embeddings @ vocabulary.embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    single = len(vocabulary) == 1
    rows: list[dict[str, Any]] = []
    for name, row in zip(vocabulary.names, cosines, strict=True):
        rows.append(
            {
                "name": name,
                "synonyms": [synonym for synonym in vocabulary.synonyms[name] if synonym != name],
                "nearest": None if single else vocabulary.names[row.argmax()],
                "cosine": None if single else round(float(row.max()), 4),
            }
        )
    width = vocabulary.embeddings.shape[1]
    templates = list(vocabulary.templates)
    if options.json:
        common.print_json({"embedding_dim": width, "templates": templates, "names": rows})
        return 0
    print(printable(f"{len(vocabulary)} names, embedding width {width}, templates: {templates}"))
    for entry in rows:
        also = f" (also {', '.join(entry['synonyms'])})" if entry["synonyms"] else ""
        nearest = f"nearest: {entry['nearest']} {entry['cosine']:.2f}" if entry["nearest"] else ""
        print(printable(f"{entry['name'] + also:<40} {nearest}".rstrip()))
    return 0
