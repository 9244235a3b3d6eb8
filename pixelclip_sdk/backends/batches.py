"""Run inputs of several sizes through one engine."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.support.clock import Clock

__all__ = ["batched_logits"]

# Images per call of the engine. More gain nothing and may not fit into memory.
_MAX_BATCH = 16


def batched_logits(
    backend: Backend,
    inputs: Sequence[npt.NDArray[np.uint8]],
    text: npt.NDArray[np.float32],
    speeds: Sequence[dict[str, float]],
) -> list[npt.NDArray[np.float32]]:
    """Compute the logits of every input; inputs of one size go through the engine together.

    Args:
        backend: The engine.
        inputs: `(H, W, 3)` uint8 each, RGB, at sizes that the engine accepts.
        text: `(K, D)` float32, unit rows.
        speeds: One mapping per input. ``inference`` becomes the milliseconds of the batch per image.

    Returns:
        `(K, h, w)` float32 each.

    Raises:
        BackendError: The engine is closed or failed.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(inputs):
        groups.setdefault(image.shape, []).append(i)
    logits: dict[int, npt.NDArray[np.float32]] = {}
    batches = [m[i : i + _MAX_BATCH] for m in groups.values() for i in range(0, len(m), _MAX_BATCH)]
    for members in batches:
        clock = Clock()
        first = inputs[members[0]]
        together = first[None] if len(members) == 1 else np.stack([inputs[i] for i in members])
        batch = backend.logits(together, text)
        clock.lap("inference")
        for i, grid in zip(members, batch, strict=True):
            logits[i] = grid if len(members) == 1 else grid.copy()  # A view would keep the whole batch alive.
            speeds[i]["inference"] = clock.laps["inference"] / len(members)
    return [logits[i] for i in range(len(inputs))]
