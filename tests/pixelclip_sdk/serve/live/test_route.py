"""Live connections: real clients and a real server process."""

import contextlib
import io
import json
import signal
import socket
import struct
import threading
import time
import urllib.request
import zlib

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.image import load_image
from pixelclip_sdk.visualize import palette

websockets = pytest.importorskip("websockets", reason="the extra serve is not installed")

WORDS = ["cat", "wall", "sofa"]


def closing(client) -> websockets.exceptions.ConnectionClosed:
    """Receives until the connection ends."""
    for _ in range(1000):
        try:
            client.socket.recv(30)
        except websockets.exceptions.ConnectionClosed as error:
            return error
    raise AssertionError("the connection stays")


def test_hello_comes_first_and_says_what_there_is(client):
    hello = client.hello
    assert hello["type"] == "hello"
    assert hello["protocol"] == 1
    assert hello["models"] == ["pixelclip-lite"]
    assert hello["sources"] == ["clip", "gone"]
    assert hello["limits"]["words"] == 1000
    assert hello["limits"]["message_bytes"] == 4 << 20
    assert client.socket.subprotocol == "pixelclip.v1"


def test_settings_are_answered_with_names_synonyms_and_colours(client):
    answer = client.settings(id=7, words={"cat": ["cat", "kitten"], "sofa": "sofa"})
    assert answer == {
        "type": "settings",
        "id": 7,
        "names": ["cat", "sofa"],
        "synonyms": {"cat": ["cat", "kitten"], "sofa": ["sofa"]},
        "colours": palette(2).tolist(),
        "warnings": [],
    }


def test_a_result_is_that_of_predict(client, lite, cat):
    client.settings(id=1, words=WORDS, smooth=None, min_confidence=0.6)
    result = client.segment(cat, number=4_000_000_000, time_ms=123)
    expected = lite.with_classes(WORDS).predict(cat, min_confidence=0.6)
    assert result["frame"] == 4_000_000_000
    assert (result["time_ms"], result["settings"], result["dropped"]) == (123, 1, 0)
    assert result["names"] == WORDS
    assert result["size"] == [300, 451]
    assert result["unknown"] == 255
    np.testing.assert_array_equal(result["labels"], expected.labels)
    assert (result["labels"] == 255).any()
    assert result["shares"] == pytest.approx(expected.areas(), abs=1e-6)
    assert result["unknown_share"] == pytest.approx((expected.labels == 255).mean(), abs=1e-6)
    confidence = expected.confidence[::4, ::4]
    np.testing.assert_allclose(result["confidence"] / 255, confidence, atol=1 / 255)
    histogram, _ = np.histogram(result["confidence"] / 255, 20, (0, 1))
    assert sum(result["histogram"]) == confidence.size
    assert np.abs(np.subtract(result["histogram"], histogram)).sum() <= 0.01 * confidence.size
    assert result["speed_ms"]["total"] > result["speed_ms"]["inference"] > 0
    assert result["queue_ms"] >= 0


def test_the_confidence_map_is_left_out_if_not_wanted(client, cat):
    client.settings(words=WORDS, confidence=False)
    assert [part["name"] for part in client.segment(cat)["parts"]] == ["labels"]


def test_more_than_255_words_make_labels_of_16_bits(client, cat):
    words = [f"thing number {i}" for i in range(300)]
    client.settings(words=words)
    result = client.segment(cat)
    assert result["unknown"] == 65535
    assert result["labels"].dtype == np.uint16
    assert result["labels"].max() < 300


def test_words_are_in_effect_for_the_frames_after_them_and_no_others(client, cat):
    """Nothing is waited for between the messages."""
    client.settings(id=0, words=["cat"], min_confidence=0.1)
    for i in range(1, 20):
        client.send_frame(2 * i, cat)
        client.send(type="settings", id=i, words=["cat", f"word {i}"])
        client.send_frame(2 * i + 1, cat)
    answered = 0
    while answered != 39:
        message = client.receive()
        if message["type"] != "result":
            assert message["type"] == "settings"
            continue
        answered = message["frame"]
        i = answered // 2 if answered % 2 else answered // 2 - 1
        assert message["settings"] == i
        assert message["names"] == (["cat", f"word {i}"] if i else ["cat"])


