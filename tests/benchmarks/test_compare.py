from benchmarks.compare import REFERENCE, measure, sdk_pipeline
from benchmarks.harness import tables
from benchmarks.harness.rivals import TorchPipeline
from pixelclip_sdk.benchmark import sample_jpeg
from training.models.load import load_model
from training.models.registry import LITE


def test_pipelines_are_compared_with_pytorch_on_the_same_model(lite):
    reference = TorchPipeline(load_model(LITE), lite.vocabulary.embeddings, official=False)
    pipelines = {REFERENCE: reference, "ours": sdk_pipeline(lite), "other": "is not installed"}
    case = measure({"name": "tiny"}, sample_jpeg(96, 128), pipelines, 2)
    first, ours, other = case["rows"]
    assert (case["name"], first["speedup"], first["equal_labels"]) == ("tiny", 1, 1)
    assert ours["speedup"] == first["ms"] / ours["ms"]
    assert ours["equal_labels"] > 0.9
    assert (ours["rounds"], list(ours["stages_ms"])) == (
        2,
        ["decode", "preprocess", "inference", "refine", "postprocess"],
    )
    assert other == {"name": "other", "reason": "is not installed"}
    assert "is not installed" in tables.comparison(case, REFERENCE)
