"""The labeling configuration of a Label Studio project: which words, in which picture."""

import dataclasses
from xml.parsers import expat

from pixelclip_sdk.serve.errors import ServeError

__all__ = ["Labeling", "parse_labeling"]

_LONGEST = 1 << 20


@dataclasses.dataclass(frozen=True)
class Labeling:
    """What results refer to.

    Attributes:
        from_name: Name of the tag ``BrushLabels``.
        to_name: Name of the tag ``Image``.
        field: Name of the field of a task that holds the picture.
        words: The labels, by their aliases where they have one.
    """

    from_name: str
    to_name: str
    field: str
    words: list[str]


def parse_labeling(text: str) -> Labeling:
    """Find the first ``BrushLabels`` of a configuration, and its picture.

    The text comes from a client: a document type, with which entities grow without bound, is refused.

    Raises:
        ServeError: 422, because the text is no XML, or has no BrushLabels for an Image.
    """
    if len(text) > _LONGEST:
        raise ServeError(413, f"label_config has {len(text)} characters; expected at most {_LONGEST}")
    tags: list[tuple[str, dict[str, str], int]] = []  # Name, attributes, place of the parent.
    open_tags: list[int] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        tags.append((name, attributes, open_tags[-1] if open_tags else -1))
        open_tags.append(len(tags) - 1)

    def refuse(*_: object) -> None:
        raise ServeError(422, "label_config has a DOCTYPE; expected a labeling configuration without one")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: open_tags.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise ServeError(422, f"label_config is not XML: {error}") from None
    pictures = {values.get("name"): values.get("value", "") for name, values, _ in tags if name == "Image"}
    for place, (name, values, _) in enumerate(tags):
        to_name = values.get("toName", "")
        if name != "BrushLabels" or not pictures.get(to_name, "").startswith("$"):
            continue
        # An alias is what Label Studio writes into results in place of the value.
        words = [
            label.get("alias") or label.get("value", "")
            for tag, label, parent in tags
            if parent == place and tag == "Label"
        ]
        if words:
            return Labeling(values.get("name", ""), to_name, pictures[to_name][1:], words)
    raise ServeError(
        422,
        'label_config has no labels for a picture; expected <Image name="image" value="$image"/> and '
        '<BrushLabels name="tag" toName="image"> with <Label value="cat"/>',
    )
