import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import (
    BackendError,
    BackendUnavailableError,
    BundleError,
    ImageError,
    ModelNotFoundError,
    PixelClipError,
    Segmenter,
    Smoother,
    Vocabulary,
    VocabularyError,
    backends,
    read_classes,
)
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.models import BUNDLED, available_models
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.words import resolver as _words


def test_patches_get_their_colours(fake, patches):
    result = fake.predict(patches)
    assert result.labels.dtype == np.uint8
    assert result.labels[5, 5] == 0
    assert result.labels[60, 5] == 1
    assert result.labels[60, 60] == 2
    # Borders between patches lie within a cell of the truth.
    assert (result.labels[:28] == 0).all()
    assert (result.labels[36:, :28] == 1).all()


def test_labels_have_the_pictures_size(fake, patches):
    large = np.asarray(Image.fromarray(patches).resize((200, 130), Image.Resampling.NEAREST))
    result = fake.predict(large)
    assert result.labels.shape == result.scores.shape == (130, 200)
    assert result.orig_shape == (130, 200)
    assert result.labels[120, 190] == 2


def test_one_pixel_is_a_picture(fake):
    result = fake.predict(np.array([[[250, 0, 0]]], np.uint8))
    assert result.labels.tolist() == [[0]]


def test_scores_are_cosines_of_the_winner(fake):
    result = fake.predict(np.full((64, 64, 3), (255, 0, 0), np.uint8))
    np.testing.assert_allclose(result.scores, 1, atol=1e-5)


def test_threshold_makes_unknown(fake, patches):
    yellow = np.full((64, 64, 3), (255, 255, 0), np.uint8)
    assert (fake.predict(yellow).labels != 255).all()
    assert (fake.predict(yellow, threshold=0.9).labels == 255).all()
    fake.threshold = 0.9
    assert (fake(yellow).labels == 255).all()
    assert (fake.predict(patches, threshold=-1).labels != 255).all()


@pytest.mark.parametrize("threshold", ["0.2", float("nan"), [0.2], 40, -1.5])
def test_a_threshold_is_a_number(fake, patches, threshold):
    with pytest.raises(PixelClipError, match="expected a number"):
        fake.predict(patches, threshold=threshold)
    with pytest.raises(PixelClipError, match="expected a number"):
        fake.threshold = threshold
    assert fake.threshold is None


@pytest.mark.parametrize("threads", [0, 1.5, "2", 10**10])
def test_threads_are_a_number_of_them(threads):
    with pytest.raises(BackendError, match="expected 1 to 1024"):
        Segmenter.from_pretrained(threads=threads)


def test_a_stream_runs_no_other_file_than_was_loaded(tmp_path, photo, monkeypatch):
    folder = shutil.copytree(available_models()["pixelclip-lite"], tmp_path / "lite")
    monkeypatch.chdir(tmp_path)
    with Segmenter.from_pretrained("lite", classes=["cat", "wall"]) as segmenter:
        monkeypatch.chdir("/")  # A relative path means what it meant.
        if default_threads() > 1:
            next(segmenter.stream([photo]))
    with Segmenter.from_pretrained(folder, classes=["cat", "wall"]) as segmenter:
        segmenter.predict(photo)
        file = folder / "image_encoder.onnx"
        file.write_bytes(file.read_bytes())  # Written anew: another export may have done it.
        if default_threads() > 1:
            with pytest.raises(BackendError, match="not the file that was loaded"):
                segmenter.stream([photo])


def test_channel_order(fake, patches):
    turned = fake.predict(patches[:, :, ::-1], channel_order="bgr")
    np.testing.assert_array_equal(turned.labels, fake.predict(patches).labels)
    np.testing.assert_array_equal(turned.image, patches)


def test_speed_names_every_stage(fake, patches):
    speed = fake.predict(patches).speed
    assert list(speed) == ["decode", "preprocess", "inference", "refine", "postprocess", "total"]
    assert speed["total"] == pytest.approx(sum(list(speed.values())[:-1]))