def test_what_is_not_sent_stays_as_it_was(client, cat, lite):
    client.settings(words=WORDS, min_confidence={"cat": 0.9}, background="grass", smooth=None)
    answer = client.settings(words=["cat", "wall"])
    assert answer["names"] == ["cat", "wall"]
    expected = lite.with_classes(["cat", "wall"]).predict(
        cat, min_confidence={"cat": 0.9}, background="grass"
    )
    np.testing.assert_array_equal(client.segment(cat)["labels"], expected.labels)
    client.settings(words=["wall", "sofa"])  # The limit of the cat has no meaning any more.
    assert client.settings(min_confidence=None, background=None, refine="off")["type"] == "settings"
    expected = lite.with_classes(["wall", "sofa"]).predict(cat, refine="off")
    np.testing.assert_array_equal(client.segment(cat)["labels"], expected.labels)


def test_settings_that_come_faster_than_they_take_effect_have_the_effect_of_all(client, cat, lite):
    """Also if one of them is a mistake: it is answered, and the others count."""
    client.settings(id=0, words=[f"word {i}" for i in range(200)])
    client.send(type="settings", id=1, words=["cat", "wall"], smooth=None)
    client.send(type="settings", id=2, words=["dog", "Dog"])
    client.send(type="settings", id=3, min_confidence=0.7)
    client.send_frame(5, cat)
    answers = []
    while not answers or answers[-1]["type"] != "result":
        answers.append(client.receive())
    assert [answer["id"] for answer in answers if answer["type"] == "error"] == [2]
    assert answers[-2]["id"] == 3
    expected = lite.with_classes(["cat", "wall"]).predict(cat, min_confidence=0.7)
    np.testing.assert_array_equal(answers[-1]["labels"], expected.labels)


def test_a_viewer_who_changes_words_all_the_time_gets_results(client, cat):
    results = []

    def receive():
        while len(results) < 4:
            message = client.receive()
            if message["type"] == "result":
                results.append(message)

    thread = threading.Thread(target=receive)
    thread.start()
    number, until = 0, time.monotonic() + 30
    while thread.is_alive():
        assert time.monotonic() < until
        number += 1
        client.send(type="settings", id=number, words=[f"word {number} {j}" for j in range(20)])
        client.send_frame(number, cat, 20 * number)
        time.sleep(0.02)
    for result in results:
        assert result["settings"] == result["frame"]
        assert result["names"] == [f"word {result['frame']} {j}" for j in range(20)]


