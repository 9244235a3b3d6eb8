"""Model names → the weights they stand for: where they are, of which architecture, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pixelclip_sdk.errors import CheckpointError, ModelNotFoundError
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["LITE", "LITES", "LITE_START", "Spec", "find", "names"]

# Made of packages, not of a checkpoint (lite.py); the former with what fine-tuning moved (lite_shipped.py).
LITES = LITE, LITE_START = "pixelclip-lite", "pixelclip-lite-start"
CONVNEXT_STRIDE = 32

PREFIX = "open_clip:"
_OFFICIAL = "hsshin98/PixelCLIP"
# The names of open_clip's own uploads; the first that a repository has is taken.
_DEFAULT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# What a plain tower may set; anything else (other pooling, other text tower) changes the graph.
_VIT_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers"}
# Tag, or owner of the hub repository → the licence its owner states. What is not here was not looked up.
_LICENSES = {"laion": "MIT", "openai": "MIT"}


@dataclass(frozen=True)
class Spec:
    """A checkpoint that can be named.

    Attributes:
        name: What people type.
        family: Which dense encoder it needs.
        architecture: Its name in open_clip: `open_clip.create_model(architecture, pretrained=None,
            load_weights=False, force_quick_gelu=quick_gelu)` makes the empty model.
        quick_gelu: The weights were trained with QuickGELU; with the exact GELU they are subtly wrong.
        repository: `OWNER/NAME` on the hub.
        files: Paths in the repository; the first that exists is taken.
        license: SPDX expression; `NOASSERTION` where the licence is not known here.
        mean: Of the pixels, RGB in 0-1, that the weights were trained with.
        std: Their deviation.
    """

    name: str
    family: Literal["vit", "convnext"]
    architecture: str
    quick_gelu: bool
    repository: str
    files: tuple[str, ...]
    license: str
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def stride(self) -> int:
        """Input pixels a patch: what input sizes are multiples of."""
        if self.family == "convnext":
            return CONVNEXT_STRIDE
        import open_clip

        return int(open_clip.get_model_config(self.architecture)["vision_cfg"]["patch_size"])


def _official(name: str, file: str, *, vit: bool) -> Spec:
    return Spec(
        name=name,
        family="vit" if vit else "convnext",
        architecture="ViT-B-16" if vit else "convnext_base_w_320",
        quick_gelu=vit,
        repository=_OFFICIAL,
        files=(f"weights/{file}.pth",),
        license="MIT",
    )


_KNOWN = {
    spec.name: spec
    for spec in (
        _official("pixelclip-vit-b16", "pixelclip_vit_base", vit=True),
        _official("pixelclip-vit-b16-dino", "pixelclip_vit_base_dino", vit=True),
        _official("pixelclip-convnext-b", "pixelclip_convnext_base", vit=False),
        _official("pixelclip-convnext-b-dino", "pixelclip_convnext_base_dino", vit=False),
    )
}
# The models that the official ones start from, by their names in open_clip's tables.
_ALIASES = {
    "clip-vit-b16": "ViT-B-16/openai",
    "openclip-convnext-b": "convnext_base_w_320/laion_aesthetic_s13b_b82k",
}


def names() -> list[str]:
    """The names that have no `open_clip:` before them."""
    return sorted([*LITES, *_KNOWN, *_ALIASES])


def find(name: str) -> Spec:
    """Looks a name up; nothing is downloaded.

    Args:
        name: One of `names()` but `LITES`, or `open_clip:NAME/TAG` of a ViT or ConvNeXt
            that open_clip has a hub repository for.

    Raises:
        ModelNotFoundError: There is no such name.
        CheckpointError: open_clip has it, but its towers are of another kind, or it is on no hub.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    if name in _ALIASES:
        return _from_open_clip(name, _ALIASES[name])
    if name.startswith(PREFIX):
        return _from_open_clip(name, name.removeprefix(PREFIX))
    raise ModelNotFoundError(
        f"no model {name!r}.{did_you_mean(name, names())} "
        f"Expected {PREFIX}NAME/TAG or one of: {', '.join(names())}."
    )


def _from_open_clip(name: str, key: str) -> Spec:
    """Resolves `NAME/TAG` in open_clip's tables."""
    import open_clip

    architecture, _, tag = key.partition("/")
    entry = open_clip.get_pretrained_cfg(architecture, tag)
    if not entry:
        known = [f"{a}/{t}" for a, t in open_clip.list_pretrained()]
        raise ModelNotFoundError(
            f"open_clip has no weights {key!r}.{did_you_mean(key, known)} Expected {PREFIX}NAME/TAG, for "
            f"example {PREFIX}ViT-B-16/openai; `open_clip.list_pretrained()` lists them all."
        )
    config = open_clip.get_model_config(architecture)
    family = _family(config)
    if family is None:
        raise CheckpointError(
            f"{name} has towers that there is no dense encoder for. Expected a ViT as OpenAI's or a "
            "ConvNeXt, with CLIP's own text encoder."
        )
    # "OWNER/NAME/FILE", or "OWNER/NAME/" for a file of the default name
    owner, _, rest = entry.get("hf_hub", "").partition("/")
    repository, _, file = rest.partition("/")
    if not repository:
        raise CheckpointError(
            f"{name} is on no hub, only at {entry.get('url') or 'no known address'}. Download it by hand and "
            "pass the file with --checkpoint."
        )
    return Spec(
        name=name,
        family=family,
        architecture=architecture,
        quick_gelu=bool(entry.get("quick_gelu") or config.get("quick_gelu")),
        repository=f"{owner}/{repository}",
        files=(file,) if file else _DEFAULT_FILES,
        license=_LICENSES.get(tag, _LICENSES.get(owner, "NOASSERTION")),
        mean=tuple(entry["mean"]),
        std=tuple(entry["std"]),
    )


def _family(config: dict[str, Any]) -> Literal["vit", "convnext"] | None:
    """Which dense encoder an open_clip configuration needs."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if not text.keys() <= _TEXT_KEYS or not config.keys() <= {
        "embed_dim",
        "quick_gelu",
        "vision_cfg",
        "text_cfg",
    }:
        return None
    if vision.get("timm_model_name", "").startswith("convnext"):
        return "convnext"
    return "vit" if vision.keys() <= _VIT_KEYS and isinstance(vision["layers"], int) else None