def test_batch_and_single_agree_whatever_the_sizes(fake, patches):
    images = [patches, patches[:40], np.rot90(patches), patches[:, :17]]
    together = fake.predict_batch(images)
    for image, result in zip(images, together, strict=True):
        np.testing.assert_array_equal(result.labels, fake.predict(image).labels)
    assert fake.predict_batch([]) == []


def test_a_long_batch_goes_through_in_pieces(fake, patches, monkeypatch):
    sizes = []
    logits = FakeBackend.logits
    monkeypatch.setattr(
        FakeBackend,
        "logits",
        lambda self, images, text: sizes.append(len(images)) or logits(self, images, text),
    )
    results = fake.predict_batch([np.roll(patches, i, axis=1) for i in range(40)])
    assert sizes == [16, 16, 8]
    for i in (0, 17, 39):
        np.testing.assert_array_equal(results[i].labels, fake.predict(np.roll(patches, i, axis=1)).labels)


def test_batch_and_single_agree_on_the_real_model(lite, photo):
    images = [photo, photo[:, ::-1], photo[:200], np.ascontiguousarray(photo[50:250])]
    for image, result in zip(images, lite.predict_batch(images), strict=True):
        single = lite.predict(image)
        np.testing.assert_array_equal(result.labels, single.labels)
        np.testing.assert_array_equal(result.scores, single.scores)


def test_a_bad_picture_in_a_batch_is_named(fake, patches):
    with pytest.raises(ImageError, match=r"image 1 of 2: nowhere\.jpg does not exist"):
        fake.predict_batch([patches, "nowhere.jpg"])


def test_a_single_picture_is_no_batch(fake, patches):
    for single in (patches, Image.fromarray(patches), b"bytes", "photo.jpg"):
        with pytest.raises(ImageError, match="expected a list"):
            fake.predict_batch(single)


def test_an_array_of_pictures_and_a_generator_are_batches(fake, patches):
    expected = fake.predict(patches).labels
    for batch in (np.stack([patches, patches]), (patches for _ in range(2))):
        results = fake.predict_batch(batch)
        assert len(results) == 2
        np.testing.assert_array_equal(results[1].labels, expected)
    with pytest.raises(ImageError, match="image 1 of 2"):
        fake.predict_batch(picture for picture in (patches, "nowhere.jpg"))


def test_features_are_a_grid_of_embeddings(fake, lite, patches, photo):
    grid = fake.features(patches)
    assert grid.shape == (8, 8, 3)
    np.testing.assert_allclose(grid[0, 0], np.array([1, -1, -1]) / np.sqrt(3), atol=1e-6)
    grid = lite.features(photo)
    assert grid.shape[2] == lite.bundle.embedding_dim
    assert grid.dtype == np.float32
    assert np.isfinite(grid).all()


def test_logits_are_cosines_of_features_and_text(lite, photo):
    # A cell's centre carries its logit unchanged when the picture is an odd multiple of the grid.
    height, width = lite.features(photo).shape[:2]
    picture = np.asarray(Image.fromarray(photo).resize((width * 33, height * 33)))
    result = lite.predict(picture)
    again = lite.features(picture)
    cosines = again / np.linalg.norm(again, axis=-1, keepdims=True) @ lite.vocabulary.embeddings.T
    spread = np.linalg.norm(lite.vocabulary.embeddings @ lite.bundle.damping().T, axis=1)
    cosines /= np.maximum(spread, 1)  # Words that fit too many photos are damped.
    np.testing.assert_allclose(result.scores[16::33, 16::33], cosines.max(axis=-1), atol=1e-4)


def test_words_change_for_the_next_picture_and_results_keep_their_own(fake, patches, colour_vocabulary):
    before = fake.predict(patches)
    fake.set_classes(colour_vocabulary("blue", "yellow"))
    after = fake.predict(patches)
    assert before.names == ("red", "green", "blue")
    assert after.names == ("blue", "yellow")
    assert before.mask("blue")[60, 60]
    assert after.mask("blue")[60, 60]
    assert fake.vocabulary.names == ("blue", "yellow")


