"""pixelclip-lite, whose sentences are embedded once in a process: that is most of the time of building it."""

import pytest

from training.models.lite import build
from training.models.runtime import embed_texts

__all__ = ["sentences_once"]

_EMBEDDED = {}


def _once(tower, tokenizer, inputs, texts):
    key = (*texts, sum(float(weight.sum()) for weight in tower.parameters()))
    if key not in _EMBEDDED:
        _EMBEDDED[key] = embed_texts(tower, tokenizer, inputs, texts)
    return _EMBEDDED[key].clone()


@pytest.fixture(autouse=True, scope="session")
def sentences_once():
    """Builds share the embeddings of the class names and the common words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "embed_texts", _once)
        yield
