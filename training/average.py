"""Averages weights before and after fine-tuning: ``average.py --model NAME --tuned FILE --out FILE``.

Fine-tuning improves on its photos and forgets a little elsewhere. A weighted mean keeps most of both
(WiSE-FT: Wortsman et al., CVPR 2022, arXiv 2109.01903, equation 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from safetensors.torch import save
from torch import Tensor

from pixelclip_sdk import CheckpointError
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from training.models.load import load_model
from training.models.weights.checkpoints import read_checkpoint

__all__ = ["averaged", "main"]


def averaged(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Returns ``(1 - share) · start + share · tuned`` for each tensor; integers are those of the start.

    Raises:
        CheckpointError: The weights are of different models, or `share` is not in 0-1.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"share is {share}; expected 0 (the start) to 1 (the tuned weights)")
    differ = sorted(start.keys() ^ tuned.keys()) or [
        name for name in start if start[name].shape != tuned[name].shape
    ]
    if differ:
        raise CheckpointError(
            f"the tuned weights are of another model: {len(differ)} of {len(start)} tensors differ in name "
            f"or shape, such as {differ[0]}. Give the --model that the training started from."
        )
    return {
        name: weight.lerp(tuned[name].to(weight.dtype), share) if weight.is_floating_point() else weight
        for name, weight in start.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="average.py", description="Average a model's weights before and after fine-tuning."
    )
    add = parser.add_argument
    add("--model", required=True, help="model that the training started from, as in its config")
    add("--checkpoint", type=path, metavar="FILE", help="weights that the training started from")
    add("--tuned", required=True, type=path, metavar="FILE", help="weights of the training")
    add("--share", type=float, default=0.7, help="share of the tuned weights (default: %(default)s)")
    add("--out", required=True, type=path, metavar="FILE", help="output, a .safetensors file")
    add("--offline", action="store_true", help="use downloaded weights only")
    options = parser.parse_args(arguments)
    return run_command("average", lambda: _average(options), interrupted=f"{options.out} is unchanged")


def _average(options: argparse.Namespace) -> int:
    start = load_model(options.model, checkpoint=options.checkpoint, offline=options.offline)
    weights = averaged(start.network.state_dict(), read_checkpoint(options.tuned), options.share)
    content = save({name: weight.contiguous() for name, weight in weights.items()})
    with atomic_write(options.out) as temporary:
        temporary.write_bytes(content)
    print(f"{options.share:g} of {options.tuned.name}, the rest of {options.model} → {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
