import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pixelclip_sdk import BackendError
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.words import text_encoder
from pixelclip_sdk.words.resolver import VocabularyResolver


def test_closing_waits_for_a_text_encoder_that_is_being_loaded(monkeypatch):
    """Otherwise the encoder would stay in a closed segmenter."""
    resolver = VocabularyResolver(find_bundle("pixelclip-lite"), None, 384, 1, None)
    loading, go_on = threading.Event(), threading.Event()
    load = text_encoder.TextEncoder

    def slow(*arguments, **options):
        loading.set()
        assert go_on.wait(10)
        return load(*arguments, **options)

    monkeypatch.setattr(text_encoder, "TextEncoder", slow)
    with ThreadPoolExecutor(2) as pool:
        resolving = pool.submit(resolver.resolve, "cat, sofa")
        assert loading.wait(10)
        closing = pool.submit(resolver.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)
        go_on.set()
        closing.result(10)
        resolving.result(10)
    assert resolver._encoder is None
    with pytest.raises(BackendError, match="closed"):
        resolver.resolve("cat, sofa")
