import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from pixelclip_sdk import OutputError, Vocabulary, VocabularyError
from pixelclip_sdk.words.vocabulary import parse_classes, read_classes


class LetterEncoder:
    """Embeds a text as its unit letter counts: exact, and close words are close."""

    templates = ("a {}.", "the {}.")
    text_hash = "letters"

    def check_words(self, words):
        for word in words:
            if not any(c.isascii() and c.isalpha() for c in word):
                raise VocabularyError(f"no letters in {word!r}")

    def encode(self, texts):
        rows = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_all_ways_to_give_classes_agree():
    expected = {"cat": ("cat",), "red sofa": ("red sofa",)}
    for classes in (
        "cat, red sofa",
        ["cat", "red sofa"],
        ("cat", " red  sofa "),
        {"cat": "cat", "red sofa": ["red sofa"]},
    ):
        assert parse_classes(classes) == expected


def test_synonyms_keep_order_and_drop_repeats():
    assert parse_classes({"cat": ["cat", "kitten", "cat"]}) == {"cat": ("cat", "kitten")}


def unit(row):
    return row / np.linalg.norm(row)


def test_the_embedding_is_the_normalised_mean_of_normalised_prompts():
    """The mean over the synonyms for each template, then over the templates, as the official code has it."""
    encoder = LetterEncoder()
    classes = {"cat": ["cat", "kitten"], "sofa": ["sofa"]}
    vocabulary = Vocabulary.encode(classes, encoder)
    a, the = (
        encoder.encode([f"{article} cat.", f"{article} kitten."]).mean(axis=0) for article in ("a", "the")
    )
    np.testing.assert_allclose(vocabulary.embeddings[0], unit(unit(a) + unit(the)), atol=1e-6)
    assert np.abs(vocabulary.embeddings[0] - unit(a + the)).max() > 1e-4  # One mean over all is another.
    sofa = encoder.encode(["a sofa.", "the sofa."]).mean(axis=0)
    np.testing.assert_allclose(vocabulary.embeddings[1], unit(sofa), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vocabulary.embeddings, axis=1), 1, atol=1e-6)
    assert vocabulary.names == ("cat", "sofa")
    assert vocabulary.synonyms["cat"] == ("cat", "kitten")


@pytest.mark.parametrize("templates", [("a photo of {}",), ()])
def test_with_one_template_the_embedding_is_one_mean_to_the_bit(templates):
    encoder = LetterEncoder()
    encoder.templates = templates
    vocabulary = Vocabulary.encode({"cat": ["cat", "kitten", "puss"], "sofa": ["sofa"]}, encoder)
    rows = encoder.encode(
        [(templates or ("{}",))[0].format(word) for word in ("cat", "kitten", "puss", "sofa")]
    )
    sums = np.add.reduceat(rows, [0, 3], axis=0)
    np.testing.assert_array_equal(vocabulary.embeddings, sums / np.linalg.norm(sums, axis=1, keepdims=True))


def test_underscores_are_read_as_spaces():
    vocabulary = Vocabulary.encode(["sports_car"], LetterEncoder())
    assert vocabulary.names == ("sports_car",)
    np.testing.assert_array_equal(
        vocabulary.embeddings, Vocabulary.encode(["sports car"], LetterEncoder()).embeddings
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([], "no classes"),
        ("", "no classes"),
        ({}, "no classes"),
        (["cat", ""], "is empty"),
        (["cat", "   "], "is empty"),
        ("cat,,sofa", "is empty"),
        (["cat", "cat"], "repeated"),
        (["Cat", "cat "], "repeated"),
        (["x" * 10_000], "10000 characters"),
        ([f"word {i}" for i in range(4097)], "4097 classes"),
        (["cat", 3], "expected text"),
        ([None], "expected text"),
        ({"cat": []}, "empty list of synonyms"),
        ({"cat": [""]}, "is empty"),
        (7, "expected names"),
        (None, "expected names"),
        (["🐱"], "no letters"),
    ],
)
def test_words_that_cannot_be_used_are_refused(classes, said):
    with pytest.raises(VocabularyError, match=said):
        Vocabulary.encode(classes, LetterEncoder())


