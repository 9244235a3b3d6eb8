"""Requests as Label Studio sends them, to a real server; its files come from an HTTP server of the test."""

import asyncio
import base64
import http.server
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

# What Label Studio 1.23.2 sent, recorded.
RECORDED = json.loads((Path(__file__).parent / "requests.json").read_text())
KEY = "key-of-label-studio"
TOKEN = "token-of-this-server"
CONFIG = (
    '<View><Header value="Draw"/><Image name="img" value="$photo"/>'
    '<BrushLabels name="tag" toName="img"><Label value="cat" background="#f00"/><Label value="wall"/>'
    "</BrushLabels></View>"
)
BOMB = (
    '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
    '<View><Image name="img" value="$photo"/><Label value="&c;"/></View>'
)


@pytest.fixture(scope="module")
def studio(cat):
    """Serves the photos, to those who have the key; remembers what was asked."""
    asked = []
    coffee = (Path(__file__).parents[4] / "examples" / "photos" / "coffee.jpg").read_bytes()
    photos = {"cat.jpg": cat, "269c7137-chelsea.jpg": cat, "1aac7245-coffee.jpg": coffee}

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            allowed = self.headers.get("Authorization") == f"Token {KEY}"
            photo = photos.get(self.path.removeprefix("/data/upload/1/"))
            status = 200 if photo else 302 if self.path.endswith("/away.jpg") else 404
            self.send_response(status if allowed else 401)
            if status == 302:
                self.send_header("Location", "/data/upload/1/cat.jpg")
            self.end_headers()
            if status == 200 and allowed:
                self.wfile.write(photo)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def backend(start, studio):
    with start("--label-studio", studio[0] + "/", env={"LABEL_STUDIO_API_KEY": KEY}) as server:
        yield server


