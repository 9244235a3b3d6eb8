"""Class names in the conventions of other tools."""

import pytest

from pixelclip_sdk import VocabularyError
from pixelclip_sdk.words.classes import parse_classes
from pixelclip_sdk.words.vocabulary import read_classes

BOTH = {"cat": ("cat",), "wall": ("wall",)}

TEXTS = [
    "cat, wall",
    "cat; wall",
    "cat; wall;",
    "cat | wall",
    "cat\twall",
    "cat . wall .",
    "cat. wall.",
    "cat\nwall",
    "cat\r\nwall\r\n",
    "cat,\nwall,\n",
    "0: cat\n1: wall",
    "0 cat\n1 wall",
    "1. cat\n2. wall",
    "1) cat\n2) wall",
    "0,cat\n1,wall",
    "0: cat, 1: wall",
    "'cat', \"wall\"",
    '["cat", "wall"]',
    "[cat, wall]",
    "['cat', 'wall']",
    '{"0": "cat", "1": "wall"}',
    "{0: cat, 1: wall}",
    "{0: 'cat', 1: 'wall'}",
    "- cat\n- wall",
    "cat 0\nwall 1",
    "cat:0\nwall:1",
    "cat,1\nwall,2",
    "cat\t0\nwall\t1",
    "cat: 0, wall: 1",
    "# label:color_rgb:parts:actions\ncat:128,0,0::\nwall:0,128,0:top,side:\n",
    "cat:::\nwall:::",
    "n02123045 cat\nn04546855 wall",
    "# a data set\nnc: 2\nnames: [cat, wall]\ntrain: images",
    "names:\n  0: cat\n  1: wall\nnc: 2",
    "names:\n- cat\n- wall\ntrain: images",
    "names: [cat,\n  wall]\n",
    '{"id2label": {"0": "cat", "1": "wall"}}',
]


@pytest.mark.parametrize("text", TEXTS)
def test_conventions_give_the_same_classes(text):
    assert parse_classes(text) == BOTH


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["coco.names", "classes.txt", "data.yaml", "list.of", "x.tsv"])
def test_a_file_is_read_whatever_its_suffix(text, name, tmp_path, monkeypatch):
    (tmp_path / name).write_text(text, newline="")
    monkeypatch.chdir(tmp_path)
    assert parse_classes(read_classes(name)) == BOTH


@pytest.mark.parametrize("classes", [{0: "cat", 1: "wall"}, {1: "cat", 2: "wall"}, {"1": "wall", "0": "cat"}])
def test_ids_to_names_are_a_list_in_order(classes):
    assert list(parse_classes(classes).items()) == list(BOTH.items())


@pytest.mark.parametrize("text", ["St. Bernard", "3 seater sofa", "0: cat", "baker's shop"])
def test_one_class_with_a_mark_in_it_stays_one(text):
    assert parse_classes(text) == {text: (text,)}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat, dog; wall", "mix the separators ',' and ';'"),
        ("'cat, dog", "one quotation mark"),
        ('"cat, kitten", dog', "one quotation mark"),
        ("{3: cat, 7: dog}", "ids 3, 7; expected 0, 1, 2"),
        ({0: "cat", 2: "dog"}, "ids 0, 2; expected 0, 1, 2"),
        ("5 cat\n9 dog", "ids 5, 9; expected 0, 1, 2"),
        ("{cat: 0, dog: 1}", "maps names to ids"),
        ('{"cat": 0, "dog": 1}', "synonyms of 'cat' are a int"),
        ("nc: 2\ntrain: images", "the line 'nc: 2' has a key"),
        ("cat: kitten\ndog: puppy", "the line 'cat: kitten' has a key"),
        ("id,name\n0,cat\n1,dog", "remove a heading"),
        ("person:5\ncar:7", "has a key"),
        ("cat 0\ndog 5", "ids 0, 5; expected 0, 1, 2"),
        ("name,r,g,b\ncat,64,128,64\ndog,192,0,128", "has a column of numbers"),
        ("cat, kitten|dog\nwall", "mix the separators"),
        ("names:", "`names:` is empty"),
        ("[cat, [dog]]", "not a flat YAML list"),
        ("{cat", "not a flat YAML list"),
        ("cat\ncat", "'cat' is repeated"),
        ("cat .\n .", "the line '.' has no name"),
        ('{"cat": ["a"], "cat": ["b"]}', "'cat' is repeated"),
        ("[" * 100_000, "not a flat YAML list"),
        ("[" + "9" * 5000 + "]", "has 5000 characters"),
        ("9" * 5000, "has 5000 characters"),
        ([10**5000], "expected text"),
        ({10**5000: "cat"}, "expected 0, 1, 2"),
        ("[1, 2]", "expected text"),
        ("[null]", "expected text"),
        (b"cat", "classes is bytes"),
        ("coco.names", "looks like a path"),
        ("data/list.yaml", "looks like a path"),
        ("foo.txt", "looks like a path"),
    ],
)
def test_other_text_is_refused_with_what_was_expected(classes, message):
    with pytest.raises(VocabularyError, match=message):
        parse_classes(classes)


