"""The live page in a real browser, against a real server process."""

import base64
import contextlib
import re
import shutil
from collections.abc import Iterator
from fractions import Fraction
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.image import load_image

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
av = pytest.importorskip("av", reason="the browser tests make videos with PyAV")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need Chromium")

expect = playwright.expect
WORDS = "#w=cat&w=wall&w=cup"


def film(path, codec: str, pixels: str, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(20))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pixels, 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def scenes(cat) -> list[np.ndarray]:
    """Three seconds of the cat, moving, as a camera sees it."""
    picture = np.asarray(Image.fromarray(load_image(cat)).resize((640, 480)))
    return [np.roll(picture, 2 * i, axis=1) for i in range(60)]


@pytest.fixture(scope="module")
def browser(scenes, tmp_path_factory) -> Iterator:
    """Chromium with a camera that shows the cat."""
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    film(camera, "mjpeg", "yuvj420p", scenes)
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
            ],
        )
        yield browser
        browser.close()


class Visit:
    """A person at the page."""

    def __init__(self, context, url: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.hosts: set[str] = set()
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.note(urlsplit(request.url)))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.problems.append(m.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(url)

    def note(self, address) -> None:
        if address.scheme != "blob":  # A file that the person chose.
            self.hosts.add(address.netloc)

    def connected(self) -> "Visit":
        expect(self.page.locator("#status")).to_contain_text("Connected", timeout=20_000)
        return self

    def say(self, text: str) -> None:
        self.page.fill("#word", text)
        self.page.press("#word", "Enter")

    def names(self) -> list[str]:
        return self.page.locator("#words .name b").all_inner_texts()

    def shares(self) -> dict[str, str]:
        return dict(zip(self.names(), self.page.locator("#words .share").all_inner_texts(), strict=True))

    def wait_shares(self, *names: str) -> None:
        """Until each of these words has a share, which is what its result says."""
        row = self.page.locator("#words li")
        for name in names:
            mine = row.filter(has=self.page.locator(".name b", has_text=re.compile(f"^{re.escape(name)}$")))
            expect(mine.locator(".share")).to_contain_text("%", timeout=20_000)

    def picture(self) -> np.ndarray:
        """The pixels of the picture as it is shown, `(H, W, 3)`."""
        data = self.page.evaluate("""() => {
            const c = document.querySelector("#canvas");
            return c.toDataURL("image/png").split(",")[1];
        }""")
        return load_image(base64.b64decode(data))

    def wait_picture(self, other: np.ndarray) -> np.ndarray:
        """Until the picture is not this one any more."""
        for _ in range(200):
            picture = self.picture()
            if picture.shape != other.shape or (picture != other).any():
                return picture
            self.page.wait_for_timeout(50)
        raise AssertionError("the picture stayed the same")

    def example(self) -> None:
        self.page.locator("#sources").get_by_text("Example").click()
        expect(self.page.locator("#save")).to_be_enabled(timeout=20_000)


@pytest.fixture
def visit(browser, server) -> Iterator:
    """Opens the page; in the end there was no error and no request to another machine."""
    visits: list[Visit] = []
    with contextlib.ExitStack() as stack:

        def visit(fragment: str = "", *, url: str = server.url, noisy: bool = False, **options) -> Visit:
            context = browser.new_context(**options)
            stack.callback(context.close)
            made = Visit(context, f"{url}/{fragment}")
            made.noisy, made.host = noisy, urlsplit(url).netloc
            visits.append(made)
            return made

        yield visit
        for made in visits:
            assert made.noisy or made.problems == []
            assert made.hosts == {made.host}


def test_an_example_photo_shows_what_the_page_does(visit):
    one = visit().connected()
    one.page.click("text=Try an example photo")
    one.wait_shares("cup", "wood")
    shares = {name: int(share.split()[0]) for name, share in one.shares().items()}
    assert shares["cup"] > 30
    assert shares["wood"] > 30
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert "cup" in one.page.inner_text("#said")
    assert re.fullmatch(r"\d+ ms", one.page.inner_text("#trip"))
    expect(one.page.locator("#histogram rect")).to_have_count(20)


def test_words_of_the_server_are_shown_and_give_way_to_those_of_the_example(visit, make_server):
    first = make_server(classes="cat, sofa, grass")
    one = visit(url=first.url, noisy=True).connected()
    assert one.names() == ["cat", "sofa", "grass"]
    one.page.click("text=Try an example photo")
    one.wait_shares("cup", "wood")
    assert one.names() == ["cup", "wood"]
    # Nobody chose words: a server that starts again with others is believed.
    first.stop()
    make_server(port=first.port, classes="dog, lamp")
    one.page.reload()
    one.connected()
    assert one.names() == ["dog", "lamp"]
    one.say("Katze")
    expect(one.page.locator("#word-error")).to_contain_text("may not know 'Katze'")


def test_words_that_are_typed_change_the_overlay(visit):
    one = visit(WORDS).connected()
    one.example()
    one.wait_shares("cat", "wall", "cup")
    before = one.picture()
    one.say("spoon: teaspoon, wooden spoon; plate")
    one.wait_shares("spoon", "plate")
    assert one.names() == ["cat", "wall", "cup", "spoon", "plate"]
    after = one.wait_picture(before)
    assert (after != before).any(axis=2).mean() > 0.05
    # One is renamed in its place, one is removed.
    one.page.click("text=plate")
    one.page.fill("li input.name", "saucer")
    one.page.press("li input.name", "Enter")
    one.wait_shares("saucer")
    one.page.click('[aria-label="Remove wall"]')
    one.wait_shares("cat", "cup", "spoon", "saucer")
    assert one.names() == ["cat", "cup", "spoon", "saucer"]


def test_the_camera_is_live_and_words_change_while_it_runs(visit):
    one = visit("#w=cat&w=floor").connected()
    one.page.click("text=Use the camera")
    one.wait_shares("cat", "floor")
    expect(one.page.locator("#fps")).to_have_text(re.compile(r"^\d+$"), timeout=20_000)
    assert int(one.page.inner_text("#fps")) > 0
    assert int(one.shares()["cat"].split()[0]) > 50
    moved = one.wait_picture(one.picture())
    assert moved.shape == (480, 640, 3)
    one.say("dog")
    one.wait_shares("dog")
    one.page.locator("#sources").get_by_text("Camera", exact=True).click()
    expect(one.page.locator("#welcome")).to_be_visible()


def test_two_viewers_see_their_own_words(visit):
    one, two = visit("#w=cat&w=floor").connected(), visit("#w=dog&w=lamp&w=cup").connected()
    for person in (one, two):
        person.page.click("text=Use the camera")
    one.wait_shares("cat", "floor")
    two.wait_shares("dog", "lamp", "cup")
    one.say("whiskers")
    one.wait_shares("whiskers")
    assert one.names() == ["cat", "floor", "whiskers"]
    assert two.names() == ["dog", "lamp", "cup"]
    assert set(two.page.inner_text("#said").replace(",", "").split()) & {"dog", "lamp", "cup"}


def test_a_photo_is_dropped(visit, cat):
    one = visit(WORDS).connected()
    one.page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "my cat.jpg", {type: "image/jpeg"}));
            const options = {dataTransfer: data, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent("dragover", options));
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        list(cat),
    )
    one.wait_shares("cat")
    assert one.picture().shape == (300, 451, 3)
    assert int(one.shares()["cat"].split()[0]) > 50


