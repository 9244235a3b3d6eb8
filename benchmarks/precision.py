"""Precisions side by side: ``python benchmarks/precision.py --photos FOLDER``.

The image encoder of ViT-B/16 at 320² in eager PyTorch, and as ONNX in fp32, int8 (static, `to_int8`) and,
to compare, dynamic int8; in turns in one run, warm, medians. Its weights are random: time and size do not
depend on them, labels do. Labels are compared for pixelclip-lite, whose weights are real, on photos that
were not used to calibrate. Other labels are not always worse ones: with ``--camvid`` and ``--named`` there is
also what each precision finds, on CamVid's val photos and in the photo test. ``--checkpoint`` takes
fine-tuned weights, such as those that ship.
"""

import argparse
import functools
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.harness.accuracy import accuracies
from benchmarks.harness.models import VIT, random_vit
from benchmarks.harness.stored import store
from benchmarks.harness.turns import in_turns, medians
from export.precision.fp16 import rounding, to_fp16
from export.precision.int8 import to_int8
from export.to_onnx import photo_batches, trace_image_encoder
from export.verify import WORDS
from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends.onnx import OnnxBackend, create_session, default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITE

_SIZE = (480, 640)  # at which labels are compared
_VIT_PHOTOS = 2  # random weights: only the form of the graph matters
# Random weights leave features nearly alike everywhere: no gate on labels would mean anything.
# `export/to_onnx.py` asks as much on the calibration photos.
_GATE = 0.975
_VIT_GATE = 0.0

Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def session(model: onnx.ModelProto) -> Run:
    """A model on the CPU, in a session as the SDK makes it: batch → logits."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "model.onnx")
        made = create_session(Path(folder) / "model.onnx")
    return lambda batch: made.run(["logits"], batch)[0]


def found(
    model: onnx.ModelProto, pair: EncoderPair, camvid: Path | None, named: Path | None
) -> dict[str, float]:
    """What a graph of pixelclip-lite finds, in the SDK with the bundled text encoder; see `accuracies`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        backend = OnnxBackend(path, embedding_dim=pair.dim, multiple=pair.input.multiple)
    text = TextEncoder(find_bundle("pixelclip-lite"))
    with Segmenter(backend, pair.input, text_encoder=text) as segmenter:
        segmenter.set_classes(WORDS)
        return accuracies(segmenter, camvid=camvid, photos=named)


def timed(runs: dict[str, Run], batch: dict[str, np.ndarray], count: int) -> dict[str, float]:
    """Median milliseconds of each, in turns."""
    return medians(in_turns({name: functools.partial(run, batch) for name, run in runs.items()}, count))


def agreement(one: Run, other: Run, batches: Sequence[dict[str, np.ndarray]]) -> float:
    """Share of pixels with the same label, mean over the photos."""

    def labels(run: Run, batch: dict[str, np.ndarray]) -> np.ndarray:
        return labels_upsampled(run(batch)[0], _SIZE)

    return float(np.mean([(labels(one, b) == labels(other, b)).mean() for b in batches]))


