"""CLIP models by name: official PixelCLIP, the models it starts from, and open_clip's."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import open_clip
import torch
from torch import nn

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.files import sha256
from training.models import registry
from training.models.clip.convnext import DenseConvNeXt
from training.models.clip.text import ClipTextEncoder
from training.models.clip.tokenizer import END_OF_TEXT, clip_tokenizer
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder, grid_size
from training.models.pair import EncoderPair
from training.models.templates import TEMPLATES
from training.models.weights import hub
from training.models.weights.checkpoints import load_into, read_checkpoint

__all__ = ["build_clip", "configured_model", "empty_model", "pair_of", "weight_bytes"]

_log = logging.getLogger(__name__)

# The official models see 20×20 patches: 320² pixels for the ViT, 640² for the ConvNeXt.
_PATCHES = 20
_DENSE = {"vit": DenseViT, "convnext": DenseConvNeXt}


def build_clip(
    name: str, *, checkpoint: Path | None = None, imgsz: tuple[int, int] | None = None, offline: bool = False
) -> EncoderPair:
    """Both encoders of a CLIP model, with weights from the hub or from a file.

    Args:
        name: See `registry.find`; or a ``.json`` file, see `configured_model`, which needs a checkpoint.
        checkpoint: A file to take instead of the download: official, ours or open_clip's.
        imgsz: Input `(H, W)`; None for 20×20 patches, as the official models are used.
        offline: Do not ask the hub; take what is in its cache.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: The weights cannot be had, or do not fit the model.
        BundleError: `imgsz` is no multiple of the patch size.
    """
    own = name.endswith(".json")
    if own and checkpoint is None:
        raise CheckpointError(f"{name} has no weights of its own; give a checkpoint")
    spec = None if own else registry.find(name)
    if checkpoint is None:
        assert spec is not None
        file = hub.fetch(spec.repository, *spec.files, offline=offline)
        path = file.path
        source = {k: v for k, v in dataclasses.asdict(file).items() if k != "path"} | {
            "license": spec.license
        }
    else:
        path = Path(checkpoint)
        # What somebody gives us has the licence that they say, which is not known here.
        source = {"file": path.name, "license": "NOASSERTION"}
    state = read_checkpoint(path)
    source.setdefault("sha256", sha256(path))
    model, family = (empty_model(spec), spec.family) if spec else configured_model(Path(name))
    _log.info("%s", load_into(model, state, source=path.name))
    license = source["license"]
    # A file's place is no name: it would be in the bundle, and in the names of engines.
    name = Path(name).stem if own else name
    return pair_of(name, model, family=family, spec=spec, imgsz=imgsz, license=license, sources=(source,))


def weight_bytes(name: str) -> dict[str, int]:
    """How large a model's towers are in fp32; nothing is downloaded and no memory taken.

    Args:
        name: See `registry.find`.

    Returns:
        Bytes of ``"image"`` and ``"text"``.

    Raises:
        ModelNotFoundError: There is no model of that name.
    """
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(registry.find(name).architecture))
    image, both = (sum(p.numel() for p in part.parameters()) for part in (model.visual, model))
    return {"image": 4 * image, "text": 4 * (both - image)}


def empty_model(spec: registry.Spec) -> nn.Module:
    """An open_clip model of the right build, its weights random."""
    # open_clip warns that the weights are random, which would alarm those whose weights come next.
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(
            spec.architecture, pretrained=None, load_weights=False, force_quick_gelu=spec.quick_gelu
        )
    finally:
        logging.disable(logging.NOTSET)


def configured_model(file: Path) -> tuple[nn.Module, str]:
    """A CLIP of one's own, its weights random.

    Args:
        file: An open_clip configuration, JSON: embed_dim, vision_cfg, text_cfg, quick_gelu.

    Returns:
        The open_clip model and its family, ``"vit"`` or ``"convnext"``.

    Raises:
        CheckpointError: The file cannot be read or is no such configuration.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model = open_clip.CLIP(**content)
    except OSError as error:
        raise CheckpointError(f"cannot read the model's configuration {file}: {error.strerror}") from error
    # open_clip raises what its parts happen to raise.
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"{file} is no configuration of an open_clip CLIP ({error}); expected JSON with embed_dim, "
            "vision_cfg and text_cfg"
        ) from error
    return model, "convnext" if "timm_model_name" in content["vision_cfg"] else "vit"


def pair_of(
    name: str,
    model: nn.Module,
    *,
    family: str,
    spec: registry.Spec | None = None,
    imgsz: tuple[int, int] | None = None,
    license: str = "NOASSERTION",
    sources: tuple[dict[str, str], ...] = (),
) -> EncoderPair:
    """Dense encoders around an open_clip model.

    Args:
        name: The model's name.
        model: Its parameters are used, not copied; it is set to evaluation mode.
        family: ``"vit"`` or ``"convnext"``.
        spec: Whose statistics the pixels are normalised by; None for CLIP's.
        imgsz: Input `(H, W)`; None for 20×20 patches.
        license: SPDX expression of the weights' licence.
        sources: Where the weights come from.

    Raises:
        CheckpointError: The model's towers are of another make, or its words are not CLIP's.
        BundleError: `imgsz` is no multiple of the patch size.
    """
    model.eval()
    try:
        tower, text = _DENSE[family](model.visual), ClipTextEncoder(model)
    except ValueError as error:
        raise CheckpointError(
            f"{name} cannot be made dense: {error}. Use a ViT or ConvNeXt of CLIP."
        ) from error
    if (words := len(text.token_embedding.weight)) != END_OF_TEXT + 1:
        raise CheckpointError(
            f"{name}'s text tower knows {words} tokens; expected those of CLIP's tokenizer, {END_OF_TEXT + 1}"
        )
    tokenizer = clip_tokenizer()
    tokenizer.enable_truncation(text.max_tokens)
    statistics = [[255 * value for value in values] for values in (spec.mean, spec.std)] if spec else []
    stride = tower.stride
    size = imgsz or (_PATCHES * stride, _PATCHES * stride)
    return EncoderPair(
        name=name,
        license=license,
        sources=sources,
        image=DenseImageEncoder(tower, *statistics).eval(),
        text=text.eval(),
        text_inputs=("input_ids",),
        max_tokens=text.max_tokens,
        tokenizer=tokenizer,
        templates=TEMPLATES,
        # The official protocol squashes to a square; who asks for another shape wants the aspect kept.
        input=InputSpec(
            height=size[0], width=size[1], multiple=stride, fixed=True, keep_aspect=size[0] != size[1]
        ),
        grid=grid_size(size[0] // stride, size[1] // stride),
        dim=tower.dim,
    )
