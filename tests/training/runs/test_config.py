import dataclasses
from pathlib import Path

import pytest

import training
from training.distillation.config import DistilConfig
from training.runs.config import Config, ConfigError, load_config

FOLDER = Path(training.__file__).with_name("configs")
DISTIL = sorted(FOLDER.glob("distil*.yaml"))
ALIGN = sorted(FOLDER.glob("*-words.yaml"))  # tests/training/test_align.py
CONFIGS = sorted(set(FOLDER.glob("*.yaml")) - {*DISTIL, *ALIGN})
PLACES = ["images=a", "masks=b", "out=c"]


def test_there_are_configs():
    assert {file.stem for file in CONFIGS} == {
        *("vit-b16", "vit-b16-dino", "convnext-b", "convnext-b-dino"),
        *("pixelclip-lite", "tiny", "world"),
    }


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_config_loads_and_says_how_it_is_run(file):
    config = load_config(file, PLACES)
    assert (config.images, config.masks, config.out) == (Path("a"), Path("b"), Path("c"))
    head = file.read_text().splitlines()[:3]
    assert any(f"training/train.py --config training/configs/{file.name} images=" in line for line in head)
    assert all(line.startswith("#") for line in head[:2])


@pytest.mark.parametrize("file", DISTIL, ids=lambda file: file.stem)
def test_every_config_of_a_distillation_loads(file):
    config = load_config(file, ["images=a", "teacher=t.json", "out=c"], DistilConfig)
    assert (config.images, config.out) == (Path("a"), Path("c"))
    assert Path(config.teacher) == Path("t.json").resolve()  # of the command line: below the current folder
    head = file.read_text().splitlines()[:3]
    assert any(line.startswith("#   python training/distil.py --") for line in head)
    plain = load_config(file, ["images=a", "out=c", "teacher=lite"], DistilConfig)
    if plain.student.endswith(".json"):
        assert Path(plain.student).is_file()  # of the file: beside it


PAPER = {
    "images": Path("a"),
    "masks": Path("b"),
    "out": Path("c"),
    "model": "clip-vit-b16",
    "checkpoint": None,
    "random_weights": False,
    "trainable": r"\.attn\.|positional_embedding",
    "batch_norm": "frozen",
    "short_side": 1024,
    "long_side": 1333,
    "crop": 640,
    "input_size": 320,
    "mask_size": 256,
    "vary": True,
    "strong": True,
    "clusters": 64,
    "words": 4,
    "templates": ("A photo of a {} in the scene",),
    "epsilon": 0.01,
    "momentum": 0.999,
    "classes": "prompts",
    "names": None,
    "clustering": True,
    "centre": False,
    "queue": 0,
    "decoder_width": 64,
    "steps": 10_000,
    "batch": 48,
    "accumulate": 1,
    "lr_decoder": 2e-4,
    "lr_encoder": 2e-6,
    "lr_prompts": 2e-3,
    "lr_final": 0.5,
    "weight_decay": 1e-4,
    "clip_norm": 0.01,
    "precision": "fp32",
    "device": "auto",
    "seed": 0,
    "workers": None,
    "save_every": 500,
    "keep": 2,
    "log_every": 20,
    "offline": False,
}
CONVNEXT = PAPER | {"model": "openclip-convnext-b", "trainable": ".", "input_size": 640, "epsilon": 1.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit-b16", PAPER), ("vit-b16-dino", PAPER), ("convnext-b", CONVNEXT), ("convnext-b-dino", CONVNEXT)],
)
def test_the_paper_s_settings(name, expected):
    """All of them, written out: a default that changes must not change what is published."""
    assert dataclasses.asdict(load_config(CONFIGS[0].with_name(f"{name}.yaml"), PLACES)) == expected


def test_the_defaults_are_the_paper_s_for_the_vit():
    assert dataclasses.asdict(Config(images=Path("a"), masks=Path("b"), out=Path("c"))) == PAPER


def read(tmp_path, text, *overrides):
    file = tmp_path / "config.yaml"
    file.write_text("images: i\nmasks: m\nout: o\n" + text)
    return load_config(file, overrides)


def test_the_command_line_wins_over_the_file(tmp_path):
    config = read(
        tmp_path, "steps: 5\nbatch: 8\n", "steps=7", "lr_encoder=1e-5", "templates=['a {}', 'b {}']"
    )
    assert (config.steps, config.batch, config.lr_encoder) == (7, 8, 1e-5)
    assert config.templates == ("a {}", "b {}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 5", "Did you mean steps"),
        ("zzz: 5", "Known settings: images"),
        ("steps: 5.5", "steps is 5.5; expected int"),
        ("steps: true", "expected int"),
        ("steps: 0", "expected more than 0"),
        ("epsilon: .nan", "expected more than 0"),
        ("momentum: 1.5", "expected 0 to 1"),
        ("lr_encoder: fast", "expected float"),
        ("precision: fp8", "expected 'fp32' or 'bf16' or 'fp16'"),
        ("templates: a photo of a {}", "expected a list of sentences"),
        ("crop: 900\nshort_side: 800", "larger than short_side"),
        ("long_side: 700\nshort_side: 800\ncrop: 100", "long_side is 700, less than short_side, 800"),
        ("long_side: 0", "or null for no bound"),
        ("classes: names", "classes is 'names' and names None; they go together"),
        ("names: cat, dog", "they go together"),
        ("queue: -1", "expected 0 or more"),
        ("decoder_width: 48", "decoder_width is 48"),
        ("out:", "out not given"),
        ("steps: [", "cannot read the settings"),
    ],
)
def test_bad_settings_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_bound_can_be_taken_away(tmp_path):
    assert read(tmp_path, "long_side: null").long_side is None
    assert read(tmp_path, "", "long_side=2000").long_side == 2000


def test_bad_overrides_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected key=value"):
        read(tmp_path, "", "steps")
    with pytest.raises(ConfigError, match="Did you mean batch"):
        read(tmp_path, "", "bach=3")
    with pytest.raises(ConfigError, match="cannot read the value"):
        read(tmp_path, "", "steps=[")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="contains list"):
        load_config(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config(tmp_path / "missing.yaml")


def test_a_model_s_file_is_beside_the_yaml(tmp_path):
    assert read(tmp_path, "model: tiny.json").model == str(tmp_path / "tiny.json")
    assert read(tmp_path, "", "model=tiny.json").model == str(Path.cwd() / "tiny.json")  # as a shell has it


def test_paths_and_names_on_the_command_line_are_taken_as_they_are(tmp_path):
    config = read(
        tmp_path, "", "out=run #2", "images=2025-11-25", "names=a: b", "checkpoint=null", "classes=names"
    )
    assert config.out == Path("run #2")
    assert config.images == Path("2025-11-25")
    assert config.names == "a: b"
    assert config.checkpoint is None
    assert read(tmp_path, "", "trainable='.attn.'").trainable == ".attn."


def test_a_seed_fits_64_bits(tmp_path):
    with pytest.raises(ConfigError, match="less than 2"):
        read(tmp_path, "", f"seed={2**65}")
