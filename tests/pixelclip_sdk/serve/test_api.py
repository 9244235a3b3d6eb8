"""Results over HTTP equal those of `Segmenter.predict`."""

import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import VocabularyError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.words.classes import parse_classes

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from pixelclip_sdk.serve import engine
from pixelclip_sdk.serve.config import Limits
from pixelclip_sdk.serve.metrics import Metrics

WORDS = ["cat", "wall", "window"]


@pytest.fixture(scope="module")
def expected(lite, cat):
    return lite.with_classes(WORDS).predict(cat)


def check(server, answer, result):
    np.testing.assert_array_equal(server.decoded(answer["labels"]), result.labels)
    assert answer["names"] == list(result.names)
    assert answer["shares"] == pytest.approx(result.areas(), abs=1e-6)
    assert list(answer["shares"]) == list(result.areas())
    assert answer["unknown_share"] == pytest.approx((result.labels == result.unknown).mean(), abs=1e-5)
    assert (answer["size"], answer["unknown"]) == (list(result.labels.shape), result.unknown)
    assert answer["speed_ms"].keys() == result.speed.keys()


@pytest.mark.parametrize(
    "words", [WORDS, "cat, wall, window", {"cat": "cat", "wall": ["wall"], "window": "window"}]
)
def test_json_and_forms_give_the_labels_of_predict(server, cat, expected, words):
    check(server, server.post("/v1/segment", {"image": server.encoded(cat), "words": words}).json(), expected)
    text = words if isinstance(words, str) else json.dumps(words)
    reply = server.form([("image", "cat.jpg", cat), ("words", None, text.encode())])
    check(server, reply.json(), expected)
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_words_that_come_again_are_not_parsed_again(lite, monkeypatch):
    parsed = []
    monkeypatch.setattr(engine, "parse_classes", lambda words: parsed.append(words) or parse_classes(words))
    made = engine.Engine({"a": lite, "b": lite.with_classes(["sky"])}, Limits(vocabularies=2), Metrics())

    async def keys(model, *texts):
        return [(await made.keep(made.model(model), text))[0] for text in texts]

    first = asyncio.run(keys("a", "cat, wall", "cat,wall", "cat, wall"))
    assert len(set(first)) == 1
    assert len(parsed) == 2
    assert asyncio.run(keys("b", "cat, wall")) != first[:1]
    with pytest.raises(VocabularyError):
        asyncio.run(keys("a", ", ,"))
    with pytest.raises(VocabularyError):
        asyncio.run(keys("a", ", ,"))


def test_settings_are_those_of_predict(server, cat, lite):
    settings = {"min_confidence": {"cat": 0.6}, "threshold": 0.05, "refine": "off"}
    value = {
        "image": server.encoded(cat),
        "words": WORDS,
        "background": "grass",
        "confidence": True,
        **settings,
    }
    answer = server.post("/v1/segment", value).json()
    result = lite.with_classes(WORDS).predict(cat, background="grass", **settings)
    check(server, answer, result)
    assert answer["unknown_share"] > 0
    np.testing.assert_allclose(
        server.decoded(answer["confidence"]) / 255, result.confidence, atol=0.5 / 255 + 1e-6
    )
    fields = [
        ("min_confidence", None, b'{"cat": 0.6}'),
        ("threshold", None, b"0.05"),
        ("refine", None, b"off"),
    ]
    fields += [
        ("words", None, b"cat, wall, window"),
        ("background", None, b"grass"),
        ("confidence", None, b"true"),
    ]
    form = server.form([("image", "cat.jpg", cat), *fields]).json()
    for changing in ("request_id", "speed_ms"):
        del form[changing], answer[changing]
    assert form == answer


@pytest.mark.parametrize("kind", ["boxes", "rle", "polygons"])
def test_regions_are_those_of_the_result(server, cat, expected, kind):
    value = {"image": server.encoded(cat), "words": WORDS, "regions": kind}
    answer = server.post("/v1/segment", value).json()
    regions = expected.regions()
    assert len(answer["regions"]) == len(regions) > 0
    for got, region in zip(answer["regions"], regions, strict=True):
        extra = {}
        if kind == "rle":
            extra["rle"] = region.rle()
        elif kind == "polygons":
            extra["polygons"] = [points.tolist() for points in region.polygon]
        assert got == json.loads(json.dumps({**region.summary(), **extra}))


