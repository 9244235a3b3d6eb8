"""Settings of a viewer."""

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from pixelclip_sdk.serve.live.view import merged
from pixelclip_sdk.serve.schemas import LiveSettings


def settings(**fields) -> LiveSettings:
    return LiveSettings.model_validate({"type": "settings", **fields}, strict=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"id": 1, "words": "cat"}], {"id": 1, "words": "cat"}),
        ([{"id": 1, "words": "cat"}, {"id": 2}], {"id": 2, "words": "cat"}),
        ([{"id": 1, "words": "cat"}, {"words": ["dog"]}], {"id": None, "words": ["dog"]}),
        ([{"words": "cat"}, {"vocabulary": "voc_1"}], {"id": None, "vocabulary": "voc_1"}),
        ([{"vocabulary": "voc_1"}, {"words": "cat"}], {"id": None, "words": "cat"}),
        (
            [{"threshold": 0.1, "smooth": 0.5}, {"threshold": None, "confidence": False}],
            {"id": None, "threshold": None, "smooth": 0.5, "confidence": False},
        ),
    ],
)
def test_merged_settings_have_the_effect_of_all_in_order(given, expected):
    result = merged([settings(**fields) for fields in given])
    assert {name: getattr(result, name) for name in result.model_fields_set} == {
        "type": "settings",
        **expected,
    }
