"""The labeling configuration of a Label Studio project: which words, in which picture."""

import dataclasses
import hashlib
import json
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
        words: Label → words that the model looks for: `predicted_values`, or the label itself.
        min_confidence: `model_score_threshold`, 0–1: pixels below it get no label. None: all pixels get one.
    """

    from_name: str
    to_name: str
    field: str
    words: dict[str, list[str]]
    min_confidence: float | None

    def classes(self) -> list[str] | dict[str, list[str]]:
        """The classes of the model, one for each label, in their order. Their names are their first words."""
        if all(len(words) == 1 for words in self.words.values()):
            return [word for (word,) in self.words.values()]
        classes = {words[0].strip(): words for words in self.words.values()}
        if len(classes) < len(self.words):
            raise ServeError(
                422, "two labels have the same first word in predicted_values; expected another one"
            )
        return classes

    def digest(self) -> str:
        """A short text that is another one if anything here is."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()[:8]


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
        labels = [label for tag, label, parent in tags if parent == place and tag == "Label"]
        if labels:
            limit = _limit(values.get("model_score_threshold"))
            return Labeling(values.get("name", ""), to_name, pictures[to_name][1:], _words(labels), limit)
    raise ServeError(
        422,
        'label_config has no labels for a picture; expected <Image name="image" value="$image"/> and '
        '<BrushLabels name="tag" toName="image"> with <Label value="cat"/>',
    )


def _words(labels: list[dict[str, str]]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for label in labels:
        # An alias is what Label Studio writes into results in place of the value.
        name = label.get("alias") or label.get("value", "")
        if name in words:
            raise ServeError(422, f"the label {name[:100]!r} is repeated; expected each once")
        words[name] = [word for word in label.get("predicted_values", "").split(",") if word.strip()] or [
            name
        ]
    return words


def _limit(text: str | None) -> float | None:
    try:
        limit = None if text is None else float(text)
    except ValueError:
        limit = -1.0
    if limit is not None and not 0 <= limit <= 1:
        raise ServeError(
            422, f"model_score_threshold is {(text or '')[:100]!r}; expected a number from 0 to 1"
        )
    return limit