def test_words_that_fail_leave_the_old_ones(lite, fake):
    names = lite.vocabulary.names
    for bad in ([], ["cat", "cat"], ["🐱"], ["x" * 10_000]):
        with pytest.raises(VocabularyError):
            lite.set_classes(bad)
    assert lite.vocabulary.names == names
    with pytest.raises(VocabularyError, match="no text encoder"):
        fake.set_classes(["cat"])


def test_a_vocabulary_of_another_model_is_refused(lite, colour_vocabulary):
    with pytest.raises(VocabularyError, match="3 wide"):
        lite.set_classes(colour_vocabulary("red"))
    width = lite.bundle.embedding_dim
    other = Vocabulary(names=["cat"], embeddings=np.eye(1, width, dtype=np.float32), text_hash="another")
    with pytest.raises(VocabularyError, match="another text encoder"):
        lite.set_classes(other)


def test_without_its_text_encoder_a_model_knows_its_vocabularies_by_their_own(lite, tmp_path):
    folder = shutil.copytree(lite.bundle.path, tmp_path / "lite")
    manifest = json.loads((folder / "bundle.json").read_text())
    for name in ("text_encoder.onnx", "tokenizer.json"):
        del manifest["files"][name]
    words = lite.set_classes(["cat", "sofa"])
    own = words.save(folder / "vocabularies" / "own.npz")
    manifest["files"]["vocabularies/own.npz"] = {"size": own.stat().st_size, "sha256": sha256(own)}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    width = lite.bundle.embedding_dim
    other = Vocabulary(names=["cat"], embeddings=np.eye(1, width, dtype=np.float32), text_hash="another")
    with Segmenter.from_pretrained(folder) as segmenter:
        segmenter.set_classes(words)
        with pytest.raises(VocabularyError, match="another text encoder"):
            segmenter.set_classes(other)
        assert segmenter.vocabulary.names == ("cat", "sofa")


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (64, 32), (20, 60)])
def test_padding_does_not_move_the_labels(colour_vocabulary, size):
    spec = InputSpec(height=64, width=128, multiple=8, fixed=True, keep_aspect=True)
    image = np.zeros((*size, 3), np.uint8)
    image[: size[0] // 2] = (255, 0, 0)
    image[size[0] // 2 :] = (0, 255, 0)
    with Segmenter(FakeBackend(), spec, vocabulary=colour_vocabulary("red", "green")) as segmenter:
        labels = segmenter.predict(image).labels
    expected = np.arange(size[0])[:, None] * np.ones(size[1]) >= size[0] // 2
    # Interpolation moves a border by less than a cell.
    assert (labels == expected).mean() > 0.9
    assert (labels[0] == 0).all()
    assert (labels[-1] == 1).all()


def test_a_segmenter_without_words_says_so(patches):
    spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
    with pytest.raises(VocabularyError, match="call set_classes"):
        Segmenter(FakeBackend(), spec).predict(patches)


def test_a_closed_segmenter_says_so(fake, patches):
    with fake as segmenter:
        segmenter.predict(patches)
    fake.close()
    with pytest.raises(BackendError, match="closed"):
        fake.predict(patches)
    with pytest.raises(BackendError, match="closed"):
        fake.set_classes(fake.vocabulary)


def test_unknown_backends_and_devices_are_refused():
    with pytest.raises(BackendUnavailableError, match="auto"):
        Segmenter.from_pretrained(backend="magic")
    with pytest.raises(BackendUnavailableError, match="cpu"):
        Segmenter.from_pretrained(device="tpu")


def test_the_same_input_gives_the_same_labels(lite, photo):
    first = lite.predict(photo)
    for _ in range(3):
        again = lite.predict(photo)
        np.testing.assert_array_equal(first.labels, again.labels)
        np.testing.assert_array_equal(first.scores, again.scores)


def test_many_threads_one_segmenter(photo):
    """Words swap while pictures are under way: every result fits its own names."""
    with Segmenter.from_pretrained(classes=["cat", "sofa"]) as segmenter:
        small = photo[::2, ::2]
        sets = [["cat", "sofa"], ["grass"], ["sky", "road", "cat"]]
        expected = {}
        for names in sets:
            segmenter.set_classes(names)
            expected[tuple(names)] = segmenter.predict(small).labels
        stop = threading.Event()

        def swap():
            while not stop.is_set():
                for names in sets:
                    segmenter.set_classes(names)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(segmenter.predict, [small] * 40))
        finally:
            stop.set()
            swapper.join()
        for result in results:
            np.testing.assert_array_equal(result.labels, expected[tuple(result.names)])


def test_4096_names_give_uint16_labels(lite, photo):
    rows = np.random.default_rng(0).normal(size=(4096, lite.bundle.embedding_dim)).astype(np.float32)
    many = Vocabulary(
        names=[f"word {i}" for i in range(4096)],
        embeddings=rows / np.linalg.norm(rows, axis=1, keepdims=True),
    )
    before = lite.vocabulary
    lite.set_classes(many)
    try:
        result = lite.predict(photo)
    finally:
        lite.set_classes(before)
    assert result.labels.dtype == np.uint16
    assert result.unknown == 65535
    assert result.labels.max() < 4096


def test_real_words_find_a_real_cat(photo):
    with Segmenter.from_pretrained(classes=["cat", "bicycle", "aeroplane"]) as segmenter:
        assert next(iter(segmenter.predict(photo).areas())) == "cat"
        assert "cat" in repr(segmenter)


@pytest.mark.parametrize(("size", "grid"), [(None, (11, 14)), ((160, 224), (5, 7)), ((672, 896), (21, 28))])
def test_the_input_size_can_be_chosen(size, grid):
    with Segmenter.from_pretrained(classes=["cat"], input_size=size) as segmenter:
        result = segmenter.predict(np.zeros((480, 640, 3), np.uint8))
    assert result.logits.shape == (1, *grid)
    assert result.labels.shape == (480, 640)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((100, 224), "height is 100.*multiple of 32, for example 96 or 128"),
        ((96, 0), "width is 0"),
        (448, "expected two whole numbers"),
        ("ab", "expected two whole numbers"),
        ((448,), "expected two whole numbers"),
        ((448.0, 448.0), "expected two whole numbers"),
    ],
)
def test_input_sizes_that_do_not_fit_are_refused(size, said):
    with pytest.raises(BundleError, match=said):
        Segmenter.from_pretrained(input_size=size)


