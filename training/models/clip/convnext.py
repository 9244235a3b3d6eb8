"""CLIP's ConvNeXt made dense: its feature map, not pooled, in the text space."""

from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

__all__ = ["DenseConvNeXt"]


class DenseConvNeXt(nn.Module):
    """An open_clip ConvNeXt without its pooling: trunk, the head's norm, projection.

    Args:
        visual: The image tower; its parameters are used, not copied.

    Raises:
        ValueError: The tower is no ConvNeXt.
    """

    stride = 32

    def __init__(self, visual: TimmModel) -> None:
        super().__init__()
        if not isinstance(visual, TimmModel) or not isinstance(visual.trunk, ConvNeXt):
            raise ValueError("expected a ConvNeXt of timm")
        self.visual = visual

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        last = [module for module in self.visual.head.modules() if isinstance(module, nn.Linear)][-1]
        return int(last.out_features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Dense features.

        Args:
            pixels: float `[N, 3, H, W]`, normalised by CLIP's mean and deviation; H, W multiples of 32.

        Returns:
            float `[N, H / 32, W / 32, D]`, not normalised.
        """
        trunk = self.visual.trunk
        features = trunk.head.norm(trunk.forward_features(pixels))
        return self.visual.head(features.permute(0, 2, 3, 1))
