"""The real Label Studio, if the command `label-studio` is installed: upload, connect, predict, read back."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("label-studio") is None, reason="label-studio is not installed"),
]

CONFIG = (
    '<View><Image name="img" value="$photo"/>'
    '<BrushLabels name="tag" toName="img" model_score_threshold="0.3">'
    '<Label value="cat"/><Label value="wall" predicted_values="wall,floor"/></BrushLabels></View>'
)
LEGACY = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "token-of-this-server"
_START_S = 900  # Its first start writes a database: minutes on a busy machine.


class Studio:
    """A client of Label Studio."""

    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)) as link:
            link.request(method, path, data, {"Authorization": f"Token {LEGACY}", "Content-Type": kind})
            answer = link.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text

    def retrieve(self, project):
        chosen = {"selectedItems": {"all": True, "excluded": []}, "project": project}
        path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
        assert self.ask("POST", path, chosen)[0] == 200
        return self.ask("GET", f"/api/predictions/?project={project}")[1]


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("studio")
    env = {
        **os.environ,
        "COLLECT_ANALYTICS": "False",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "False",
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_USERNAME": "someone@example.com",
        "LABEL_STUDIO_PASSWORD": "a-password-12345",
        "LABEL_STUDIO_USER_TOKEN": LEGACY,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    env.pop("PYTHONPATH", None)
    command = ["label-studio", "start", "--no-browser", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        client, until = Studio(port), time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError):
                if client.ask("GET", "/health")[0] == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail((folder / "log").read_text()[-2000:])
            time.sleep(1)
        yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_predictions_arrive(studio, start, lite, cat, masks, kind):
    key = LEGACY if kind == "legacy" else studio.ask("POST", "/api/token/")[1]["token"]
    project = studio.ask("POST", "/api/projects/", {"title": kind, "label_config": CONFIG})[1]["id"]
    boundary, address = "limit", f"/api/projects/{project}/import"
    form = (
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="cat.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + cat + b"\r\n--limit--\r\n"
    )
    assert studio.ask("POST", address, form, f"multipart/form-data; boundary={boundary}")[0] == 201
    inline = "data:image/jpeg;base64," + base64.b64encode(cat).decode()
    assert studio.ask("POST", address, [{"photo": inline}, {"photo": "s3://bucket/cat.jpg"}])[0] == 201
    options = ("--label-studio", f"http://127.0.0.1:{studio.port}")
    with start(*options, env={"LABEL_STUDIO_API_KEY": key, "PIXELCLIP_TOKEN": TOKEN}) as server:
        model = {
            "project": project,
            "url": f"http://127.0.0.1:{server.port}/label-studio",
            "title": "pixelclip",
            "is_interactive": True,
        }
        status, answer = studio.ask("POST", "/api/ml/", model)
        assert (status, "authentication" in json.dumps(answer)) == (400, True)
        login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": TOKEN}
        status, answer = studio.ask("POST", "/api/ml/", model | login)
        assert (status, answer["readable_state"]) == (201, "Connected")
        predictions = studio.retrieve(project)
        assert len(predictions) == 2  # The third picture cannot be fetched.
        segmenter = lite.with_classes({"cat": "cat", "wall": ["wall", "floor"]})
        regions = segmenter.predict(cat, min_confidence=0.3).regions()
        for prediction in predictions:
            for one, region in zip(prediction["result"], regions, strict=True):
                assert one["value"]["brushlabels"] == [region.name]
                np.testing.assert_array_equal(masks(one["value"]["rle"], (300, 451)), region.mask())
        task = predictions[0]["task"]
        path = f"/api/ml/{answer['id']}/interactive-annotating"
        live = studio.ask("POST", path, {"task": task, "context": {}})[1]["data"]
        assert [one["value"] for one in live["result"]] == [one["value"] for one in predictions[0]["result"]]
        # What was predicted is not asked for again, until the labels change.
        assert len(studio.retrieve(project)) == 2
        changed = {"label_config": CONFIG.replace("floor", "sofa")}
        assert studio.ask("PATCH", f"/api/projects/{project}/", changed)[0] == 200
        assert len(studio.retrieve(project)) == 4