def test_a_model_of_one_size_keeps_it():
    fixed = InputSpec(height=320, width=320, multiple=16, fixed=True, keep_aspect=False)
    assert fixed.resized((320, 320)) == fixed
    with pytest.raises(BundleError, match=r"takes 320×320 only.*--input-size 336 448"):
        fixed.resized((336, 448))


def test_an_engine_of_one_size_keeps_it(fake, monkeypatch):
    monkeypatch.setattr(fake._backend, "fixed_size", (64, 64))
    monkeypatch.setattr("pixelclip_sdk.backends.choose.open_backend", lambda *_: fake._backend)
    with pytest.raises(BundleError, match="is for 64×64 only"):
        Segmenter.from_pretrained(input_size=(160, 224))


def test_warming_up_runs_the_engine_once_at_the_size_to_come(fake, monkeypatch):
    seen, run = [], FakeBackend.logits

    def watched(self, images, text):
        seen.append(images.shape)
        return run(self, images, text)

    monkeypatch.setattr(FakeBackend, "logits", watched)
    fake.warm_up()
    fake.warm_up((30, 40))
    assert seen == [(1, 64, 64, 3)] * 2
    with pytest.raises(ImageError, match="size is 0×40"):
        fake.warm_up((0, 40))
    fake.close()
    with pytest.raises(BackendError, match="closed"):
        fake.warm_up()


