from pathlib import Path

import pytest

from pixelclip_sdk import VocabularyError
from pixelclip_sdk.words.classes import MAX_CLASSES, class_list, class_lists, parse_classes
from pixelclip_sdk.words.vocabulary import read_classes

SIZES = {
    "ade20k-150": 150,
    "camvid-11": 11,
    "cityscapes-19": 19,
    "coco-stuff-171": 171,
    "common-150": 150,
    "pascal-context-59": 59,
    "voc-20": 20,
}


def test_the_lists_have_as_many_classes_as_their_names_say():
    assert class_lists() == sorted([*SIZES, "everyday-nouns"])
    assert {name: len(class_list(name)) for name in SIZES} == SIZES
    nouns = len(class_list("everyday-nouns"))
    assert nouns <= MAX_CLASSES
    page = Path(__file__).parents[3] / "docs" / "words.md"
    assert f"| `everyday-nouns` | {nouns} |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "label", "word"),
    [
        ("coco-stuff-171", 0, "person"),
        ("coco-stuff-171", 79, "toothbrush"),
        ("coco-stuff-171", 80, "banner"),
        ("coco-stuff-171", 170, "wood"),
        ("ade20k-150", 7, "bed"),
        ("ade20k-150", 149, "flag"),
        ("pascal-context-59", 49, "diningtable"),
        ("pascal-context-59", 58, "wood"),
        ("cityscapes-19", 8, "vegetation"),
        ("cityscapes-19", 18, "bicycle"),
        ("voc-20", 10, "diningtable"),
        ("voc-20", 19, "tvmonitor"),
        ("camvid-11", 10, "bicyclist"),
    ],
)
def test_labels_are_positions_in_the_list(name, label, word):
    assert list(class_list(name))[label] == word


@pytest.mark.parametrize("name", SIZES)
def test_benchmarks_lists_have_no_synonyms_so_that_scores_compare(name):
    assert all(texts == (word,) for word, texts in class_list(name).items())


def test_context_and_voc_name_the_same_twenty():
    assert set(class_list("voc-20")) <= set(class_list("pascal-context-59"))


def test_everyday_nouns_are_words_in_small_letters_and_none_that_insults():
    words = set(class_list("everyday-nouns"))
    assert {
        "person",
        "cat",
        "sofa",
        "wheelchair",
        "traffic light",
        "robot arm",
        "suitcase",
        "door handle",
    } <= words
    assert len(words) > 2500
    assert all(word == word.lower() and word[0].isalpha() for word in words)
    assert not words & {"ass", "rape", "homo", "orphan", "redhead", "nude", "mutant", "cur", "gat", "fetus"}


def test_a_name_is_as_good_as_its_words():
    assert parse_classes("voc-20") == parse_classes(" voc-20 ") == class_list("voc-20")
    assert read_classes("voc-20") == class_list("voc-20")
    assert parse_classes("VOC-20") == read_classes("Voc-20") == class_list("vOC-20") == class_list("voc-20")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("voc-21", "voc-20"),
        ("voc20", "voc-20"),
        ("voc_20", "voc-20"),
        ("coco-171", "coco-stuff-171"),
        ("coco-stuff", "coco-stuff-171"),
        ("ade20k", "ade20k-150"),
        ("ade-150", "ade20k-150"),
        ("Cityscapes", "cityscapes-19"),
        ("camvid", "camvid-11"),
        ("voc", "voc-20"),
        ("coco", "coco-stuff-171"),
        ("ADE", "ade20k-150"),
        ("pascal", "pascal-context-59"),
        ("everyday-noun", "everyday-nouns"),
    ],
)
def test_nearly_a_name_is_refused_with_the_name(text, meant):
    for read in (parse_classes, read_classes):
        with pytest.raises(VocabularyError, match=f"Did you mean '{meant}'"):
            read(text)
    with pytest.raises(VocabularyError, match=f"Did you mean '{meant}'"):
        class_list(text)
    assert parse_classes([text]) == {text: (text,)}


