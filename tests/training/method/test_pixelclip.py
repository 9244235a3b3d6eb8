import copy
import dataclasses
import functools

import open_clip
import pytest
import torch
from torch.nn import functional as F

from pixelclip_sdk.errors import PixelClipError
from training.data.photos import Batch
from training.method.clustering import merge, pool_masks, sinkhorn
from training.method.pixelclip import PixelCLIP, dense_features
from training.models.clip.build import build_clip
from training.models.lite.build import build_lite
from training.models.runtime import TorchTextEncoder

VIT = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
ATTENTION = r"\.attn\.|positional_embedding"


@functools.cache
def built(family):
    torch.manual_seed(0)
    model = open_clip.CLIP(32, VIT if family == "vit" else CONVNEXT, TEXT, quick_gelu=family == "vit")
    return build_clip(family, model)


def clip(family="vit"):
    """A pair of its own: a step changes it."""
    pair = built(family)
    return dataclasses.replace(pair, image=copy.deepcopy(pair.image), text=copy.deepcopy(pair.text))


def pixelclip(pair=None, **changes):
    settings = {"trainable": ATTENTION, "clusters": 6, "words": 2, "decoder_width": 8} | changes
    return PixelCLIP(pair or clip(), **settings)


def batch(size=96, counts=(3, 0, 4), resolution=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, len(counts), 3, size, size), dtype=torch.uint8, generator=generator)
    masks = torch.rand(sum(counts), 4, 4, generator=generator) > 0.5
    masks = masks.repeat_interleave(resolution // 4, 1).repeat_interleave(resolution // 4, 2)
    return Batch(images[0], images[1], masks, tuple(counts), tuple(f"{i}.jpg" for i in range(len(counts))))


def gradients(model):
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_the_loss_is_the_method_written_out():
    """Picture by picture and mask by mask, with volumes that the step never builds."""
    model, given = pixelclip(), batch()
    with torch.no_grad():  # the teacher is not the student
        for parameter in model.teacher.parameters():
            parameter.mul_(1.01)
        loss, stats = model(given)
        clusters = model.prompts(model.text)
        seen = dense_features(model.teacher.encoder, given.images).permute(0, 3, 1, 2)
        seen = F.interpolate(seen, size=(20, 20), mode="bilinear")
        owner = [0, 0, 0, 2, 2, 2, 2]
        features = torch.stack([seen[n][:, mask].mean(1) for n, mask in zip(owner, given.masks, strict=True)])
        assigned = sinkhorn(F.normalize(features, dim=1) @ clusters.T, 0.01).argmax(1)
        targets = torch.zeros(3, 6, 20, 20)
        for n, k, mask in zip(owner, assigned, given.masks, strict=True):
            targets[n, k][mask] = 1
        student = F.normalize(dense_features(model.student, given.student_images), dim=-1)
        terms = []
        for n in range(3):
            for k in range(6):
                logits = model.decoder((student[n] @ clusters[k])[None])
                logits = F.interpolate(logits[None], size=(20, 20), mode="bilinear")[0, 0]
                bce = F.binary_cross_entropy_with_logits(logits, targets[n, k], reduction="none")
                terms.append(bce[targets[n].sum(0) > 0])
    torch.testing.assert_close(loss, torch.cat(terms).mean())
    assert stats["masks"] == 7
    assert 1 < stats["clusters"] <= 6


def test_what_trains_in_a_vit():
    model = pixelclip()
    loss, _ = model(batch())
    loss.backward()
    got = gradients(model)
    assert {name for name in got if name.startswith(("text.", "teacher."))} == set()
    assert all(
        "attn" in name or "positional_embedding" in name for name in got if name.startswith("student.")
    )
    assert "student.tower.visual.positional_embedding" in got
    assert "prompts.words" in got
    blocks = model.student.tower.visual.transformer.resblocks
    assert all(f"student.tower.visual.transformer.resblocks.{i}.attn.in_proj_weight" in got for i in range(3))
    last, first = blocks[-1].attn.in_proj_weight.grad, blocks[0].attn.in_proj_weight.grad
    assert (last[:128] == 0).all()  # queries, keys
    assert (last[128:] != 0).any()
    assert (first[:128] != 0).any()


def test_the_last_block_s_queries_and_keys_stay_as_they_were():
    model = pixelclip()
    optimiser = torch.optim.AdamW(model.groups(), lr=0.01, weight_decay=0.5)
    attention = [block.attn for block in model.student.tower.visual.transformer.resblocks]
    weights = [one.in_proj_weight.clone() for one in attention]
    for step in range(2):
        loss, _ = model(batch(seed=step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.equal(attention[-1].in_proj_weight[:128], weights[-1][:128])
    assert not torch.equal(attention[-1].in_proj_weight[128:], weights[-1][128:])
    assert not torch.equal(attention[0].in_proj_weight[:128], weights[0][:128])


def test_every_trained_parameter_is_in_one_group():
    model = pixelclip()
    grouped = [parameter for group in model.groups() for parameter in group["params"]]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in trained}


@pytest.mark.parametrize(("family", "trainable"), [("vit", ATTENTION), ("vit", "."), ("convnext", ".")])
def test_norms_have_no_weight_decay(family, trainable):
    model = pixelclip(clip(family), trainable=trainable)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {True: set(), False: set()}
    for group in model.groups():
        decays = "weight_decay" not in group
        assert decays or group["weight_decay"] == 0
        found[decays] |= {(group["name"], names[id(parameter)]) for parameter in group["params"]}
    # GroupNorm, LayerNorm, LayerNorm2d, …
    places = [module for module in model.modules() if "Norm" in type(module).__name__]
    norms = {id(parameter) for module in places for parameter in module.parameters(recurse=False)}
    last = "student.tower.visual.transformer.resblocks.2.attn.in_proj_"
    for decays, rows in found.items():
        assert rows
        for group, name in rows:
            parameter = model.get_parameter(name)
            assert decays == (id(parameter) not in norms and not name.startswith(last))
            expected = (
                "decoder" if name.startswith("decoder") else "encoder" if "student" in name else "prompts"
            )
            assert group == expected
    undecayed = {name for _, name in found[False]}
    assert {name for name in undecayed if name.startswith("decoder")} == {
        f"decoder.layers.{layer}.{part}" for layer in (3, 6, 10, 13) for part in ("weight", "bias")
    }
    assert any(name.startswith("student") for name in undecayed)  # in-projection, LayerNorms


def test_all_of_a_convnext_trains():
    model = pixelclip(clip("convnext"), trainable=".", epsilon=1.0)
    loss, _ = model(batch())
    loss.backward()
    student = {f"student.{name}" for name, _ in model.student.named_parameters()}
    assert student <= gradients(model)


@pytest.mark.parametrize("batch_norm", ["frozen", "updated"])
def test_the_trunk_of_lite_trains(batch_norm):
    model = pixelclip(build_lite(), trainable=r"^trunk\.", centre=True, batch_norm=batch_norm)
    before = {name: value.clone() for name, value in model.student.named_buffers()}
    undecayed = {id(p) for group in model.groups() if "weight_decay" in group for p in group["params"]}
    for name, parameter in model.student.trunk.named_parameters():
        assert (id(parameter) in undecayed) == (".bn." in name)
    loss, _ = model(batch())
    loss.backward()
    got = {name for name in gradients(model) if not name.startswith("decoder.")} - {"prompts.words"}
    assert got
    assert all(name.startswith("student.trunk.") for name in got)
    moved = {name for name, value in model.student.named_buffers() if not torch.equal(value, before[name])}
    assert bool(moved) == (batch_norm == "updated")


def test_ablations_leave_out_what_they_say():
    def trained(**changes):
        model = pixelclip(**changes)
        loss, _ = model(batch())
        loss.backward()
        assert {id(p) for g in model.groups() for p in g["params"] if p.grad is None} == set()
        return {name for name in gradients(model) if name in ("prompts.words", "vectors")}

    assert trained() == {"prompts.words"}
    assert trained(classes="words") == set()
    assert trained(classes="vectors") == {"vectors"}
    assert trained(clustering=False) == set()


def test_clusters_of_names_are_the_names_embeddings():
    pair = clip()
    model = pixelclip(pair, classes="names", names={"cat": ["cat", "kitten"], "grass": ["grass"]})
    sentences = [f"A photo of a {name} in the scene" for name in ("cat", "kitten", "grass")]
    cat, kitten, grass = torch.tensor(TorchTextEncoder(pair).encode(sentences))
    expected = torch.stack([F.normalize(cat + kitten, dim=0), grass])
    torch.testing.assert_close(model.clusters(), expected)
    loss, _ = model(batch())
    loss.backward()
    assert not {name for name in gradients(model) if not name.startswith(("student.", "decoder."))}
    with pytest.raises(PixelClipError, match="need names"):
        pixelclip(classes="names")


def test_a_queue_balances_a_small_batch_with_those_before_it():
    """The masks' clusters are those that they get when all the batches come at once."""
    model, given = pixelclip(queue=10, epsilon=0.05), [batch(seed=seed, counts=(5,)) for seed in range(3)]
    with torch.no_grad():
        pooled = [
            F.normalize(
                pool_masks(dense_features(model.teacher.encoder, one.images), one.masks, one.counts), dim=-1
            )
            for one in given
        ]
        clusters = model.clusters()
        for one in given[:2]:
            model(one)
        assert int(model.banked) == 10
        torch.testing.assert_close(model.bank, torch.cat([pooled[1], pooled[0]]))
        together = sinkhorn(torch.cat([pooled[2], pooled[1], pooled[0]]) @ clusters.T, 0.05)[:5].argmax(1)
        targets, _ = model._targets(pooled[2], clusters, given[2])
        torch.testing.assert_close(targets, merge(given[2].masks, together, (5,), 6))
        torch.testing.assert_close(model.bank, torch.cat([pooled[2], pooled[1]]))


def test_free_vectors_know_nothing_of_the_text_tower():
    found = pixelclip(classes="vectors", clusters=512).clusters()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(512))
    torch.testing.assert_close(found, pixelclip(classes="vectors", clusters=512).clusters())
    # Anywhere: their mean vanishes, where all texts share a part.
    assert found.mean(0).norm() < 0.1 < pixelclip(clusters=512).clusters().mean(0).norm()


def test_without_clustering_every_mask_is_its_own_class():
    model, given = pixelclip(clustering=False), batch()
    with torch.no_grad():
        loss, stats = model(given)
        seen = dense_features(model.teacher.encoder, given.images).permute(0, 3, 1, 2)
        seen = F.interpolate(seen, size=(20, 20), mode="bilinear")
        student = F.normalize(dense_features(model.student, given.student_images), dim=-1)
        terms = []
        for n, mask in zip([0, 0, 0, 2, 2, 2, 2], given.masks, strict=True):
            feature = F.normalize(seen[n][:, mask].mean(1), dim=0)
            logits = model.decoder((student[n] @ feature)[None])
            logits = F.interpolate(logits[None], size=(20, 20), mode="bilinear")[0, 0]
            covered = given.masks[:3].any(0) if n == 0 else given.masks[3:].any(0)
            bce = F.binary_cross_entropy_with_logits(logits, mask.float(), reduction="none")
            terms.append(bce[covered])
    torch.testing.assert_close(loss, torch.cat(terms).mean())
    assert stats["masks"] == 7


@pytest.mark.parametrize("clustering", [True, False])
def test_a_batch_without_masks_has_a_loss_of_nothing(clustering):
    model = pixelclip(clustering=clustering)
    loss, _ = model(batch(counts=(0, 0)))
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None for g in model.groups() for p in g["params"])
    assert gradients(model) == set()


def test_one_mask_over_everything():
    given = batch(counts=(1,))
    given.masks[:] = True
    loss, stats = pixelclip()(given)
    assert loss.isfinite()
    assert stats["clusters"] == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_loss(dtype):
    model, given = pixelclip(), batch()
    with torch.no_grad():
        expected, _ = model(given)
        with torch.autocast("cpu", dtype=dtype):
            found, _ = model(given)
    assert float(found) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("nothing", "matches")])
def test_a_pattern_that_names_nothing_is_refused(pattern, message):
    with pytest.raises(PixelClipError, match=message):
        pixelclip(trainable=pattern)
