"""Looks up a model name: architecture, location of the weights, licence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.errors import CheckpointError, ModelNotFoundError
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["LITE", "LITES", "LITE_START", "Spec", "find", "names"]

# Built from packages, not from a checkpoint. The first has the fine-tuned weights of the bundled model.
LITES = LITE, LITE_START = "pixelclip-lite", "pixelclip-lite-start"
CONVNEXT_STRIDE = 32

PREFIX = "open_clip:"
# File names of open_clip's uploads; the first that a repository has is used.
_DEFAULT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# The settings of a plain tower; any other (pooling, another text tower) changes the graph.
_VIT_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers"}
_CONFIG_KEYS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
# Tag, or owner of the hub repository → the licence that the owner states. Others were not looked up.
_LICENSES = {"laion": "MIT", "openai": "MIT"}


@dataclass(frozen=True)
class Spec:
    """A named checkpoint."""

    name: str
    family: Literal["vit", "convnext"]
    architecture: str  # name in open_clip
    quick_gelu: bool  # True if the weights were trained with QuickGELU; the exact GELU changes the results
    repository: str  # OWNER/NAME on the hub
    files: tuple[str, ...]  # paths in the repository; the first that exists is used
    license: str  # SPDX expression; NOASSERTION if it is not known
    revision: str | None = None  # commit, 40 hex digits; None for the newest
    sha256: str | None = None  # of the file; None if it is not known
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # RGB in 0-1; CLIP's
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def stride(self) -> int:
        """Patch size in pixels. Input sides are multiples of it."""
        if self.family == "convnext":
            return CONVNEXT_STRIDE
        import open_clip

        return int(open_clip.get_model_config(self.architecture)["vision_cfg"]["patch_size"])


# The models of the SDK's catalogue start from these names in open_clip's tables.
_VIT, _CONVNEXT = "ViT-B-16/openai", "convnext_base_w_320/laion_aesthetic_s13b_b82k"


def names() -> list[str]:
    """All names without the prefix `open_clip:`."""
    return sorted([*LITES, *CATALOGUE])


def find(name: str) -> Spec:
    """Looks up a name, without a download.

    Args:
        name: One of `names()` except `LITES`, or `open_clip:NAME/TAG` of a ViT or ConvNeXt with a hub
            repository in open_clip's tables.

    Raises:
        ModelNotFoundError: There is no such name.
        CheckpointError: The towers are not CLIP's, or the weights are on no hub.
    """
    if model := CATALOGUE.get(name):
        return dataclasses.replace(
            _from_open_clip(name, _CONVNEXT if "convnext" in name else _VIT),
            repository=model.repository,
            files=tuple(model.files),
            license=model.license,
            revision=model.revision,
            sha256=model.sha256,
        )
    if name.startswith(PREFIX):
        return _from_open_clip(name, name.removeprefix(PREFIX))
    raise ModelNotFoundError(
        f"no model {name!r}.{did_you_mean(name, names())} "
        f"Expected {PREFIX}NAME/TAG or one of: {', '.join(names())}."
    )


def _from_open_clip(name: str, key: str) -> Spec:
    """Looks up `NAME/TAG` in open_clip's tables."""
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
            f"there is no dense encoder for the towers of {name}. Expected a ViT like OpenAI's or a "
            "ConvNeXt, with CLIP's own text encoder."
        )
    # "OWNER/NAME/FILE", or "OWNER/NAME/" for a file with a default name.
    owner, _, rest = entry.get("hf_hub", "").partition("/")
    repository, _, file = rest.partition("/")
    if not repository:
        raise CheckpointError(
            f"{name} is on no hub, only at {entry.get('url') or 'no known address'}. Download it by hand and "
            "pass the file: --checkpoint FILE (train.py: checkpoint=FILE)."
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
    """Returns the dense encoder for an open_clip configuration, or None."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if not (text.keys() <= _TEXT_KEYS and config.keys() <= _CONFIG_KEYS):
        return None
    if vision.get("timm_model_name", "").startswith("convnext"):
        return "convnext"
    return "vit" if vision.keys() <= _VIT_KEYS and isinstance(vision["layers"], int) else None
