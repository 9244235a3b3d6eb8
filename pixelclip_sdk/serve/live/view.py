"""How the frames of one live connection are segmented: words and settings, which never change in place."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve.engine import Engine, Model, Words
from pixelclip_sdk.serve.errors import ServeError
from pixelclip_sdk.serve.schemas import LiveSettings
from pixelclip_sdk.smoothing import Smoother
from pixelclip_sdk.support.hints import find_name
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["View", "merged"]

_SETTINGS = ("min_confidence", "threshold", "refine", "smooth", "confidence", "source")


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Words and settings of a viewer.

    Attributes:
        model: The model.
        id: The client's number of the settings.
        words: What the client sent; None for the words of the server.
        vocabulary: Its words with their embeddings; None before there are any.
        background: Words that win pixels, which become unknown, as the client sent them.
        background_vocabulary: The same with their embeddings.
        values: The other fields of `LiveSettings` that the client sent.
        unfamiliar: Names of the vocabulary that the model may not know.
    """

    model: Model
    id: int | None = None
    words: Words | None = None
    vocabulary: Vocabulary | None = None
    background: Words | None = None
    background_vocabulary: Vocabulary | None = None
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unfamiliar: tuple[str, ...] = ()

    @classmethod
    def first(cls, engine: Engine) -> "View":
        """What a viewer has who has sent nothing yet."""
        model = engine.model()
        return cls(model=model, vocabulary=_first_words(engine, model))

    async def changed(self, engine: Engine, wanted: LiveSettings) -> "View":
        """Return the view after a client's settings.

        Raises:
            ServeError: A limit, or an unknown model or vocabulary.
            PixelClipError: Words or a setting cannot be used.
        """
        given = wanted.model_fields_set
        model = engine.model(wanted.model) if "model" in given else self.model
        words, background = self.words, self.background
        vocabulary, background_vocabulary = self.vocabulary, self.background_vocabulary
        unfamiliar = self.unfamiliar
        if {"words", "vocabulary"} & given:
            words = wanted.words if wanted.words is not None else wanted.vocabulary
        if "background" in given:
            background = wanted.background
        if words is None:
            vocabulary, unfamiliar = _first_words(engine, model), ()
        elif words != self.words or vocabulary is None or model != self.model:
            vocabulary = await engine.embed(model, words)
            unfamiliar = tuple(model.segmenter.unfamiliar_words(vocabulary))
        if background != self.background or model != self.model:
            background_vocabulary = None if background is None else await engine.embed(model, background)
        values = {**self.values, **{name: getattr(wanted, name) for name in _SETTINGS if name in given}}
        limits = values.get("min_confidence")
        if "min_confidence" not in given and isinstance(limits, Mapping) and vocabulary is not None:
            # Limits of words that are gone.
            kept = {name: limit for name, limit in limits.items() if find_name(name, vocabulary.names)}
            values["min_confidence"] = kept or None
        view = View(
            model=model,
            id=wanted.id,
            words=words,
            vocabulary=vocabulary,
            background=background,
            background_vocabulary=background_vocabulary,
            values=values,
            unfamiliar=unfamiliar,
        )
        if vocabulary is not None:
            view.segmenter  # noqa: B018 (raises for settings that do not fit the words)
        return view

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """A segmenter of the model with these words and settings. Raises ServeError 422 without words."""
        if self.vocabulary is None:
            raise ServeError(422, 'no words yet; send {"type": "settings", "words": "cat, sofa"} first')
        segmenter = self.model.segmenter.with_classes(self.vocabulary)
        if "min_confidence" in self.values:
            segmenter.min_confidence = self.values["min_confidence"]
        if self.values.get("threshold") is not None:
            segmenter.threshold = self.values["threshold"]
        if self.values.get("refine") is not None:
            segmenter.refine = self.values["refine"]
        if self.background_vocabulary is not None:
            segmenter.set_background(self.background_vocabulary)
        return segmenter

    @property
    def confidence(self) -> bool:
        """Whether the client wants the map of confidences."""
        return bool(self.values.get("confidence", True))

    @property
    def smooth(self) -> Any:
        """What the client wants of `Smoother`."""
        return self.values.get("smooth", "auto")

    @property
    def source(self) -> str | None:
        """The server's source that the client watches; None for frames of its own."""
        name: str | None = self.values.get("source")
        return name

    def smoother(self) -> Smoother | None:
        """A new smoother for a video."""
        return Smoother(self.smooth) if self.smooth else None

    def warnings(self) -> list[str]:
        """What a person should know about these words."""
        names = self.vocabulary.names if self.vocabulary else ()
        limited = self.background is not None or any(
            self.values.get(limit) is not None for limit in ("threshold", "min_confidence")
        )
        warnings = []
        if self.unfamiliar:
            few = ", ".join(map(repr, self.unfamiliar[:5])) + (" and others" if self.unfamiliar[5:] else "")
            warnings.append(f"The model may not know {few}. Check the spelling, and use English words.")
        if len(names) == 1 and not limited:
            warnings.append(
                f"With one word and no limit, all pixels are {names[0]!r}. Add other words or a limit."
            )
        return warnings


def merged(settings: Sequence[LiveSettings]) -> LiveSettings:
    """Return settings, at least one, that have the effect of all of them one after another."""
    fields: dict[str, Any] = {}
    for one in settings:
        given = one.model_fields_set
        if {"words", "vocabulary"} & given:
            fields.pop("words", None)
            fields.pop("vocabulary", None)
        fields.update({name: getattr(one, name) for name in given})
    fields["id"] = settings[-1].id
    return LiveSettings.model_construct(set(fields), **fields)


def _first_words(engine: Engine, model: Model) -> Vocabulary | None:
    first = engine.first_words(model)
    return first[1] if first else None
