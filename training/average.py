"""Weights between a model and its fine-tuned form: ``training/average.py --model NAME --tuned FILE …``.

Fine-tuning gains what its photos show and loses a little of what the model knew. A weighted mean of both
keeps most of either (WiSE-FT: Wortsman et al., CVPR 2022, arXiv 2109.01903, equation 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from pixelclip_sdk import CheckpointError, PixelClipError
from pixelclip_sdk.support.files import atomic_write
from training.models.load import load_model
from training.models.weights.checkpoints import read_checkpoint

__all__ = ["averaged", "main"]


def averaged(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """``(1 - share) · start + share · tuned``, tensor by tensor; whole numbers stay the start's.

    Args:
        start: Name → weights of the model as it was.
        tuned: The same after training.
        share: Of the tuned weights, 0–1.

    Raises:
        CheckpointError: They are not of one model, or `share` is outside.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"share is {share}; expected 0 (the start) to 1 (the tuned weights)")
    differ = sorted(start.keys() ^ tuned.keys()) or [
        name for name in start if start[name].shape != tuned[name].shape
    ]
    if differ:
        raise CheckpointError(
            f"these weights are of another model than the start: {len(differ)} of {len(start)} tensors "
            f"differ in name or shape, as {differ[0]}. Give --model what the training began from."
        )
    return {
        name: weight.lerp(tuned[name].to(weight.dtype), share) if weight.is_floating_point() else weight
        for name, weight in start.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="average.py", description="Weights between a model and its fine-tuned form."
    )
    parser.add_argument("--model", required=True, help="what the training began from, as in its config")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights, if not the name's own")
    parser.add_argument("--tuned", required=True, type=Path, metavar="FILE", help="weights of the training")
    parser.add_argument(
        "--share", type=float, default=0.7, help="of the tuned weights (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--offline", action="store_true", help="take weights from the cache, never download")
    options = parser.parse_args(arguments)
    try:
        start = load_model(options.model, checkpoint=options.checkpoint, offline=options.offline)
        weights = averaged(start.network.state_dict(), read_checkpoint(options.tuned), options.share)
        content = save({name: weight.contiguous() for name, weight in weights.items()})
        with atomic_write(options.out) as temporary:
            temporary.write_bytes(content)
    except (PixelClipError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"average: interrupted; {options.out} is as it was", file=sys.stderr)
        return 130
    print(f"{options.share:g} of {options.tuned.name}, the rest of {options.model} → {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