def vit(photos: Sequence[Path], runs: int) -> dict[str, Any]:
    """Times and sizes of ViT-B/16."""
    pair = random_vit()
    encoder, fp32 = pair.image, trace_image_encoder(pair)
    for_cpu = trace_image_encoder(pair, for_cpu=True)
    batches = list(photo_batches(pair, photos[:_VIT_PHOTOS]))
    models = {"fp32": for_cpu, "int8": to_int8(fp32, batches, gate=_VIT_GATE), "int8 dynamic": dynamic(fp32)}

    def eager(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return encoder(*(torch.from_numpy(batch[name].copy()) for name in ("image", "text")))[0].numpy()

    sizes = {name: made.ByteSize() for name, made in models.items()}
    sizes["fp16"] = to_fp16(fp32, batches[:1]).ByteSize()
    functions = {"eager": eager, **{name: session(made) for name, made in models.items()}}
    return {"model": f"{VIT}, random weights", **report(timed(functions, batches[0], runs), sizes)}


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Dynamic int8, for comparison: TensorRT does not take it."""
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


def lite(
    photos: Sequence[Path],
    calibration: int,
    runs: int,
    *,
    camvid: Path | None = None,
    named: Path | None = None,
) -> dict[str, Any]:
    """Times, sizes and labels of pixelclip-lite; the first photos calibrate, the others are compared.

    Args:
        photos: Real photos.
        calibration: How many calibrate.
        runs: Measured runs of each.
        camvid: See `accuracies`.
        named: Photos named after what they show; see `accuracies`.
    """
    pair = load_model(LITE)
    fp32 = trace_image_encoder(pair)
    batches = list(photo_batches(pair, photos))
    seen, unseen = batches[:calibration], batches[calibration:]
    models = {"fp32": fp32, "fp16": to_fp16(fp32, seen[:8]), "int8": to_int8(fp32, seen, gate=_GATE)}
    models["int8, all"] = to_int8(fp32, seen, gate=0)
    functions = {name: session(model) for name, model in models.items()}
    result = report(timed(functions, seen[0], runs), {n: m.ByteSize() for n, m in models.items()})
    # What a GPU computes: a CPU rounds fp16 less often.
    models["fp16"] = rounding(models["fp16"])
    functions["fp16"] = session(models["fp16"])
    result["label_agreement"] = {
        n: agreement(functions["fp32"], functions[n], unseen) for n in functions if n != "fp32"
    }
    result["accuracy"] = {n: found(m, pair, camvid, named) for n, m in models.items()}
    counts = {"calibrated_on": len(seen), "compared_on": len(unseen)}
    return {"model": "pixelclip-lite", **counts, **result}


def report(times: dict[str, float], sizes: dict[str, int]) -> dict[str, Any]:
    """Ratios beside the numbers: speed against the first entry, size against fp32."""
    reference = next(iter(times))
    return {
        "ms": times,
        "reference": reference,
        "speedup": {name: times[reference] / ms for name, ms in times.items()},
        "bytes": sizes,
        "size_ratio": {name: size / sizes["fp32"] for name, size in sizes.items()},
    }


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="real photos (JPEG)")
    parser.add_argument(
        "--calibration", type=positive, default=64, help="photos to calibrate on (%(default)s)"
    )
    parser.add_argument(
        "--compared", type=positive, default=100, help="other photos to compare (%(default)s)"
    )
    parser.add_argument("--runs", type=positive, default=12, help="measured runs of each (%(default)s)")
    parser.add_argument(
        "--camvid", type=Path, metavar="DIR", help="CamVid, for the accuracy of each precision"
    )
    parser.add_argument("--named", type=Path, metavar="DIR", help="photos named after what they show, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.jpg"))
    if len(photos) <= options.calibration:
        parser.error(f"{len(photos)} photos in {options.photos}; expected more than {options.calibration}")
    random.Random(0).shuffle(photos)
    photos = photos[: options.calibration + options.compared]
    torch.set_num_threads(default_threads())
    accuracy = {"camvid": options.camvid, "named": options.named}
    results = [vit(photos, options.runs), lite(photos, options.calibration, options.runs, **accuracy)]
    for result in results:
        print(f"{result['model']}: speed against {result['reference']}, size against fp32")
        for name in dict.fromkeys([*result["ms"], *result["bytes"]]):
            ms, size = result["ms"].get(name), result["size_ratio"].get(name)
            speed = f"{ms:7.1f} ms {result['speedup'][name]:5.2f}×" if ms else " " * 17
            share = result.get("label_agreement", {}).get(name)
            print(
                f"  {name:<14}{speed} {f'{size:6.3f}' if size else '':>8}"
                + (f"  {share:.2%} of the labels" if share else "")
                + "".join(f"  {k} {v:.2%}" for k, v in result.get("accuracy", {}).get(name, {}).items())
            )
    if options.json:
        facts = {**environment(), "torch": torch.__version__, "threads": default_threads()}
        ratios = {
            f"{result['model']}: {name} against {result['reference']}": speed
            for result in results
            for name, speed in result["speedup"].items()
            if name != result["reference"]
        }
        store(options.json, {"models": results, "ratios": ratios, "environment": facts})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("precision", main))
