"""CLIP's ConvNeXt as a dense encoder: the feature map is projected, not pooled."""

from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

__all__ = ["DenseConvNeXt"]


class DenseConvNeXt(nn.Module):
    """An open_clip ConvNeXt without pooling: trunk, norm of the head, projection; parameters are shared."""

    stride = 32

    def __init__(self, visual: TimmModel) -> None:
        super().__init__()
        if not isinstance(visual, TimmModel) or not isinstance(visual.trunk, ConvNeXt):
            raise ValueError("expected a timm ConvNeXt")
        self.visual = visual

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        last = [module for module in self.visual.head.modules() if isinstance(module, nn.Linear)][-1]
        return int(last.out_features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels `[N, 3, H, W]`, multiples of 32, to features `[N, H / 32, W / 32, D]`."""
        trunk = self.visual.trunk
        features = trunk.head.norm(trunk.forward_features(pixels))
        return self.visual.head(features.permute(0, 2, 3, 1))