def test_4096_classes_are_taken():
    assert len(parse_classes([f"word {i}" for i in range(4096)])) == 4096


def test_is_immutable():
    vocabulary = Vocabulary.encode(["cat"], LetterEncoder())
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.embeddings[0, 0] = 1
    with pytest.raises(AttributeError):
        vocabulary.names = ["dog"]
    with pytest.raises(AttributeError):
        vocabulary.names.append("dog")
    with pytest.raises(TypeError):
        vocabulary.synonyms["cat"] = ("dog",)


def test_the_given_mappings_are_copied():
    names, synonyms = ["cat"], {"cat": ("cat", "kitten")}
    vocabulary = Vocabulary(names=names, embeddings=np.eye(1, 4, dtype=np.float32), synonyms=synonyms)
    names.append("dog")
    synonyms["cat"] = ("dog",)
    assert vocabulary.names == ("cat",)
    assert vocabulary.synonyms == {"cat": ("cat", "kitten")}


def test_a_pickled_vocabulary_is_the_same():
    vocabulary = Vocabulary.encode({"cat": ["cat", "kitten"]}, LetterEncoder())
    other = pickle.loads(pickle.dumps(vocabulary))
    assert (other.names, other.synonyms, other.templates) == (
        ("cat",),
        vocabulary.synonyms,
        vocabulary.templates,
    )
    np.testing.assert_array_equal(other.embeddings, vocabulary.embeddings)
    assert not other.embeddings.flags.writeable


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 4)), np.zeros((3, 4), np.float32), np.zeros(2, np.float32)],
    ids=["f8", "rows", "rank"],
)
def test_the_output_of_an_encoder_is_checked(rows):
    encoder = LetterEncoder()
    encoder.encode = lambda _: rows
    with pytest.raises(VocabularyError, match=r"the text encoder returned .* for 2 texts"):
        Vocabulary.encode(["cat"], encoder)


@pytest.mark.parametrize(
    ("embeddings", "said"),
    [
        (np.zeros((1, 4), np.float32), "norm 0"),
        (np.full((1, 4), np.nan, np.float32), "norm nan"),
        (np.eye(1, 4), "float64"),
        (np.eye(2, 4, dtype=np.float32), "expected float32"),
    ],
)
def test_embeddings_are_checked(embeddings, said):
    with pytest.raises(VocabularyError, match=said):
        Vocabulary(names=["cat"], embeddings=embeddings)


def test_save_and_load_give_the_same(tmp_path):
    vocabulary = Vocabulary.encode({"cat": ["cat", "kitten"], "Müll\u00e9": ["waste"]}, LetterEncoder())
    loaded = Vocabulary.load(vocabulary.save(tmp_path / "new folder" / "v.npz"))
    assert loaded.names == vocabulary.names
    assert loaded.synonyms == vocabulary.synonyms
    assert loaded.templates == vocabulary.templates
    assert loaded.text_hash == "letters"
    np.testing.assert_array_equal(loaded.embeddings, vocabulary.embeddings)


def test_saving_needs_the_right_suffix_and_a_writable_place(tmp_path):
    vocabulary = Vocabulary.encode(["cat"], LetterEncoder())
    with pytest.raises(VocabularyError, match="npz"):
        vocabulary.save(tmp_path / "v.json")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        vocabulary.save(tmp_path / "file" / "v.npz")


