"""CLIP's vision transformer as a dense encoder: one embedding per patch."""

import math

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DenseViT", "attend", "run_block"]


class DenseViT(nn.Module):
    """An open_clip vision transformer with only the value path of the last block.

    Attention in the last block mixes information over the whole image. As in PixelCLIP, it is replaced by
    ``out_proj(V)`` of each patch plus the residual of the class token, which is the same for all patches. The
    block's MLP, `ln_post` and the projection follow. A tower that averages its patches instead of reading the
    class token (``pool_type: avg``) keeps the residual of each patch. The parameters are shared, not copied.
    """

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        blocks = visual.transformer.resblocks
        if (
            visual.attn_pool is not None
            or visual.proj is None
            or visual.patch_size[0] != visual.patch_size[1]
            or not all(type(block) is ResidualAttentionBlock for block in blocks)
        ):
            raise ValueError("expected CLIP's vision transformer: class token, plain blocks, projection")
        self.visual = visual

    @property
    def stride(self) -> int:
        """Input pixels per patch."""
        return int(self.visual.patch_size[0])

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return int(self.visual.proj.shape[1])

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels `[N, 3, H, W]` to features `[N, H / stride, W / stride, D]`."""
        visual = self.visual
        patches = visual.conv1(pixels)
        height, width = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)
        positions = self.positions(height, width)
        first = (visual.class_embedding + positions[0]).expand(x.shape[0], 1, -1)
        x = visual.ln_pre(torch.cat([first, x + positions[1:]], dim=1))
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = run_block(block, x)
        x = last_block(last, x[:, 1:], self.residual(x))
        x = visual.ln_post(x) @ visual.proj
        return x.unflatten(1, (height, width))

    def residual(self, x: Tensor) -> Tensor:
        """Returns the residual of the last block, `[N, 1, C]` or `[N, P, C]`, for tokens `[N, 1 + P, C]`."""
        return x[:, 1:] if self.visual.pool_type == "avg" else x[:, :1]

    def positions(self, height: int, width: int) -> Tensor:
        """Interpolates the position embeddings to a grid of patches: `[1 + height * width, C]`.

        Bicubic, half-pixel centres, no antialiasing. The class token comes first.
        """
        positions = self.visual.positional_embedding
        side = math.isqrt(len(positions) - 1)
        if (height, width) == (side, side):
            return positions
        grid = positions[1:].T.unflatten(1, (side, side))[None]
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat([positions[:1], grid[0].flatten(1).T])


def last_block(block: ResidualAttentionBlock, x: Tensor, residual: Tensor) -> Tensor:
    """Computes the value path of the last block for the patches `[N, P, C]`, plus `DenseViT.residual`."""
    attention = block.attn
    channels = x.shape[-1]
    weight = attention.in_proj_weight[2 * channels :]
    values = F.linear(block.ln_1(x), weight, attention.in_proj_bias[2 * channels :])
    x = block.ls_1(attention.out_proj(values)) + residual
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def run_block(block: ResidualAttentionBlock, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Computes a transformer block for `[N, T, C]` in operations that export well; see `attend`."""
    x = x + block.ls_1(attend(block.attn, block.ln_1(x), mask))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def attend(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Computes self-attention of `[N, T, C]`; a mask `[T, T]` is added to the attention scores."""
    # Sizes as numbers, so the exporter writes constant shapes and keeps only the batch dynamic.
    tokens, heads, channels = x.shape[1], attention.num_heads, attention.head_dim
    qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    qkv = qkv.reshape(-1, tokens, 3, heads, channels).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
    return attention.out_proj(mixed.transpose(1, 2).reshape(-1, tokens, heads * channels))