def test_a_video_is_chosen_paused_and_gets_new_words(visit, scenes, tmp_path):
    path = tmp_path / "cat.webm"
    film(path, "libvpx", "yuv420p", scenes)
    one = visit("#w=cat&w=floor").connected()
    one.page.set_input_files("#file", path)
    one.wait_shares("cat", "floor")
    assert int(one.shares()["cat"].split()[0]) > 50
    expect(one.page.locator("#time")).to_contain_text("/ 0:0")
    one.page.click('[aria-label="Pause"]')
    expect(one.page.locator("#play")).to_have_attribute("aria-label", "Play")
    one.say("wall")
    one.wait_shares("wall")
    one.page.click('[aria-label="Play"]')
    one.wait_picture(one.picture())


def test_files_that_cannot_be_read_are_said_in_plain_words(visit, tmp_path):
    one = visit(WORDS).connected()
    for name, text in (("notes.jpg", "cannot read notes.jpg"), ("film.mp4", "cannot play film.mp4")):
        file = tmp_path / name
        file.write_bytes(b"nothing of the kind" * 100)
        one.page.set_input_files("#file", file)
        expect(one.page.locator("#notice")).to_contain_text(text)
    one.example()
    expect(one.page.locator("#notice")).to_be_hidden()


def test_the_threshold_makes_pixels_unknown(visit):
    one = visit(WORDS).connected()
    one.example()
    expect(one.page.locator("#unknown-row")).to_be_hidden()
    before = one.picture()
    one.page.focus("#limit")
    for _ in range(6):
        one.page.keyboard.press("PageUp")
    expect(one.page.locator("#unknown-row")).to_be_visible()
    assert one.page.inner_text("#limit-value") == f"{one.page.input_value('#limit')} %"
    few = int(one.page.inner_text("#unknown-row b").split()[0].lstrip("<"))
    one.page.keyboard.press("End")
    expect(one.page.locator("#unknown-row b")).to_have_text("100 %")
    assert few < 100
    assert one.page.locator("#histogram rect.below").count() == 20
    one.wait_picture(before)