def test_loading_what_is_no_vocabulary_is_refused(tmp_path):
    good = Vocabulary.encode(["cat"], LetterEncoder()).save(tmp_path / "good.npz").read_bytes()
    with pytest.raises(VocabularyError, match="does not exist"):
        Vocabulary.load(tmp_path / "nowhere.npz")
    for name, content in {"empty": b"", "text": b"hello", "cut": good[: len(good) // 2]}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(VocabularyError, match="not a vocabulary"):
            Vocabulary.load(path)
    other_method = bytearray(good)
    other_method[other_method.rindex(b"PK\x01\x02") + 10] = 99  # How the last entry is compressed.
    (tmp_path / "method.npz").write_bytes(other_method)
    with pytest.raises(VocabularyError, match="not a vocabulary"):
        Vocabulary.load(tmp_path / "method.npz")
    np.savez(tmp_path / "other.npz", numbers=np.arange(3))
    with pytest.raises(VocabularyError, match="not a vocabulary"):
        Vocabulary.load(tmp_path / "other.npz")


def test_a_pickle_in_a_vocabulary_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    np.savez(tmp_path / "evil.npz", meta=np.array([Bomb()], object), embeddings=np.eye(1, dtype=np.float32))
    with pytest.raises(VocabularyError):
        Vocabulary.load(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


def test_a_newer_vocabulary_is_refused(tmp_path):
    meta = json.dumps({"schema_version": 3}).encode()
    np.savez(tmp_path / "v.npz", meta=np.frombuffer(meta, np.uint8), embeddings=np.eye(1, dtype=np.float32))
    with pytest.raises(VocabularyError, match="schema version 3"):
        Vocabulary.load(tmp_path / "v.npz")


def test_reading_classes_from_files(tmp_path):
    text = tmp_path / "classes.txt"
    text.write_text("# rooms\ncat, kitten\n\nsofa  # or couch\n", encoding="utf-8")
    assert read_classes(str(text)) == {"cat": ["cat", "kitten"], "sofa": ["sofa"]}
    table = tmp_path / "classes.json"
    table.write_text('{"cat": ["cat", "kitten"]}')
    assert read_classes(str(table)) == {"cat": ["cat", "kitten"]}
    saved = Vocabulary.encode(["cat"], LetterEncoder()).save(tmp_path / "v.npz")
    assert read_classes(str(saved)).names == ("cat",)
    assert read_classes("cat, sofa") == "cat, sofa"


def test_unreadable_class_files_are_refused(tmp_path):
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_classes(str(tmp_path / "nowhere.txt"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_classes(str(tmp_path / "bad.json"))
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    with pytest.raises(VocabularyError, match="repeated"):
        read_classes(str(tmp_path / "twice.txt"))
    (tmp_path / "twice.json").write_text('{"cat": ["cat"], "cat": ["kitten"]}')
    with pytest.raises(VocabularyError, match="'cat' is repeated"):
        read_classes(str(tmp_path / "twice.json"))
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_classes("x" * 300 + ".txt")


def test_suffixes_of_class_files_may_be_in_capitals(tmp_path):
    for name, content in {"A.TXT": "cat\n", "A.JSON": '["cat"]'}.items():
        (tmp_path / name).write_text(content)
        assert list(read_classes(str(tmp_path / name))) == ["cat"]


def test_a_files_name_is_no_class():
    with pytest.raises(VocabularyError, match=r"looks like a path.*read_classes"):
        parse_classes("examples/classes.txt")
    assert list(parse_classes(["node.json"])) == ["node.json"]


@pytest.mark.parametrize("texts", [None, 5, {"a": 1}])
def test_synonyms_are_a_text_or_a_list(texts):
    with pytest.raises(VocabularyError, match="synonyms of 'cat' are a"):
        parse_classes({"cat": texts})


def npy(descr: str, shape: str, data: bytes = b"", *, version: bytes = b"\x01\x00") -> bytes:
    """A `.npy` file with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


GOOD = npy("'<f4'", "(1, 4)", np.eye(1, 4, dtype=np.float32).tobytes())


@pytest.mark.parametrize(
    "embeddings",
    [
        npy("'<f4'", "(1000000000, 1000000000)"),
        npy("'<f4'", "(1, 4, 1)", bytes(16)),
        npy("'<f4'", "(-1, 4)"),
        npy("'<f4'", "(1, 4"),
        npy("'<f4'", "(" * 90),
        npy("'<f4'", "(1, 4)", bytes(7)),
        npy("'<f4'", "(1, " + "9" * 5000 + ")"),
        npy("'|O'", "(1, 4)", bytes(32)),
        npy("'<f8'", "(1, 4)", bytes(32)),
        npy("'<f4'", "(1, 4)", bytes(16), version=b"\x09\x09"),
        npy("'<f4'", "(1, 4)", bytes(300 << 20)),
        b"",
    ],
    ids=[
        "huge",
        "rank",
        "negative",
        "open",
        "nested",
        "short",
        "digits",
        "object",
        "f8",
        "version",
        "bomb",
        "empty",
    ],
)
def test_a_damaged_array_is_an_error_within_little_memory(embeddings, tmp_path):
    meta = {"schema_version": 1, "names": ["cat"], "synonyms": {}, "templates": [], "text_hash": ""}
    content = json.dumps(meta).encode()
    path = tmp_path / "v.npz"
    for data, fails in ((GOOD, False), (embeddings, True)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("meta.npy", npy("'|u1'", f"({len(content)},)", content))
            archive.writestr("embeddings.npy", data)
        tracemalloc.start()
        try:
            if fails:
                with pytest.raises(VocabularyError, match=r"not a vocabulary|expected float32"):
                    Vocabulary.load(path)
            else:
                assert Vocabulary.load(path).names == ("cat",)
            assert tracemalloc.get_traced_memory()[1] < 10 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "meta", [b"[" * 100_000, b"9" * 5000, b"[]", b"{}", b'{"schema_version": "new"}', b"\xff"]
)
def test_damaged_metadata_is_an_error(meta, tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("meta.npy", npy("'|u1'", f"({len(meta)},)", meta))
        archive.writestr("embeddings.npy", GOOD)
    with pytest.raises(VocabularyError, match="not a vocabulary"):
        Vocabulary.load(tmp_path / "v.npz")


def words_of(*names):
    """A vocabulary whose embeddings are axes: that of the letter a is the first."""
    rows = np.eye(26, dtype=np.float32)
    return Vocabulary(names=names, embeddings=rows[[ord(name[0].lower()) - 97 for name in names]])


def test_words_keep_their_labels_and_new_ones_take_free_labels():
    before = words_of("ant", "bee", "cow", "dog")
    after = words_of("Dog", "eel", "fox", "gnu", "ant").keeping_labels(before)
    assert after.names == ("ant", "eel", "fox", "Dog", "gnu")
    assert after.unused == ()
    assert after.embeddings.argmax(axis=1).tolist() == [0, 4, 5, 3, 6]
    assert after.synonyms["eel"] == ("eel",)


def test_a_label_that_nobody_takes_keeps_its_name_and_the_word_may_come_back(tmp_path):
    before = words_of("ant", "bee", "cow")
    fewer = words_of("cow").keeping_labels(before)
    assert (fewer.names, fewer.unused) == (("ant", "bee", "cow"), (0, 1))
    assert repr(fewer) == "Vocabulary(1 names: cow)"
    assert Vocabulary.load(fewer.save(tmp_path / "words.npz")).unused == (0, 1)
    again = words_of("bee", "cow", "dog").keeping_labels(fewer)
    assert (again.names, again.unused) == (("dog", "bee", "cow"), ())


@pytest.mark.parametrize("unused", [(2,), (-1,), (0, 1)])
def test_unused_labels_are_some_of_the_labels(unused):
    with pytest.raises(VocabularyError, match="expected some, not all, of the labels 0 to 1"):
        Vocabulary(names=("ant", "bee"), embeddings=np.eye(2, dtype=np.float32), unused=unused)


def test_labels_are_kept_within_one_model():
    other = Vocabulary(names=("ant",), embeddings=np.eye(1, 8, dtype=np.float32))
    with pytest.raises(VocabularyError, match="26 wide, those before 8"):
        words_of("bee").keeping_labels(other)