def test_a_date_is_text():
    assert list(parse_classes("- 2020-01-01\n- cat")) == ["2020-01-01", "cat"]


def test_both_unicode_forms_are_one_name():
    composed, decomposed = "K\u00e4tzchen", "Ka\u0308tzchen"
    assert parse_classes([decomposed]) == {composed: (composed,)}
    with pytest.raises(VocabularyError, match="repeated"):
        parse_classes([composed, decomposed])
    assert parse_classes({"cat": [composed, decomposed]}) == {"cat": (composed,)}


def test_a_bare_word_that_is_a_file_here_is_asked_about(tmp_path, monkeypatch):
    (tmp_path / "cat").write_text("wall\nfloor\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VocabularyError, match=r"write \./cat; for the class write '\[\"cat\"\]'"):
        read_classes("cat")
    assert list(parse_classes(read_classes("./cat"))) == ["wall", "floor"]
    assert list(parse_classes(read_classes('["cat"]'))) == ["cat"]


def test_files_that_hold_no_text_or_too_much_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(VocabularyError, match="not UTF-8"):
        read_classes(str(tmp_path / "photo.jpg"))
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(VocabularyError, match="expected at most 4194304"):
        read_classes(str(tmp_path / "huge.txt"))
    (tmp_path / "text.json").write_text("cat")
    with pytest.raises(VocabularyError, match="not a JSON list"):
        read_classes(str(tmp_path / "text.json"))


@pytest.mark.parametrize(
    "text", ["cat, sofa, grass", "# rooms\ncat, sofa, grass\n", "cat, sofa, grass,\n", "cat;sofa;grass"]
)
def test_a_file_of_one_line_is_a_list_of_classes(text, tmp_path):
    (tmp_path / "rooms.txt").write_text(text)
    assert list(parse_classes(read_classes(str(tmp_path / "rooms.txt")))) == ["cat", "sofa", "grass"]


@pytest.mark.parametrize("separator", [",", ", ", "|", " | ", "\t", ";"])
def test_separators_in_several_lines_are_between_synonyms(separator):
    assert parse_classes(f"cat{separator}kitten\nwall") == {"cat": ("cat", "kitten"), "wall": ("wall",)}


def test_the_ids_of_imagenet_are_left_out():
    text = "n02123045 tabby, tabby cat\nn02123159 tiger cat"
    assert parse_classes(text) == {"tabby": ("tabby", "tabby cat"), "tiger cat": ("tiger cat",)}


@pytest.mark.parametrize("names", [["boeing 747", "airbus 380"], ["floor 1", "floor 2"], ["cat", "level 0"]])
def test_numbers_that_are_no_ids_belong_to_the_name(names):
    assert list(parse_classes("\n".join(names))) == names
    assert list(parse_classes(", ".join(names))) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a{}b, c", ["a b", "c"]),
        ("a{}b\nc d", ["a b", "c d"]),
        ("x . a{}b", ["x", "a b"]),
        ("cat{}0, sofa 1", ["cat", "sofa"]),
    ],
)
def test_many_spaces_take_no_time(text, names):
    """The time grew with their square: 100 000 took minutes."""
    assert list(parse_classes(text.format(" " * 100_000))) == names