def test_accept_chooses_the_label_map_or_the_overlay(server, cat, expected):
    fields = [("image", "cat.jpg", cat), ("words", None, b"cat, wall, window")]
    png = server.form(fields, {"Accept": "image/png"})
    assert (png.status, png.headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(server.decoded(png.body), expected.labels)
    assert json.loads(png.headers["x-names"]) == WORDS
    jpeg = server.form(fields, {"Accept": "text/html, image/jpeg;q=0.9"})
    assert jpeg.headers["content-type"] == "image/jpeg"
    np.testing.assert_allclose(
        load_image(jpeg.body).astype(float), np.asarray(expected.plot()).astype(float), atol=120
    )
    refused = server.form(fields, {"Accept": "text/plain"})
    assert (refused.status, refused.code) == (406, "not_acceptable")


def test_several_images_are_answered_in_their_order(server, cat, lite):
    small = io.BytesIO()
    Image.fromarray(load_image(cat)[::2, ::2]).save(small, "PNG")
    files = [cat, small.getvalue(), cat]
    results = lite.with_classes(WORDS).predict_batch(files)
    value = {"images": [server.encoded(file) for file in files], "words": WORDS}
    answer = server.post("/v1/segment", value).json()
    form = server.form(
        [*(("images", "x", file) for file in files), ("words", None, b"cat, wall, window")]
    ).json()
    for got in (answer, form):
        assert len(got["results"]) == 3
        for one, result in zip(got["results"], results, strict=True):
            check(server, one, result)
    assert server.post("/v1/segment", {"images": []}).json()["results"] == []


def test_words_are_embedded_once_and_used_by_their_id(server, cat, expected, lite):
    made = server.post("/v1/vocabularies", {"words": {"cat": ["cat", "kitten"], "wall": "wall"}})
    assert made.status == 200
    vocabulary = made.json()
    assert vocabulary["names"] == ["cat", "wall"]
    assert vocabulary["synonyms"] == {"cat": ["cat", "kitten"], "wall": ["wall"]}
    assert server.ask("GET", f"/v1/vocabularies/{vocabulary['id']}").json() == vocabulary
    answer = server.post("/v1/segment", {"image": server.encoded(cat), "words": vocabulary["id"]}).json()
    check(server, answer, lite.with_classes({"cat": ["cat", "kitten"], "wall": ["wall"]}).predict(cat))
    assert answer["vocabulary"] == vocabulary["id"]
    again = server.post("/v1/segment", {"image": server.encoded(cat), "words": WORDS}).json()["vocabulary"]
    check(server, server.post("/v1/segment", {"image": server.encoded(cat), "words": again}).json(), expected)
    unknown = server.ask("GET", "/v1/vocabularies/voc_0")
    assert (unknown.status, unknown.code) == (404, "not_found")


def test_without_words_those_of_the_server_are_used(server, cat, lite, start):
    answer = server.form([("image", "cat.jpg", cat)]).json()
    check(server, answer, lite.with_classes("cat, sofa, grass").predict(cat))
    with start() as bare:
        reply = bare.form([("image", "cat.jpg", cat)])
        assert (reply.status, reply.code) == (422, "unusable")
        assert "words" in reply.message


def test_a_list_by_its_name(server, cat):
    answer = server.post("/v1/segment", {"image": server.encoded(cat), "words": "voc-20"}).json()
    assert len(answer["names"]) == 20
    near = server.post("/v1/segment", {"image": server.encoded(cat), "words": "voc-21"})
    assert near.status == 422
    assert "voc-20" in near.message


def test_more_than_255_words_need_16_bits(server, cat, lite):
    words = [f"thing {i}" for i in range(300)]
    answer = server.post("/v1/segment", {"image": server.encoded(cat), "words": words}).json()
    assert answer["unknown"] == 65535
    check(server, answer, lite.with_classes(words).predict(cat))


def test_models_say_what_they_are(server, lite):
    (model,) = server.ask("GET", "/v1/models").json()["models"]
    assert (model["name"], model["default"]) == ("pixelclip-lite", True)
    assert model["licence"] == lite.bundle.license
    assert model["input_size"] == [lite.bundle.input.height, lite.bundle.input.width]


@pytest.mark.parametrize(
    ("value", "status", "part"),
    [
        ({"image": "QUJD"}, 422, "is not an image"),
        ({}, 422, "either image"),
        ({"image": "QUJD", "images": ["QUJD"]}, 422, "either image"),
        ({"image": "QUJD", "wrods": "cat"}, 422, "wrods"),
        ({"image": 7}, 422, "image"),
        ({"image": "QUJD", "words": []}, 422, "no classes"),
        ({"image": "QUJD", "words": ["cat", "Cat"]}, 422, "repeated"),
        ({"image": "QUJD", "words": "voc_1"}, 404, "vocabulary"),
        ({"image": "QUJD", "refine": "best"}, 422, "refine"),
        ({"image": "QUJD", "min_area": 2}, 422, "min_area"),
    ],
)
def test_mistakes_are_named(server, value, status, part):
    reply = server.post("/v1/segment", value)
    assert reply.status == status
    assert part in reply.message


def test_a_limit_of_another_word_is_named(server, cat):
    value = {"image": server.encoded(cat), "words": WORDS, "min_confidence": {"dog": 0.5}}
    reply = server.post("/v1/segment", value)
    assert reply.status == 422
    assert "'dog'" in reply.message


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ([("image", None, b"photo.jpg")], "expected a file"),
        ([("file", "cat.jpg", b"x")], "field image"),
        ([("image", "a", b"x"), ("image", "b", b"x")], "one file"),
        ([("image", "a", b"x"), ("words", None, b"a"), ("words", None, b"b")], "twice"),
        ([("words", None, b"a")], "one file"),
    ],
)
def test_mistakes_in_forms_are_named(server, fields, part):
    reply = server.form(fields)
    assert reply.status == 422
    assert part in reply.message