def predict(server, address, config=CONFIG, **headers):
    request = {
        "tasks": [{"id": 1, "data": {"photo": address}}],
        "project": "1.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }
    return server.post("/label-studio/predict", request, headers)


@pytest.mark.parametrize("kind", ["path", "address", "data"])
def test_the_regions_of_predict_come_as_brush_labels(backend, studio, lite, cat, masks, kind):
    address = {
        "path": "/data/upload/1/cat.jpg",
        "address": studio[0] + "/data/upload/1/cat.jpg",
        "data": "data:image/jpeg;base64," + base64.b64encode(cat).decode(),
    }[kind]
    reply = predict(backend, address)
    assert reply.status == 200, reply
    answer = reply.json()
    (prediction,) = answer["results"]
    assert answer["model_version"] == prediction["model_version"]
    regions = lite.with_classes(["cat", "wall"]).predict(cat).regions()
    assert len(prediction["result"]) == len(regions) > 0
    assert 0 < prediction["score"] <= 1
    for one, region in zip(prediction["result"], regions, strict=True):
        assert (one["from_name"], one["to_name"], one["type"]) == ("tag", "img", "brushlabels")
        assert (one["original_height"], one["original_width"]) == (300, 451)
        assert one["value"]["brushlabels"] == [region.name]
        np.testing.assert_array_equal(masks(one["value"]["rle"], (300, 451)), region.mask())


def test_setup_and_health_answer_as_label_studio_expects(backend):
    assert backend.ask("GET", "/label-studio/health").json()["status"] == "UP"
    schema = {"project": "1.17", "schema": CONFIG, "hostname": "http://elsewhere", "access_token": "x"}
    version = backend.post("/label-studio/setup", schema).json()["model_version"]
    assert version.startswith("pixelclip-lite-")
    # Label Studio asks for a second prediction of a task only if the version is another one.
    assert predict(backend, "/data/upload/1/cat.jpg").json()["model_version"] == version
    schema["schema"] = CONFIG.replace("wall", "sofa")
    assert backend.post("/label-studio/setup", schema).json()["model_version"] != version


def test_recorded_requests_are_answered_and_a_bad_task_costs_no_other_its_prediction(backend):
    version = backend.post("/label-studio/setup", RECORDED["setup"]).json()["model_version"]
    cat, coffee, *others = backend.post("/label-studio/predict", RECORDED["predict"]).json()["results"]
    assert cat["model_version"] == coffee["model_version"] == version
    assert {one["value"]["brushlabels"][0] for one in coffee["result"]} == {"cup", "table"}
    assert others == [[], [], []]
    # Label Studio does not show the reasons.
    reasons, until = [], time.monotonic() + 10
    while len(reasons) < 3 and time.monotonic() < until:  # The log is read by a thread.
        time.sleep(0.01)
        log = backend.records()
        reasons = [one["reason"] for one in log if one.get("reason", "").startswith("task ")]
    assert [reason.partition(":")[0] for reason in reasons[-3:]] == ["task 3", "task 4", "task 5"]
    assert "Label Studio answered 404" in reasons[-2]
    (again,) = backend.post("/label-studio/predict", RECORDED["interactive"]).json()["results"]
    assert [one["value"] for one in again["result"]] == [one["value"] for one in cat["result"]]


def test_without_any_prediction_the_first_reason_is_the_answer(backend):
    tasks = RECORDED["predict"]["tasks"][2:]
    reply = backend.post("/label-studio/predict", {**RECORDED["predict"], "tasks": tasks})
    assert (reply.status, "s3://bucket/a.jpg" in reply.message) == (422, True)


def test_what_takes_too_long_is_left_for_the_next_request(lite):
    from pixelclip_sdk.serve.config import Limits
    from pixelclip_sdk.serve.engine import Engine
    from pixelclip_sdk.serve.label_studio.route import _answers
    from pixelclip_sdk.serve.metrics import Metrics

    engine, reasons = Engine({"lite": lite.with_classes(["cat"])}, Limits(), Metrics()), []
    until = time.monotonic() + 0.2

    def label():
        time.sleep(0.25)
        return {"result": []}

    calls = [(1, label), (2, label)]
    assert asyncio.run(_answers(engine, calls, reasons.append, until)) == [{"result": []}, []]
    assert reasons == ["1 of 2 tasks done in 80 s; ask again for the others"]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/data/upload/1/cat.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "/etc/passwd",
        "/api/projects",
        "/data/../api/projects",
        "/data/%2e%2e/api/projects",
        "/data/..%5c..%5capi",
        "//elsewhere.example/data/cat.jpg",
        "s3://bucket/cat.jpg",
        "/data/cat.jpg HTTP/1.1\r\nX: y",
        "/data/käse.jpg",
    ],
)
def test_nothing_else_is_opened(backend, studio, address):
    before = len(studio[1])
    reply = predict(backend, address)
    assert (reply.status, reply.code) == (422, "unusable")
    assert f"only {studio[0]}/data/… is fetched" in reply.message
    assert len(studio[1]) == before


@pytest.mark.parametrize(
    "suffix", [".evil.example/data/cat.jpg", "@evil.example/data/cat.jpg", "0/data/upload/1/cat.jpg"]
)
def test_an_address_that_only_begins_like_label_studios_is_refused(backend, studio, suffix):
    assert predict(backend, studio[0] + suffix).status == 422


def test_redirects_are_not_followed_and_missing_files_are_named(backend, studio):
    before = len(studio[1])
    assert "Label Studio answered 302" in predict(backend, "/data/upload/1/away.jpg").message
    assert "Label Studio answered 404" in predict(backend, "/data/upload/1/nothing.jpg").message
    assert len(studio[1]) == before + 2


