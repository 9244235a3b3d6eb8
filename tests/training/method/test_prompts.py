import open_clip
import pytest
import torch
from torch.nn import functional as F

from pixelclip_sdk.errors import VocabularyError
from training.method.prompts import ClassPrompts, whole_words
from training.models.clip.build import build_clip
from training.models.lite.build import build_lite

TEMPLATE = "A photo of a {} in the scene"
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return build_clip("clip", open_clip.CLIP(32, VIT, TEXT, quick_gelu=True))


@pytest.fixture(scope="module", params=["clip", "lite"])
def pair(request):
    return request.getfixturevalue("clip") if request.param == "clip" else build_lite()


def prompts(pair, **changes):
    settings = {"count": 5, "length": 3, "templates": (TEMPLATE,), "seed": 1} | changes
    return ClassPrompts(pair.text.requires_grad_(False), pair.tokenizer, **settings)


def sentence(pair, text):
    """A sentence through tokenizer and text tower, as anybody would."""
    ids = torch.tensor([pair.tokenizer.encode(text).ids])
    return pair.text(ids) if len(pair.text_inputs) == 1 else pair.text(ids, torch.ones_like(ids))


def spelled(pair, one):
    """The words that a class began as."""
    return " ".join(pair.tokenizer.id_to_token(int(i)).removesuffix("</w>") for i in one)


@torch.no_grad()
def test_prompts_start_as_real_words_in_the_template(pair):
    made = prompts(pair)
    found = made(pair.text)
    assert found.shape == (5, pair.dim)
    for row, words in zip(found, made.start, strict=True):
        text = f"A photo of a {spelled(pair, words)} in the scene"
        torch.testing.assert_close(row[None], sentence(pair, text), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_ensemble_is_the_mean_of_every_template(pair):
    templates = (TEMPLATE, "itap of a {}.", "a {} in a video game.", "dog and {} and cat")
    made = prompts(pair, templates=templates)
    found = made(pair.text)
    for row, words in zip(found, made.start, strict=True):
        each = torch.cat([sentence(pair, template.format(spelled(pair, words))) for template in templates])
        torch.testing.assert_close(row, F.normalize(each.mean(0), dim=0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, prompts(pair)(pair.text), atol=1e-3)


def test_only_the_words_learn(pair):
    made = prompts(pair)
    made(pair.text).pow(3).sum().backward()
    assert made.words.grad.abs().amin((1, 2)).shape == (5,)
    assert (made.words.grad.abs().sum(-1) > 0).all()
    assert all(parameter.grad is None for parameter in pair.text.parameters())


def test_fixed_words_do_not_learn(pair):
    assert [p for p in prompts(pair, learnable=False).parameters() if p.requires_grad] == []


def test_the_seed_picks_the_words(pair):
    first, again, other = prompts(pair), prompts(pair), prompts(pair, seed=2)
    assert torch.equal(first.words, again.words)
    assert not torch.equal(first.words, other.words)


def test_whole_words_are_words(pair):
    words = [pair.tokenizer.id_to_token(i) for i in whole_words(pair.tokenizer)]
    assert len(words) > 10_000
    assert all(len(word.removesuffix("</w>")) >= 3 for word in words)
    assert {"[CLS]", "[unused1]", "##ing", "<start_of_text>"}.isdisjoint(words)
    sample = words[:: len(words) // 500]
    # Byte pairs can join a word in another way than it stands in the table, but rarely.
    whole = [word for word in sample if len(pair.tokenizer.encode(word.removesuffix("</w>")).ids) == 3]
    assert len(whole) > 0.99 * len(sample)


@pytest.mark.parametrize("template", ["no slot", "{} and {}"])
def test_a_template_has_one_slot(clip, template):
    with pytest.raises(VocabularyError, match="expected one"):
        prompts(clip, templates=(template,))


def test_a_template_that_is_too_long_is_refused(clip):
    with pytest.raises(VocabularyError, match="room for"):
        prompts(clip, templates=("very " * 73 + "{}",))