def test_features_are_of_the_picture_not_of_its_padding():
    spec = InputSpec(height=64, width=128, multiple=8, fixed=True, keep_aspect=True)
    with Segmenter(FakeBackend(), spec) as segmenter:
        assert segmenter.features(np.zeros((64, 64, 3), np.uint8)).shape[:2] == (8, 8)
        assert segmenter.features(np.zeros((20, 60, 3), np.uint8)).shape[:2] == (6, 16)
        assert segmenter.features(np.zeros((64, 128, 3), np.uint8)).shape[:2] == (8, 16)


def test_one_result_of_a_batch_does_not_hold_the_others(fake, patches):
    for result in fake.predict_batch([patches] * 3):
        kept = result.logits.base if result.logits.base is not None else result.logits
        assert kept.nbytes == result.logits.nbytes


@pytest.mark.parametrize("options", [{"classes": "cat, cat"}, {"classes": "voc-21"}])
def test_an_engine_whose_words_are_refused_is_closed(monkeypatch, options):
    engines = []

    def opened(*arguments):
        engines.append(choose(*arguments))
        return engines[-1]

    choose = backends.choose.open_backend
    monkeypatch.setattr(backends.choose, "open_backend", opened)
    with pytest.raises(VocabularyError):
        Segmenter.from_pretrained(**options)
    (engine,) = engines
    with pytest.raises(BackendError, match="closed"):
        engine.features(np.zeros((1, 352, 448, 3), np.uint8))
    with pytest.raises(PixelClipError, match="threshold"):
        Segmenter.from_pretrained(threshold="0.2")
    assert len(engines) == 1  # What is wrong with numbers is said before anything is loaded.


def test_no_text_encoder_is_loaded_into_a_segmenter_that_closes_meanwhile(monkeypatch):
    segmenter = Segmenter.from_pretrained()
    taken, go_on = threading.Event(), threading.Event()

    def check(*_):
        taken.set()
        go_on.wait(10)

    monkeypatch.setattr(_words, "check_list_name", check)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(segmenter.set_classes, "cat, sofa")
        taken.wait(10)
        segmenter.close()
        go_on.set()
        with pytest.raises(BackendError, match="closed"):
            late.result(10)


@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_an_opacity_is_a_share(fake, patches, opacity):
    with pytest.raises(PixelClipError, match=r"opacity is .* expected a number from 0 to 1"):
        fake.predict(patches).plot(opacity=opacity)


def test_the_call_made_last_wins_whichever_finishes_last(lite, monkeypatch):
    """A long list is embedded in one thread while another sets two words."""
    taken, go_on = threading.Event(), threading.Event()
    encode = Vocabulary.encode

    def slow(classes, encoder):
        if "slow" in classes:
            taken.set()
            assert go_on.wait(10)
        return encode(classes, encoder)

    monkeypatch.setattr(Vocabulary, "encode", slow)
    before = lite.vocabulary
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(lite.set_classes, ["slow", "cat"])
            assert taken.wait(10)
            lite.set_classes(["dog", "sofa"])
            go_on.set()
            assert first.result(10).names == ("slow", "cat")
        assert lite.vocabulary.names == ("dog", "sofa")
        lite.set_classes(["slow", "wall"])  # Slow or not, a later call wins.
        assert lite.vocabulary.names == ("slow", "wall")
    finally:
        lite.set_classes(before)


def test_a_later_call_that_fails_does_not_undo_an_earlier_one(lite):
    taken, go_on = threading.Event(), threading.Event()
    encode = Vocabulary.encode

    def slow(classes, encoder):
        taken.set()
        assert go_on.wait(10)
        return encode(classes, encoder)

    before = lite.vocabulary
    try:
        with ThreadPoolExecutor(1) as pool:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Vocabulary, "encode", slow)
                first = pool.submit(lite.set_classes, ["dog", "cat"])
                assert taken.wait(10)
            with pytest.raises(VocabularyError):
                lite.set_classes("cat, cat")
            go_on.set()
            first.result(10)
        assert lite.vocabulary.names == ("dog", "cat")
    finally:
        lite.set_classes(before)


