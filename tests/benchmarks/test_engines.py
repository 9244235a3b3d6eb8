from benchmarks.engines import DirectOnnx, loaders, measure, ratios
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.benchmark import sample_jpeg


def test_the_same_pipeline_runs_with_our_engine_and_with_the_library(lite):
    def missing():
        raise PixelClipError("openvino is not installed")

    pipelines = {
        "ours, onnx": lambda: Segmenter.from_pretrained(backend="onnx", classes=lite.vocabulary),
        "onnxruntime": lambda: Segmenter(
            DirectOnnx(lite.bundle), lite.bundle.input, bundle=lite.bundle, vocabulary=lite.vocabulary
        ),
        "OpenVINO, f32": missing,
    }
    case = measure("tiny", sample_jpeg(96, 128), pipelines, 2)
    ours, direct, other = case["rows"]
    assert (ours["name"], direct["name"]) == ("ours, onnx", "onnxruntime")
    assert direct["equal_labels"] > 0.999
    assert 0 < ours["inference_ms"] < ours["ms"]
    assert other == {"name": "OpenVINO, f32", "reason": "openvino is not installed"}
    assert ratios(case)["tiny: ours, onnx against onnxruntime"] == direct["ms"] / ours["ms"]


def test_best_is_compared_with_best_in_fp32_and_with_reduced_precision():
    times = {"ours, onnx": 10, "onnxruntime": 20, "ours, openvino": 30, "OpenVINO, f32": 30}
    times |= {"ours, openvino-bf16": 6, "OpenVINO, bf16": 3}
    found = ratios({"name": "x", "rows": [{"name": name, "ms": ms} for name, ms in times.items()]})
    assert found["x: best of ours against the best library, fp32"] == 2
    assert found["x: best of ours against the best library, best"] == 0.5
    assert found["x: ours, openvino-bf16 against OpenVINO, bf16"] == 0.5


def test_every_pipeline_has_its_rival(lite):
    names = list(loaders(lite.bundle, lite.vocabulary))
    assert names[::2] == ["ours, onnx", "ours, openvino", "ours, openvino-bf16"]
    assert names[1::2] == ["onnxruntime", "OpenVINO, f32", "OpenVINO, bf16"]