def test_each_viewer_has_words_of_its_own(server, cat, coffee):
    def watch(words, image, seen):
        with server.client() as client:
            client.settings(id=1, words=words)
            seen.extend(client.segment(image, number=i, time_ms=33 * i) for i in range(10))

    first, second = [], []
    threads = [
        threading.Thread(target=watch, args=(["cat", "wall"], cat, first)),
        threading.Thread(target=watch, args=(["cup", "table", "spoon"], coffee, second)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(result["names"]) for result in first} == {("cat", "wall")}
    assert {tuple(result["names"]) for result in second} == {("cup", "table", "spoon")}
    assert {tuple(result["size"]) for result in first} == {(300, 451)}
    assert {tuple(result["size"]) for result in second} == {(400, 600)}


def test_a_vocabulary_made_by_http_is_used_by_its_id(server, client, cat):
    body = json.dumps({"words": "cat, wall"}).encode()
    request = urllib.request.Request(
        f"{server.url}/v1/vocabularies", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        vocabulary = json.load(answer)["id"]
    assert client.settings(vocabulary=vocabulary)["names"] == ["cat", "wall"]
    assert client.segment(cat)["names"] == ["cat", "wall"]


def test_the_words_of_the_server_are_those_of_a_viewer_who_sends_none(make_server, cat):
    server = make_server(classes="cat, dog")
    with server.client() as client:
        assert client.hello["words"] == {"cat": ["cat"], "dog": ["dog"]}
        assert client.segment(cat)["names"] == ["cat", "dog"]


MISTAKES = {
    "no JSON": "cat, dog",
    "a colon": '{"type": "settings", words: "a: b"}',
    "no object": "[1, 2]",
    "no type": '{"words": "cat"}',
    "another type": '{"type": "frame"}',
    "unknown field": '{"type": "settings", "id": 5, "wrods": "cat"}',
    "a number as words": '{"type": "settings", "id": 5, "words": 5}',
    "numbers in words": '{"type": "settings", "id": 5, "words": ["cat", 5]}',
    "no words": '{"type": "settings", "id": 5, "words": []}',
    "an empty word": '{"type": "settings", "id": 5, "words": ["cat", " "]}',
    "a word twice": '{"type": "settings", "id": 5, "words": ["cat", "Cat"]}',
    "10 000 words": json.dumps({"type": "settings", "id": 5, "words": [f"w{i}" for i in range(10_000)]}),
    "half a character": '{"type": "settings", "id": 5, "words": ["\\ud800"]}',
    "NaN": '{"type": "settings", "id": 5, "threshold": NaN}',
    "infinity": '{"type": "settings", "id": 5, "min_confidence": Infinity}',
    "a text as threshold": '{"type": "settings", "id": 5, "threshold": "0.5"}',
    "a confidence above 1": '{"type": "settings", "id": 5, "min_confidence": 1.5}',
    "a limit of no class": '{"type": "settings", "id": 5, "min_confidence": {"zebra": 0.5}}',
    "a memory of a minute": '{"type": "settings", "id": 5, "smooth": 60}',
    "no such model": '{"type": "settings", "id": 5, "model": "../../etc"}',
    "no such source": '{"type": "settings", "id": 5, "source": "rtsp://example.org/1"}',
    "no such vocabulary": '{"type": "settings", "id": 5, "vocabulary": "voc_0"}',
    "deep": "[" * 100_000,
    "a number of 5000 digits": '{"type": "settings", "id": ' + "9" * 5000 + "}",
    "2 MB": '{"type": "settings", "words": "' + "x" * 2_000_000 + '"}',
    "shown without a number": '{"type": "shown"}',
    "empty": "",
    "empty binary": b"",
    "short binary": b"1234567",
    "no image": struct.pack(">II", 9, 0) + b"not an image",
    "half an image": None,
    "a path as image": struct.pack(">II", 9, 0) + b"/etc/passwd",
    "PostScript": struct.pack(">II", 9, 0) + b"%!PS-Adobe-3.0\n(/etc/passwd) run\n",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_and_the_connection_stays(client, cat, mistake):
    client.settings(id=1, words=WORDS, smooth=None)
    before = client.segment(cat)
    sent = MISTAKES[mistake]
    client.socket.send(struct.pack(">II", 9, 0) + cat[:20_000] if sent is None else sent)
    answer = client.receive()
    assert answer["type"] == "error"
    assert answer["code"] in ("unusable", "too_large", "not_found")
    assert len(answer["message"]) > 10
    assert "Traceback" not in answer["message"]
    has_id = isinstance(sent, str) and '"id": 5' in sent
    assert answer["id"] == (5 if has_id else None)
    assert answer["frame"] == (9 if sent is None or (isinstance(sent, bytes) and len(sent) > 8) else None)
    # Nothing has changed.
    after = client.segment(cat)
    assert after["names"] == WORDS
    assert after["settings"] == 1
    np.testing.assert_array_equal(after["labels"], before["labels"])


def test_a_colon_in_a_word_is_part_of_it(client, cat):
    assert client.settings(words=["a: b", "cat"])["names"] == ["a: b", "cat"]
    assert client.segment(cat)["names"] == ["a: b", "cat"]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client, cat):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    client.settings(words=WORDS)
    answer = client.segment(bomb, number=3)
    assert (answer["type"], answer["code"], answer["frame"]) == ("error", "too_large", 3)
    assert client.segment(cat)["type"] == "result"


def test_one_word_and_no_limit_is_warned_about(client):
    assert "cat" in client.settings(words=["cat"])["warnings"][0]
    assert client.settings(words=["cat"], min_confidence=0.5)["warnings"] == []


def test_words_that_the_model_may_not_know_are_warned_about(client):
    warned = client.settings(words=["cat", "Katze", "qwxzy"])["warnings"]
    assert warned == ["The model may not know 'Katze', 'qwxzy'. Check the spelling, and use English words."]
    # The page sends the same words again when another setting changes.
    assert client.settings(words=["cat", "Katze", "qwxzy"], min_confidence=0.5)["warnings"] == warned
    assert client.settings(words=["cat", "wall"])["warnings"] == []
    assert len(client.settings(words=["Katze"], min_confidence=None)["warnings"]) == 2
    assert client.settings(words="voc-20")["warnings"] == []


def test_text_that_is_not_utf_8_ends_the_connection(server):
    """RFC 6455, 8.1: the connection must be failed."""
    with server.client() as client:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            client.socket.send(b"\xff\xfe{}", text=True)
        assert closing(client).rcvd.code == 1007
    assert_alive(server)


def test_a_message_that_is_too_large_ends_the_connection(make_server):
    server = make_server(limits={"message_bytes": 100_000})
    with server.client() as client:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            client.socket.send(bytes(200_000))
        assert closing(client).rcvd.code == 1009
    assert_alive(server)


def test_a_flood_ends_the_connection(server):
    with server.client() as client:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            for _ in range(5000):
                client.socket.send('{"type": "shown", "frame": 0}')
        closed = closing(client).rcvd
        assert (closed.code, closed.reason) == (1008, "more than 240 messages a second")
    assert_alive(server)


def test_viewers_beyond_the_limit_are_asked_to_come_later(make_server):
    server = make_server(limits={"viewers": 2})
    with server.client(), server.client() as second:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            server.client()
        assert caught.value.rcvd.code == 1013
        assert second.settings(words=WORDS)["type"] == "settings"
    with server.client() as later:
        assert later.hello["type"] == "hello"


def test_the_token_goes_as_a_subprotocol(make_server):
    server = make_server(token="correct/horse=battery")
    for protocols in (["pixelclip.v1"], ["pixelclip.v1", "bearer.wrong"]):
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            server.client(subprotocols=protocols)
        assert caught.value.response.status_code == 401
    # A subprotocol has no "/" and no "=".
    with server.client(subprotocols=["pixelclip.v1", "bearer.correct%2Fhorse%3Dbattery"]) as client:
        assert client.socket.subprotocol == "pixelclip.v1"
    with server.client(additional_headers={"Authorization": "Bearer correct/horse=battery"}) as client:
        assert client.hello["type"] == "hello"


def test_pages_of_other_origins_are_refused(server):
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        server.client(origin="https://evil.example")
    assert caught.value.response.status_code == 403


def test_frames_that_come_too_fast_are_replaced_by_the_newest(client, cat):
    client.settings(words=WORDS)
    for i in range(40):
        client.send_frame(i, cat, 10 * i)
    results = [client.receive()]
    while results[-1]["frame"] != 39:
        results.append(client.receive())
    numbers = [result["frame"] for result in results]
    assert numbers == sorted(numbers)
    assert len(numbers) < 30
    assert results[-1]["dropped"] == 40 - len(numbers)


def test_smoothing_follows_the_time_of_the_frames(client, cat):
    """Labels of a still picture that gets noisy change less with smoothing."""
    rng = np.random.default_rng(0)
    still = load_image(cat)
    noisy = np.clip(still + rng.normal(0, 12, still.shape), 0, 255).astype(np.uint8)

    def changed(smooth):
        client.settings(words=["cat", "wall", "sofa", "dog", "floor"], smooth=smooth, refine="off")
        first, second = (
            client.segment(png(frame), number=i, time_ms=1000 + 10 * i)["labels"]
            for i, frame in enumerate((still, noisy))
        )
        return (first != second).mean()

    assert changed(None) > 0
    assert changed(1.0) < changed(None)


def test_a_source_of_the_server_is_watched(client):
    client.settings(id=1, words=["red", "green", "blue"], source="clip")
    results = [client.receive() for _ in range(6)]
    numbers = [result["frame"] for result in results]
    assert numbers == sorted(set(numbers))
    for result in results:
        assert [part["name"] for part in result["parts"]] == ["labels", "confidence", "image"]
        assert result["labels"].shape == result["image"].shape[:2] == (48, 64)
        assert result["size"] == [48, 64]
    # The frames are red, green and blue in turn.
    colours = {int(result["image"][24, 32].argmax()) for result in results}
    assert len(colours) > 1
    # Words change, and the source goes on.
    client.settings(id=2, words=["sky", "sea"])
    while (result := client.receive())["settings"] != 2:
        pass
    assert result["names"] == ["sky", "sea"]
    # Back to frames of the client.
    client.settings(source=None)
    client.send_frame(77, png(np.zeros((20, 30, 3), np.uint8)))
    while (result := client.receive())["frame"] != 77:
        pass
    assert result["size"] == [20, 30]


def test_viewers_share_one_reader_that_ends_with_the_last(server, wait_until):
    def watch(stack):
        client = stack.enter_context(server.client())
        client.settings(words=WORDS, source="clip")
        for _ in range(10):
            assert client.receive()["type"] == "result"

    def most_readers():  # A clip is opened anew at its end.
        counts = set()
        for _ in range(40):
            counts.add(server.readers("clip"))
            time.sleep(0.01)
        return max(counts)

    wait_until(lambda: server.readers("clip") == 0)
    with contextlib.ExitStack() as stack:
        watch(stack)
        assert most_readers() == 1
        watch(stack)
        assert most_readers() == 1
    wait_until(lambda: server.readers("clip") == 0)


def test_a_source_that_cannot_be_read_is_said_once_without_its_path(client, cat):
    client.settings(words=WORDS, source="gone")
    answer = client.receive()
    assert (answer["type"], answer["code"]) == ("error", "source")
    assert "gone" in answer["message"]
    assert "/" not in answer["message"]
    with pytest.raises(TimeoutError):
        client.socket.recv(2.5)
    client.settings(source=None)
    assert client.segment(cat)["type"] == "result"


def test_a_client_that_says_what_it_has_shown_gets_the_newest_after_a_pause(client):
    client.settings(words=WORDS, source="clip")
    first = client.receive()
    client.send(type="shown", frame=first["frame"])
    shown = client.receive()["frame"]
    client.send(type="shown", frame=shown)
    time.sleep(2)  # Fifty frames of the source.
    late = [client.receive()["frame"] for _ in range(2)]
    client.send(type="shown", frame=late[-1])
    assert late[-1] < shown + 25
    assert client.receive()["frame"] > late[-1] + 15


def test_clients_that_vanish_leave_nothing_behind(server, cat, wait_until):
    with server.client() as warm:
        warm.settings(words=WORDS, source="clip")
        warm.receive()
    wait_until(lambda: server.metric("pixelclip_viewers") == 0)
    time.sleep(1)
    threads, files = server.resources()
    for i in range(30):
        client = server.client()
        if i % 3:
            client.send(type="settings", words=[f"word {i}", "cat"], source="clip" if i % 2 else None)
            client.send_frame(1, cat)
            if i % 5 == 0:
                client.receive()
        # The connection is reset, not closed.
        raw = client.socket.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RDWR) if i % 2 else raw.close()
    wait_until(lambda: server.metric("pixelclip_viewers") == 0)
    wait_until(lambda: server.resources()[0] <= threads and server.resources()[1] <= files + 1)
    assert server.metric("pixelclip_waiting") == 0
    assert_alive(server)


def test_a_server_that_stops_closes_its_connections(make_server, cat):
    server = make_server()
    with server.client() as client:
        client.settings(words=WORDS)
        client.send_frame(1, cat)
        server.process.send_signal(signal.SIGTERM)
        assert closing(client).rcvd.code == 1012
    assert server.process.wait(10) in (0, -signal.SIGTERM)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def assert_alive(server) -> None:
    with server.client() as client:
        assert client.settings(words=WORDS)["names"] == WORDS