def test_a_reload_and_a_link_keep_words_and_settings(visit):
    one = visit().connected()
    for name in ("person", "chair", "table"):
        one.page.click(f'[aria-label="Remove {name}"]')
    one.say("sofa: couch, settee")
    one.say("Kätzchen & Co.")
    one.page.click('[aria-label="Draw wall"]')
    one.page.fill("#limit", "35")
    one.page.fill("#opacity", "80")
    names = one.names()
    expect(one.page).to_have_url(re.compile("opacity=80"))

    def check(person):
        person.connected()
        assert person.names() == names
        assert person.page.inner_text("#words li:nth-last-child(2) small") == "couch, settee"
        assert person.page.get_attribute('[aria-label="Draw wall"]', "aria-pressed") == "false"
        assert person.page.input_value("#limit") == "35"
        assert person.page.input_value("#opacity") == "80"

    one.page.reload()
    check(one)
    check(visit(f"#{urlsplit(one.page.url).fragment}"))


def test_a_server_that_starts_again_is_found_again(visit, make_server):
    first = make_server()
    one = visit(WORDS, url=first.url, noisy=True).connected()
    one.example()
    first.stop()
    expect(one.page.locator("#status")).to_have_text("Reconnecting…")
    one.say("spoon")  # Meanwhile.
    make_server(port=first.port)
    one.connected()
    one.wait_shares("cat", "wall", "cup", "spoon")
    assert one.page.inner_text("#notice p") == ""


def test_a_token_is_asked_for(visit, make_server):
    server = make_server(token="a token of/some=length")
    one = visit(WORDS, url=server.url, noisy=True)
    expect(one.page.locator("#token")).to_be_focused()
    one.page.fill("#token", "another token")
    one.page.press("#token", "Enter")
    expect(one.page.locator("#status")).to_have_text("The token was refused")
    one.page.fill("#token", "a token of/some=length")
    one.page.press("#token", "Enter")
    one.connected()
    expect(one.page.locator("#notice")).to_be_hidden()
    one.example()
    one.page.reload()
    one.connected()
    assert "token" not in one.page.url