ORDINARY = ["cat", "t-shirt", "boeing-747", "x-ray", "3d-printer", "b-52", "mig-29", "covid-19", "r2-d2"]
ORDINARY += ["ice-cream", "camper-van", "vw-1200", "a380", "sports_car", "f-150", "city", "vacuum", "comm"]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_are_no_names(text):
    assert parse_classes(text) == {text: (text,)}


def test_a_list_of_words_may_hold_anything():
    assert list(parse_classes("voc-21, camvid")) == ["voc-21", "camvid"]


def test_a_missing_file_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "rooms.txt").write_text("cat\n")
    with pytest.raises(VocabularyError, match=r"Did you mean .*rooms\.txt"):
        read_classes(str(tmp_path / "room.txt"))
    with pytest.raises(VocabularyError, match="write 'voc-20'"):
        read_classes("voc-20.txt")
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_classes(str(tmp_path / "nowhere" / "x.txt"))


def test_half_a_character_is_refused():
    with pytest.raises(VocabularyError, match="lone surrogate"):
        parse_classes(["cat \ud83d"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("./nofile", "'./nofile' looks like a path; there is no such file"),
        ("lists/nofile", "'lists/nofile' looks like a path; there is no such file"),
        ("~/nofile", "there is no such file"),
        ("/", "it is a folder"),
        ("names.txt, dog", "'names.txt' looks like a path"),
        ("dog, words.npz", "'words.npz' looks like a path"),
        ("dog, ./nofile", "'./nofile' looks like a path"),
    ],
)
def test_a_path_is_no_class(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (parse_classes, read_classes):
        with pytest.raises(VocabularyError, match=said):
            read(text)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(VocabularyError, match="without other words"):
        read_classes("names.txt, dog")
    assert parse_classes(["and/or", "cat"]) == {"and/or": ("and/or",), "cat": ("cat",)}


def test_a_folder_is_no_class(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VocabularyError, match=r"'cat' is a folder here.*for the class write '\[\"cat\"\]'"):
        read_classes("cat")
    assert parse_classes("cat") == {"cat": ("cat",)}
    assert read_classes("cat, dog") == "cat, dog"


def test_a_path_object_is_a_file(tmp_path):
    (tmp_path / "rooms").write_text("cat\ndog\n")
    assert list(parse_classes(read_classes(tmp_path / "rooms"))) == ["cat", "dog"]
    with pytest.raises(VocabularyError, match="classes cannot be read from"):
        read_classes(tmp_path / "nofile")
    with pytest.raises(VocabularyError, match="got NoneType; expected names"):
        read_classes(None)


def test_several_names_in_one_text_of_a_list_are_refused():
    with pytest.raises(VocabularyError, match=r"'cat, dog' is one name; .*\['cat', 'dog'\]"):
        parse_classes(["cat, dog"])
    assert parse_classes({"cat, dog": ["cat, dog"]}) == {"cat, dog": ("cat, dog",)}


def test_a_repeated_name_is_shown_once():
    with pytest.raises(VocabularyError, match=r"^the name 'cat' is repeated; expected each class once"):
        parse_classes(["cat", "cat"])
    with pytest.raises(VocabularyError, match=r"the name 'Cat' is repeated \(as 'cat'\)"):
        parse_classes(["cat", "Cat"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no classes"),
        (b"# nothing\n", "no classes"),
        (b"cat\nCat\n", "'Cat' is repeated"),
        ("Kätzchen".encode("latin-1"), "it is not UTF-8 text .* Save it as UTF-8"),
    ],
)
def test_an_error_in_a_class_file_names_the_file(content, said, tmp_path):
    (tmp_path / "rooms.txt").write_bytes(content)
    with pytest.raises(VocabularyError, match=rf"cannot be read from .*rooms\.txt: .*{said}"):
        read_classes(str(tmp_path / "rooms.txt"))
