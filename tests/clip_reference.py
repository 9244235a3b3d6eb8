"""CLIP made dense, written plainly from the method's description, to compare with.

Works on a checkpoint's tensors alone: no module of ours or of open_clip takes part.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(state: State, name: str, x: Tensor, width: int, *, quick: bool, causal: bool) -> Tensor:
    """One residual block of a transformer, heads in a loop: `[T, C]` → `[T, C]`."""
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    query, key, value = (norm(state, f"{name}.ln_1", x) @ weight.T + bias).chunk(3, dim=-1)
    heads = []
    for start in range(0, x.shape[1], width):
        part = slice(start, start + width)
        scores = query[:, part] @ key[:, part].T / math.sqrt(width)
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ value[:, part])
    x = x + linear(state, f"{name}.attn.out_proj", torch.cat(heads, dim=-1))
    return x + mlp(state, name, x, quick=quick)


def mlp(state: State, name: str, x: Tensor, *, quick: bool) -> Tensor:
    hidden = linear(state, f"{name}.mlp.c_fc", norm(state, f"{name}.ln_2", x))
    hidden = hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden)
    return linear(state, f"{name}.mlp.c_proj", hidden)


def reference_vit(
    state: State, image: Tensor, patch: int, layers: int, mean: Tensor = MEAN, std: Tensor = STD
) -> Tensor:
    """uint8 `[H, W, 3]` → `[h, w, D]`."""
    pixels = (image / 255 - mean) / std
    rows, columns = image.shape[0] // patch, image.shape[1] // patch
    patches = (
        pixels.reshape(rows, patch, columns, patch, 3).permute(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    )
    x = patches @ state["visual.conv1.weight"].flatten(1).T
    positions = state["visual.positional_embedding"]
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].reshape(side, side, -1).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, (rows, columns), mode="bicubic")[0].flatten(1).T
    x = torch.cat([(state["visual.class_embedding"] + positions[0])[None], x + grid])
    x = norm(state, "visual.ln_pre", x)
    for i in range(layers - 1):
        x = block(state, f"visual.transformer.resblocks.{i}", x, 64, quick=True, causal=False)
    last = f"visual.transformer.resblocks.{layers - 1}"
    y = norm(state, f"{last}.ln_1", x) @ state[f"{last}.attn.in_proj_weight"].T
    values = (y + state[f"{last}.attn.in_proj_bias"]).chunk(3, dim=-1)[2]
    x = linear(state, f"{last}.attn.out_proj", values) + x[:1]
    x = (x + mlp(state, last, x, quick=True))[1:]
    return (norm(state, "visual.ln_post", x) @ state["visual.proj"]).reshape(rows, columns, -1)


def reference_convnext(state: State, image: Tensor, depths: tuple[int, ...]) -> Tensor:
    """uint8 `[H, W, 3]` → `[H/32, W/32, D]`."""
    state = {key.removeprefix("visual."): value for key, value in state.items()}

    def norm_channels(name: str, x: Tensor) -> Tensor:
        return norm(state, name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    x = ((image / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    x = F.conv2d(x, state["trunk.stem.0.weight"], state["trunk.stem.0.bias"], stride=4)
    x = norm_channels("trunk.stem.1", x)
    for stage, depth in enumerate(depths):
        name = f"trunk.stages.{stage}"
        if stage:
            x = norm_channels(f"{name}.downsample.0", x)
            weight, bias = state[f"{name}.downsample.1.weight"], state[f"{name}.downsample.1.bias"]
            x = F.conv2d(x, weight, bias, stride=2)
        for i in range(depth):
            at = f"{name}.blocks.{i}"
            weight, bias = state[f"{at}.conv_dw.weight"], state[f"{at}.conv_dw.bias"]
            y = F.conv2d(x, weight, bias, padding=3, groups=len(weight)).permute(0, 2, 3, 1)
            y = norm(state, f"{at}.norm", y, 1e-6)
            first, second = (state[f"{at}.mlp.{layer}.weight"].flatten(1) for layer in ("fc1", "fc2"))
            y = F.gelu(y @ first.T + state[f"{at}.mlp.fc1.bias"]) @ second.T + state[f"{at}.mlp.fc2.bias"]
            x = x + (y * state[f"{at}.gamma"]).permute(0, 3, 1, 2)
    x = norm_channels("trunk.head.norm", x)[0].permute(1, 2, 0)
    return x @ state["head.proj.weight"].T


def reference_text(state: State, ids: Tensor, layers: int, *, quick: bool) -> Tensor:
    """int64 `[T]`, T up to 77 → unit `[D]`."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    for i in range(layers):
        x = block(state, f"transformer.resblocks.{i}", x, 64, quick=quick, causal=True)
    x = norm(state, "ln_final", x)[ids.argmax()] @ state["text_projection"]
    return x / x.norm()


def reference_logits(features: Tensor, text: Tensor) -> Tensor:
    """Features `[h, w, D]` and unit texts `[K, D]` → cosines `[K, 64, 64]`, as in the official protocol."""
    fine = F.interpolate(features.permute(2, 0, 1)[None], (64, 64), mode="bilinear", align_corners=False)[0]
    return torch.einsum("kd,dhw->khw", text, fine / fine.norm(dim=0))


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere: as initialised, biases are zero and layer scales next to nothing."""
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter) if parameter.ndim < 2 else 0)
            if name.endswith("gamma"):
                parameter.copy_(torch.randn_like(parameter))
    return model.eval()