def test_a_click_tells_the_class_and_both_pictures_are_saved(visit, tmp_path):
    one = visit(WORDS).connected()
    one.example()
    before = one.picture()
    with one.page.expect_download() as download:
        one.page.click("#save-labels")
    download.value.save_as(tmp_path / "labels.png")
    labels = np.asarray(Image.open(tmp_path / "labels.png", formats=["PNG"]))
    assert labels.shape == before.shape[:2]
    assert labels.max() < 3
    box = one.page.locator("#canvas").bounding_box()
    for x, y in ((0.5, 0.3), (0.1, 0.8), (0.95, 0.2)):
        one.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        row, column = int(y * labels.shape[0]), int(x * labels.shape[1])
        near = labels[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        text = one.page.inner_text("#probe")
        assert re.fullmatch(r"(cat|wall|cup) · \d+ %", text)
        assert ["cat", "wall", "cup"].index(text.split()[0]) in near
    with one.page.expect_download() as download:
        one.page.click("#save")
    download.value.save_as(tmp_path / "picture.png")
    np.testing.assert_array_equal(load_image(tmp_path / "picture.png"), before)


def test_classes_and_overlay_are_switched_off_without_the_server(visit):
    one = visit("#w=cup&opacity=100").connected()
    one.example()
    covered = one.picture()
    assert (covered == covered[0, 0]).all()  # One word, one colour.
    one.page.click('[aria-label="Draw cup"]')
    bare = one.picture()
    assert (bare != covered).any(axis=2).mean() > 0.9
    one.page.click('[aria-label="Draw cup"]')
    np.testing.assert_array_equal(one.picture(), covered)
    one.page.fill("#opacity", "0")
    np.testing.assert_array_equal(one.picture(), bare)


def test_a_source_of_the_server_is_shown(visit):
    one = visit("#w=red&w=green&w=blue").connected()
    one.page.locator("#sources").get_by_text("clip").click()
    one.wait_shares("red", "green", "blue")
    assert one.picture().shape == (48, 64, 3)
    one.say("sky")
    one.wait_shares("sky")
    one.page.locator("#sources").get_by_text("gone").click()
    expect(one.page.locator("#notice")).to_contain_text("The source gone cannot be read")
    one.page.locator("#sources").get_by_text("clip").click()
    one.wait_shares("red")


def test_everything_works_with_the_keyboard_alone(visit):
    one = visit(WORDS).connected()
    page = one.page

    def focused() -> str:
        return page.evaluate(
            "(document.activeElement.ariaLabel || document.activeElement.innerText || '').trim()"
        )

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if name in (focused(), page.evaluate("document.activeElement.id")):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none"
                return
        raise AssertionError(f"Tab never comes to {name}")

    tab_to("Try an example photo")
    page.keyboard.press("Enter")
    one.wait_shares("cat", "wall", "cup")
    tab_to("canvas")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("#probe")).to_have_text(re.compile(r"(cat|wall|cup) · \d+ %"))
    assert page.inner_text("#said") == page.inner_text("#probe")
    page.keyboard.press("Escape")
    expect(page.locator("#probe")).to_be_hidden()
    tab_to("word")
    page.keyboard.type("spoon")
    page.keyboard.press("Enter")
    one.wait_shares("spoon")
    tab_to("spoon, edit")
    page.keyboard.press("Enter")
    page.keyboard.type("fork")
    page.keyboard.press("Escape")  # Not changed.
    assert focused() == "spoon, edit"
    page.keyboard.press("Enter")
    page.keyboard.type("fork")
    page.keyboard.press("Enter")
    one.wait_shares("fork")
    assert focused() == "fork, edit"
    page.keyboard.press("Tab")
    assert focused() == "Remove fork"
    page.keyboard.press("Space")
    expect(page.locator("#words li")).to_have_count(3)
    assert focused() == "Remove cup"
    tab_to("limit")
    page.keyboard.press("PageUp")
    expect(page.locator("#limit-value")).not_to_have_text("off")