def test_a_personal_access_token_is_exchanged_and_renewed(cat):
    from pixelclip_sdk.serve.config import LabelStudio
    from pixelclip_sdk.serve.errors import ServeError
    from pixelclip_sdk.serve.label_studio.picture import Files, picture_of

    given, valid = [], []

    class Studio(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = (self.path, sent) == ("/api/token/refresh/", {"refresh": "head.payload.sign"})
            given.append(f"access-{len(given)}")
            valid[:] = given[-1:]
            self.reply(200 if right else 401, json.dumps({"access": given[-1]}).encode())

        def do_GET(self):
            right = self.headers["Authorization"].removeprefix("Bearer ") in valid
            self.reply(200 if right else 401, cat)

        def reply(self, status, body):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        files = Files(LabelStudio(url, "head.payload.sign"))
        for _ in range(2):
            assert picture_of("/data/upload/1/cat.jpg", files, 1 << 20) == cat
        valid.clear()  # It is valid for five minutes.
        assert picture_of("/data/upload/1/cat.jpg", files, 1 << 20) == cat
        assert len(given) == 2
        with pytest.raises(ServeError, match="answered 401 for '/api/token/refresh/'; check its token"):
            picture_of("/data/upload/1/cat.jpg", Files(LabelStudio(url, "a.wrong.one")), 1 << 20)
        server.shutdown()


def test_labels_have_aliases_and_words_and_a_limit(backend, lite, cat, masks):
    config = CONFIG.replace('"cat"', '"Tier" alias=" A1" predicted_values="cat, kitten,"')
    limited = config.replace('toName="img">', 'toName="img" model_score_threshold="0.7">')
    answer = predict(backend, "/data/upload/1/cat.jpg", limited).json()
    other = predict(backend, "/data/upload/1/cat.jpg", limited.replace("A1", "A2")).json()
    assert answer["model_version"] != other["model_version"]
    segmenter = lite.with_classes({"cat": ["cat", "kitten"], "wall": "wall"})
    expected = segmenter.predict(cat, min_confidence=0.7)
    results = answer["results"][0]["result"]
    assert {one["value"]["brushlabels"][0] for one in results} == {" A1"}
    drawn = np.any([masks(one["value"]["rle"], (300, 451)) for one in results], axis=0)
    np.testing.assert_array_equal(drawn, expected.labels == 0)
    assert 0.1 < drawn.mean() < 0.99


def test_labels_may_be_numbers(backend):
    config = CONFIG.replace('"cat"', '"0"').replace('"wall"', '"1"')
    assert predict(backend, "/data/upload/1/cat.jpg", config).status == 200
    config = config.replace('"0"', '"0" predicted_values="cat,kitten"')
    (prediction,) = predict(backend, "/data/upload/1/cat.jpg", config).json()["results"]
    assert prediction["result"][0]["value"]["brushlabels"] == ["0"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BOMB, "DOCTYPE"),
        ("<View>", "not XML"),
        ("<View/>", "no labels for a picture"),
        ('<View><Image name="i" value="$p"/><BrushLabels name="t" toName="other"/></View>', "no labels"),
        (CONFIG.replace("wall", "cat"), "'cat' is repeated"),
        (CONFIG.replace("wall", "CAT"), "'CAT' is repeated"),
        (CONFIG.replace('"wall"', '"wall" predicted_values="cat,wall"'), "the same first word"),
        (CONFIG.replace('="img">', '="img" model_score_threshold="30%">'), "'30%'; expected a number from 0"),
        (CONFIG.replace('="img">', '="img" model_score_threshold="nan">'), "'nan'; expected a number from 0"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_explained(backend, config, message):
    reply = predict(backend, "/data/upload/1/cat.jpg", config)
    assert reply.status == 422
    assert message in reply.message
    reply = backend.post("/label-studio/setup", {"schema": config})
    assert reply.status == 422
    assert message in reply.message


def test_a_picture_that_cannot_be_decoded_is_refused(backend):
    assert predict(backend, "data:image/png;base64,????").status == 422
    assert predict(backend, "data:image/png;base64,AAAA").status == 422
    assert predict(backend, None).status == 422


def test_the_token_is_taken_as_a_password_on_these_paths_only(start, studio):
    with start(
        "--label-studio", studio[0], env={"PIXELCLIP_TOKEN": TOKEN, "LABEL_STUDIO_API_KEY": ""}
    ) as server:
        basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
        wrong = base64.b64encode(b"anyone:wrong").decode()
        assert server.ask("GET", "/label-studio/health").status == 401
        assert predict(server, "data:,x", Authorization=f"Basic {wrong}").status == 401
        assert predict(server, "data:,x", Authorization="Basic ????").status == 401
        # The token is right; the key of Label Studio is missing.
        reply = predict(server, "/data/upload/1/cat.jpg", Authorization=f"Basic {basic}")
        assert "Label Studio answered 401" in reply.message
        # Only these paths take a password.
        assert server.ask("GET", "/v1/models", headers={"Authorization": f"Basic {basic}"}).status == 401
