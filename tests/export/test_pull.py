"""`pixelclip pull`, from a hub to a bundle that segments: real download and real export of a small model."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from clip_reference import perturbed
from hub_server import Handler, Hub, serve

from pixelclip_sdk import Segmenter

ROOT = Path(__file__).parents[2]
NAME, FILE = "pixelclip-vit-b16", "weights/pixelclip_vit_base.pth"
# The architecture of that name with one narrow layer per tower.
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "quick_gelu": True,
}
# Runs in the exporter's process before the command: open_clip then knows the small architecture by the name.
SITE = """
import sys
if "export.to_onnx" in sys.orig_argv:
    import open_clip
    open_clip.add_model_config({config!r})
"""


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Seeded weights in the official layout."""
    torch.manual_seed(0)
    state = perturbed(open_clip.CLIP(**CONFIG)).state_dict()
    state = {f"sem_seg_head.predictor.clip_model.{name}": value for name, value in state.items()}
    file = io.BytesIO()
    torch.save({"model": state, "iteration": 9999}, file)
    return file.getvalue()


@pytest.fixture
def hub(weights) -> Iterator[type[Handler]]:
    with serve() as handler:
        handler.hub = Hub({FILE: weights}, repository="hsshin98/PixelCLIP")
        yield handler


@pytest.fixture
def pull(tmp_path, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    config = tmp_path / "site" / "ViT-B-16.json"
    config.parent.mkdir()
    config.write_text(json.dumps(CONFIG))
    (config.parent / "sitecustomize.py").write_text(SITE.format(config=str(config)))
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "models"))

    def pull(*arguments: str, endpoint: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        ours["PYTHONPATH"] = os.pathsep.join([str(config.parent), str(ROOT)])
        command = [sys.executable, "-m", "pixelclip_sdk", "pull", *arguments]
        return subprocess.run(
            command, env=clean | ours, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return pull


def test_pull_downloads_converts_and_then_the_name_works(hub, pull, tmp_path):
    result = pull(NAME, endpoint=f"http://127.0.0.1:{hub.port}")
    assert result.returncode == 0, result.stderr
    assert f"https://huggingface.co/hsshin98/PixelCLIP/resolve/main/{FILE} (about 600 MB" in result.stderr
    with Segmenter.from_pretrained(NAME, classes=["cat", "sofa"]) as segmenter:
        assert segmenter.bundle.path == tmp_path / "models" / NAME
        assert segmenter.bundle.sources[0]["repository"] == "hsshin98/PixelCLIP"
        labels = segmenter.predict(np.zeros((48, 64, 3), np.uint8)).labels
    assert labels.shape == (48, 64)
    again = pull(NAME)
    assert (again.returncode, again.stdout) == (
        0,
        f"{NAME} is already on this machine: {tmp_path / 'models' / NAME}\n",
    )


def test_pull_passes_a_file_that_was_downloaded_elsewhere_to_the_exporter(pull, tmp_path):
    (tmp_path / "official.pth").write_bytes(b"no checkpoint")
    result = pull(NAME, "--checkpoint", "official.pth")
    assert result.returncode == 1
    assert str(tmp_path / "official.pth") in result.stderr
    assert not (tmp_path / "models" / NAME).exists()