def test_every_control_has_a_name(visit):
    one = visit(WORDS).connected()
    one.example()
    nameless = one.page.evaluate("""() => [...document.querySelectorAll("button, input, select, canvas")]
        .filter((e) => !(e.ariaLabel || e.innerText || e.labels?.length)).map((e) => e.outerHTML)
        .filter((html) => !html.includes('type="file"'))""")
    assert nameless == []


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (768, "light"), (1440, "dark")])
def test_nothing_is_wider_than_the_window(visit, width, scheme):
    one = visit(WORDS, viewport={"width": width, "height": 800}, color_scheme=scheme).connected()
    one.example()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    luminance = one.page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert (sum(luminance) > 380) == (scheme == "light")


def test_words_are_never_read_as_html(visit):
    attack = "<img src=x onerror=document.title='hacked'>"
    one = visit(f"#w={attack.replace('=', '%3D')}&w=cat").connected()
    one.say("<b>bold</b>")
    one.example()
    one.wait_shares("cat")
    assert one.names() == [attack, "cat", "<b>bold</b>"]
    assert one.page.title() == "PixelCLIP live"
    assert one.page.locator("#words img, #words b b").count() == 0


def test_words_that_cannot_be_used_are_said_beside_them(visit):
    one = visit(WORDS).connected()
    one.say("CAT")
    expect(one.page.locator("#word-error")).to_contain_text("“CAT” is there already")
    one.say("x" * 300)
    expect(one.page.locator("#word-error")).to_contain_text("more than 200")
    expect(one.page.locator("#word")).to_have_value("x" * 300)  # To be typed again.
    assert "x" * 300 not in one.names()  # The other words stay.
    one.page.fill("#word", "")
    one.say("dog\ncow")
    expect(one.page.locator("#word-error")).to_be_hidden()
    one.example()
    one.wait_shares("cat")


def test_a_list_is_pasted(visit):
    one = visit("#w=cat").connected()
    one.page.focus("#word")
    one.page.evaluate("""() => {
        const data = new DataTransfer();
        data.setData("text", "dog, puppy\\nsofa: couch\\n\\ncow; horse");
        const paste = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
        document.querySelector("#word").dispatchEvent(paste);
    }""")
    assert one.names() == ["cat", "dog", "puppy", "sofa", "cow", "horse"]


def test_a_camera_that_the_page_may_not_use_is_explained(browser, make_server):
    server = make_server(token="a token that is long enough")
    rules = "--host-resolver-rules=MAP camera.test 127.0.0.1"
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", rules]  # Nobody allows the camera.
    strict = browser.browser_type.launch(executable_path=CHROMIUM, args=arguments)
    try:
        for host, text in (
            ("127.0.0.1", "The browser may not use the camera"),
            ("camera.test", "only to pages on https:// or localhost"),
        ):
            page = strict.new_page()
            page.goto(f"http://{host}:{server.port}/")
            page.get_by_role("button", name="Use the camera").click()
            expect(page.locator("#notice p")).to_have_text(re.compile(text))
            page.close()
    finally:
        strict.close()


def test_labels_of_16_bits_are_shown(visit):
    words = "".join(f"&w=thing+number+{i}" for i in range(270))
    one = visit(f"#w=cup{words}").connected()
    one.example()
    one.wait_shares("cup", "thing number 269")


def test_the_files_of_the_page_are_small():
    from pixelclip_sdk.serve import app

    files = [file for file in (app._STATIC).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 200 * 1024
    text = "".join(file.read_text("utf-8") for file in files if file.suffix in (".html", ".css", ".js"))
    assert set(re.findall(r"https?://[^\s\"'`<,]+", text)) <= {"http://www.w3.org/2000/svg"}
    page = next(file for file in files if file.name == "index.html").read_text("utf-8")
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)