def test_one_class_without_a_threshold_is_remarked(fake, colour_vocabulary, caplog):
    fake.set_classes(colour_vocabulary("red", "blue"))
    assert not caplog.text
    fake.set_classes(colour_vocabulary("red"))
    assert "every pixel becomes 'red'" in caplog.text
    caplog.clear()
    fake.threshold = 0.5
    fake.set_classes(colour_vocabulary("red"))
    assert not caplog.text


def test_the_backend_has_the_name_that_selects_it(lite, fake):
    assert lite.backend == "onnx"
    assert lite.engine_description == f"onnxruntime on cpu, {default_threads()} threads"
    assert fake.backend == "fake"
    with Segmenter.from_pretrained(backend=lite.backend) as again:
        assert again.backend == lite.backend


def test_a_pickled_segmenter_loads_its_model_again(photo):
    with Segmenter.from_pretrained(
        classes=["cat", "sofa"], threshold=0.1, threads=1, input_size=(160, 224)
    ) as segmenter:
        expected = segmenter.predict(photo)
        with pickle.loads(pickle.dumps(segmenter)) as other:
            assert other.threshold == 0.1
            assert other.engine_description == segmenter.engine_description
            np.testing.assert_array_equal(other.predict(photo).labels, expected.labels)
            other.set_classes("dog, cat")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            labels = pool.map(segmenter.predict, [photo])[0].labels
        np.testing.assert_array_equal(labels, expected.labels)


def test_a_segmenter_of_parts_cannot_be_pickled(fake):
    with pytest.raises(PixelClipError, match="was not loaded by Segmenter"):
        pickle.dumps(fake)


