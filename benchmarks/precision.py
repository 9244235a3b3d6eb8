"""Speed, size, labels and accuracy of precisions: ``python benchmarks/precision.py --photos FOLDER``.

ViT-B/16 at 320² with random weights, for speed and size: eager PyTorch; ONNX in fp32, int8, dynamic int8.
pixelclip-lite, also for labels: ONNX in fp32, fp16 and int8, on photos that did not calibrate. Different
labels are not always wrong, so ``--camvid`` and ``--named`` add each precision's accuracy. Encoders run in
turns; times are medians.
"""

import functools
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.harness import tables
from benchmarks.harness.accuracy import accuracies
from benchmarks.harness.models import VIT, random_vit
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns, medians
from export.precision.fp16 import rounding, to_fp16
from export.precision.int8 import to_int8
from export.to_onnx import photo_batches, trace_image_encoder
from export.verify import WORDS
from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends.onnx import OnnxBackend, create_session, default_threads
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITE

_SIZE = (480, 640)  # Labels are compared at this size.
_CALIBRATION, _COMPARED = 64, 100  # Photos.
_GATE = 0.975  # The gate of `export/to_onnx.py` on calibration photos.

Batch = Mapping[str, np.ndarray]
Run = Callable[[Batch], np.ndarray]


def vit(photos: Sequence[Path], runs: int) -> dict[str, Any]:
    """Times and sizes of ViT-B/16."""
    pair = random_vit()
    fp32, batches = trace_image_encoder(pair), list(photo_batches(pair, photos[:2]))

    def eager(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            return pair.image(*(torch.from_numpy(batch[n].copy()) for n in ("image", "text")))[0].numpy()

    models = {
        "fp32": trace_image_encoder(pair, for_cpu=True),
        "int8": to_int8(fp32, batches, gate=0)[0],  # Labels of random weights need no gate.
        "int8 dynamic": _dynamic_int8(fp32),
    }
    sizes = {name: model.ByteSize() for name, model in models.items()}
    sizes["fp16"] = to_fp16(fp32, batches[:1])[0].ByteSize()
    functions = {"eager": eager, **{name: _run(model) for name, model in models.items()}}
    return {"model": f"{VIT}, random weights", **timings(functions, batches[0], runs, sizes)}


def lite(photos: Sequence[Path], runs: int, camvid: Path | None, named: Path | None) -> dict[str, Any]:
    """Times, sizes, labels and accuracy of pixelclip-lite; see `accuracies` for CamVid and named photos."""
    pair = load_model(LITE)
    fp32 = trace_image_encoder(pair)
    batches = list(photo_batches(pair, photos))
    seen, unseen = batches[:_CALIBRATION], batches[_CALIBRATION:]
    models = {
        "fp32": fp32,
        "fp16": to_fp16(fp32, seen[:8])[0],
        "int8": to_int8(fp32, seen, gate=_GATE)[0],
        "int8, all": to_int8(fp32, seen, gate=0)[0],
    }
    functions = {name: _run(model) for name, model in models.items()}
    sizes = {name: model.ByteSize() for name, model in models.items()}
    result = timings(functions, seen[0], runs, sizes)
    # Labels and accuracy of fp16 with the rounding of a GPU; a CPU rounds less often.
    models["fp16"] = rounding(models["fp16"])
    functions["fp16"] = _run(models["fp16"])
    reference = functions.pop("fp32")
    return {
        "model": "pixelclip-lite",
        "calibrated_on": len(seen),
        "compared_on": len(unseen),
        **result,
        "label_agreement": {name: agreement(reference, run, unseen) for name, run in functions.items()},
        "accuracy": {name: model_accuracies(model, pair, camvid, named) for name, model in models.items()},
    }


def timings(
    functions: Mapping[str, Run], batch: Batch, runs: int, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Returns median milliseconds, speed against the first function, bytes, and size against fp32."""
    ms = medians(in_turns({name: functools.partial(run, batch) for name, run in functions.items()}, runs))
    reference = next(iter(ms))
    return {
        "ms": ms,
        "reference": reference,
        "speedup": {name: ms[reference] / value for name, value in ms.items()},
        "bytes": dict(sizes),
        "size_ratio": {name: size / sizes["fp32"] for name, size in sizes.items()},
    }


def agreement(one: Run, other: Run, batches: Sequence[Batch]) -> float:
    """Returns the share of pixels with equal labels, 0–1, mean over the photos."""

    def labels(run: Run, batch: Batch) -> np.ndarray:
        return labels_upsampled(run(batch)[0], _SIZE)

    return float(np.mean([(labels(one, batch) == labels(other, batch)).mean() for batch in batches]))


def model_accuracies(
    model: onnx.ModelProto, pair: EncoderPair, camvid: Path | None, named: Path | None
) -> dict[str, float]:
    """Returns the accuracy of a pixelclip-lite graph with the bundled text encoder; see `accuracies`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        backend = OnnxBackend(path, embedding_dim=pair.dim, multiple=pair.input.multiple)
    text = TextEncoder(find_bundle("pixelclip-lite"))
    with Segmenter(backend, pair.input, text_encoder=text) as segmenter:
        segmenter.set_classes(WORDS)
        return accuracies(segmenter, camvid=camvid, photos=named)


def _run(model: onnx.ModelProto) -> Run:
    """A graph on the CPU: batch → logits."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        session = create_session(Path(folder) / "model.onnx")
    return lambda batch: session.run(["logits"], dict(batch))[0]


def _dynamic_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    # Imported late: pixelclip_sdk switches off ONNX Runtime's telemetry and must be imported first.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, runs=12)
    about = f"real photos: {_CALIBRATION} calibrate, up to {_COMPARED} others compare labels"
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help=about)
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid, for its mIoU")
    parser.add_argument("--named", type=Path, metavar="DIR", help="photos for photo_test.py")
    options = parser.parse_args()
    photos = find_images(options.photos)
    if len(photos) <= _CALIBRATION:
        parser.error(f"{len(photos)} photos in {options.photos}; expected more than {_CALIBRATION}")
    random.Random(0).shuffle(photos)
    photos = photos[: _CALIBRATION + _COMPARED]
    torch.set_num_threads(default_threads())
    models = [vit(photos, options.runs), lite(photos, options.runs, options.camvid, options.named)]
    for model in models:
        print(f"{model['model']}\n\n{tables.precision(model)}\n")
    ratios = {
        f"{model['model']}: {name} against {model['reference']}": speed
        for model in models
        for name, speed in model["speedup"].items()
        if name != model["reference"]
    }
    store(options.json, {"models": models, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("precision", main))
