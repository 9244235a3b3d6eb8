"""The published models that `pixelclip pull` can fetch: where the weights are, their size and licence."""

import dataclasses

__all__ = ["CATALOGUE", "HUB", "PublishedModel"]

HUB = "https://huggingface.co"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Published weights that can be converted to a bundle.

    Attributes:
        name: The model's name in this project.
        repository: `OWNER/NAME` on the hub.
        files: Paths in the repository; the first that exists is used.
        license: SPDX expression.
        license_note: Where the licence is stated, if not with the weights.
        megabytes: Approximate download size: fp32 parameters of both towers.
        revision: The commit of the repository to download, 40 hex digits; None if none is pinned.
        sha256: SHA-256 of the file, 64 hex digits; None if it is not known. Then the hash of the first
            download is recorded, and later downloads must match it.
    """

    name: str
    repository: str
    files: tuple[str, ...]
    license: str
    megabytes: int
    revision: str | None = None
    sha256: str | None = None
    license_note: str = ""

    @property
    def url(self) -> str:
        """Address of the weights."""
        return f"{HUB}/{self.repository}/resolve/{self.revision or 'main'}/{self.files[0]}"

    def describe(self) -> str:
        """The address, size, licence and pin, for messages."""
        pinned = "pinned by hash" if self.revision or self.sha256 else "no hash known; the first is recorded"
        note = f" ({self.license_note})" if self.license_note else ""
        return f"{self.url} (about {self.megabytes} MB, licence {self.license}{note}, {pinned})"


# No revision or hash is pinned: these files could not be downloaded where this was written.
_OFFICIAL = "hsshin98/PixelCLIP"
_OFFICIAL_LICENSE_NOTE = "of the code; the weights state none"
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_VIT_MEGABYTES, _CONVNEXT_MEGABYTES = 600, 720

CATALOGUE = {
    model.name: model
    for model in (
        PublishedModel(
            name="pixelclip-vit-b16",
            repository=_OFFICIAL,
            files=("weights/pixelclip_vit_base.pth",),
            license="MIT",
            license_note=_OFFICIAL_LICENSE_NOTE,
            megabytes=_VIT_MEGABYTES,
        ),
        PublishedModel(
            name="pixelclip-vit-b16-dino",
            repository=_OFFICIAL,
            files=("weights/pixelclip_vit_base_dino.pth",),
            license="MIT",
            license_note=_OFFICIAL_LICENSE_NOTE,
            megabytes=_VIT_MEGABYTES,
        ),
        PublishedModel(
            name="pixelclip-convnext-b",
            repository=_OFFICIAL,
            files=("weights/pixelclip_convnext_base.pth",),
            license="MIT",
            license_note=_OFFICIAL_LICENSE_NOTE,
            megabytes=_CONVNEXT_MEGABYTES,
        ),
        PublishedModel(
            name="pixelclip-convnext-b-dino",
            repository=_OFFICIAL,
            files=("weights/pixelclip_convnext_base_dino.pth",),
            license="MIT",
            license_note=_OFFICIAL_LICENSE_NOTE,
            megabytes=_CONVNEXT_MEGABYTES,
        ),
        PublishedModel(
            name="clip-vit-b16",
            repository="timm/vit_base_patch16_clip_224.openai",
            files=_OPEN_CLIP_FILES,
            license="MIT",
            megabytes=_VIT_MEGABYTES,
        ),
        PublishedModel(
            name="openclip-convnext-b",
            repository="laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K",
            files=_OPEN_CLIP_FILES,
            license="MIT",
            megabytes=_CONVNEXT_MEGABYTES,
        ),
    )
}
"""Name → published model: the official checkpoints and the baselines that they start from."""