FORK = """
import os, signal, sys
import numpy as np
from pixelclip_sdk import BackendError, Segmenter
segmenter = Segmenter.from_pretrained(classes=["cat", "dog"])
image = np.zeros((64, 64, 3), np.uint8)
segmenter.predict(image)
if (child := os.fork()) == 0:
    signal.alarm(20)  # A child that hangs is killed.
    for use in (lambda: segmenter.predict(image), lambda: segmenter.set_classes("a, b"),
                lambda: segmenter._resolver._encoder.encode(["a"])):
        try:
            use()
        except BackendError as error:
            print("refused:", error)
    with Segmenter.from_pretrained(classes=["cat", "dog"]) as own:
        print(own.predict(image).labels.shape)
    if sys.argv[1] == "close":
        segmenter.close()
    elif sys.argv[1] == "delete":
        del segmenter
    sys.exit(7)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
segmenter.predict(image)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("end", ["leave", "close", "delete"])
def test_a_forked_child_gets_an_error_and_ends(end):
    """The destructor of a session waits for threads that the child does not have."""
    result = subprocess.run(
        [sys.executable, "-c", FORK, end], capture_output=True, text=True, timeout=60, check=True
    )
    lines = result.stdout.splitlines()
    assert sum("Load it in the child" in line for line in lines) == 3
    assert lines[3:] == ["(64, 64)", "child ended with 7"]


def test_a_tilde_is_the_home_folder_in_every_input(tmp_path, monkeypatch, photo):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PIXELCLIP_HOME", raising=False)
    shutil.copytree(BUNDLED / "pixelclip-lite", tmp_path / "b")
    (tmp_path / "f.txt").write_text("cat, sofa")
    (tmp_path / "frames").mkdir()
    for name in ("p.png", "frames/1.png"):
        Image.fromarray(photo).resize((64, 48)).save(tmp_path / name)
    with Segmenter.from_pretrained("~/b", classes=read_classes("~/f.txt")) as segmenter:
        assert segmenter.bundle.path == tmp_path / "b"
        assert segmenter.predict("~/p.png").names == ("cat", "sofa")
        assert [result.orig_shape for result in segmenter.stream("~/frames")] == [(48, 64)]
        assert segmenter.vocabulary.save("~/v.npz") == tmp_path / "v.npz"
    assert Vocabulary.load("~/v.npz").names == read_classes("~/v.npz").names == ("cat", "sofa")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"name_or_path": None}, ModelNotFoundError, "the model is None; expected a name"),
        ({"name_or_path": 5}, ModelNotFoundError, "the model is 5; expected a name"),
        ({"name_or_path": " "}, ModelNotFoundError, "the model's name is empty"),
        ({"backend": None}, BackendUnavailableError, "backend is None; expected one of auto"),
        ({"device": None}, BackendUnavailableError, "device is None"),
        ({"threads": "2"}, BackendError, "threads is '2'; expected 1 to"),
        ({"threshold": 40}, PixelClipError, "threshold is 40; expected a number from -1 to 1"),
    ],
)
def test_arguments_of_a_wrong_type_are_errors_of_the_tree(options, error, said):
    with pytest.raises(error, match=said):
        Segmenter.from_pretrained(**options)


def test_words_keep_their_ids_when_their_order_changes(fake, patches, colour_vocabulary):
    words = fake.set_classes(colour_vocabulary("yellow", "blue", "red"), keep_ids=True)
    result = fake.predict(patches)
    assert result.names == words.names == ("red", "yellow", "blue")
    assert (result.labels[:28] == 0).all()
    assert (result.labels[36:, 36:] == 2).all()


def test_an_unused_id_wins_no_pixel_and_keeps_its_name(fake, patches, colour_vocabulary):
    fake.set_classes(colour_vocabulary("blue", "green"), keep_ids=True)
    result = fake.predict(patches)
    assert result.names == ("red", "green", "blue")
    assert result.areas()["red"] == 0
    assert result.labels[60, 60] == 2
    assert (result.logits[0] == -1).all()
    fake.set_classes(colour_vocabulary("red", "green"), keep_ids=True)
    assert (fake.predict(patches).labels[:28] == 0).all()


def test_users_of_one_model_have_words_and_settings_of_their_own(fake, patches, colour_vocabulary):
    fake.threshold = 0.1
    other = fake.with_classes(colour_vocabulary("blue", "green"))
    assert other.threshold == 0.1
    other.threshold = 0.99999
    assert other.vocabulary.names == ("blue", "green")
    assert fake.vocabulary.names == ("red", "green", "blue")
    assert fake.threshold == 0.1
    result = other.predict(patches)
    assert result.names == ("blue", "green")
    assert (result.labels[36:, 36:] == 0).all()
    assert (result.labels[:28] == other.predict(patches).unknown).all()
    assert (fake.predict(patches).labels[:28] == 0).all()


def test_limits_of_single_classes_stay_with_their_words(fake, colour_vocabulary):
    fake.min_confidence = {"red": 0.5}
    assert fake.with_classes(colour_vocabulary("blue", "green")).min_confidence is None
    assert fake.min_confidence == {"red": 0.5}


def test_only_the_segmenter_that_loaded_the_model_closes_it(fake, patches, colour_vocabulary):
    other = fake.with_classes(colour_vocabulary("blue", "green"))
    other.close()
    assert fake.predict(patches).labels[5, 5] == 0
    fake.close()
    with pytest.raises(BackendError, match="closed"):
        other.predict(patches)


def test_frames_one_by_one_are_smoothed_like_a_stream(fake, patches):
    rng = np.random.default_rng(0)
    frames = [np.clip(patches + rng.normal(0, 8, patches.shape), 0, 255).astype(np.uint8) for _ in range(6)]
    expected = list(fake.stream(((i / 30, f) for i, f in enumerate(frames)), smooth=0.3))
    smoother = Smoother(0.3)
    for i, (frame, wanted) in enumerate(zip(frames, expected, strict=True)):
        got = fake.predict(frame, smoother=smoother, time_s=i / 30)
        np.testing.assert_array_equal(got.logits, wanted.logits)
    assert not np.array_equal(got.logits, fake.predict(frames[-1]).logits)
