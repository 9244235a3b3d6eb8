"""The rules of the house that code can check."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pixelclip_sdk

ROOT = Path(__file__).parents[1]
HEAVY = [
    "numpy",
    "PIL",
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "tokenizers",
    "cv2",
    "av",
]
# Folder → project folders it may import besides itself.
ARROWS = {
    "pixelclip_sdk": set(),
    "training": {"pixelclip_sdk"},
    "export": {"pixelclip_sdk", "training"},
    "benchmarks": {"pixelclip_sdk", "export", "training"},
}
FORBIDDEN_IN_SDK = {"torch", "torchvision", "open_clip", "timm", "onnx", "skimage", "scipy"}


def imported(file: Path) -> set[str]:
    """Dotted names of all modules a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("folder", ARROWS)
def test_arrows_run_one_way(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            top = name.partition(".")[0]
            if top in ARROWS and top != folder:
                assert top in ARROWS[folder], f"{file.relative_to(ROOT)} imports {name}"
            if folder == "export" and top == "training":
                assert name.startswith("training.models"), f"{file.relative_to(ROOT)} imports {name}"
            if folder == "pixelclip_sdk":
                assert top not in FORBIDDEN_IN_SDK, f"{file.relative_to(ROOT)} imports {name}"


def test_the_files_and_folders_of_the_sdk_import_each_other_one_way():
    arrows: dict[str, set[str]] = {}
    for file in sorted((ROOT / "pixelclip_sdk").rglob("*.py")):
        place = file.relative_to(ROOT / "pixelclip_sdk").parts[0].removesuffix(".py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:  # Not those within functions.
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pixelclip_sdk."):
                arrows.setdefault(place, set()).add(node.module.split(".")[1])
    for place, others in arrows.items():
        others.discard(place)
    assert len(list(TopologicalSorter(arrows).static_order())) > 30  # Else it raises CycleError.


def test_image_files_are_opened_with_a_list_of_formats():
    """Without one, a PostScript file named photo.jpg starts a program."""
    for folder in ARROWS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                    assert "formats" in {word.arg for word in node.keywords}, file.relative_to(ROOT)


@pytest.mark.parametrize(
    "module", ["pixelclip_sdk", "export.precision.storage", "benchmarks.floors.operators"]
)
def test_telemetry_is_off_before_onnxruntime_is_imported(module):
    code = (
        "import sys, os\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'onnxruntime':\n"
        "            print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}, onnxruntime\n"
    )
    known = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=known
    )
    assert result.stdout == "1\n"


def test_a_command_imports_onnxruntime_late():
    """The file of a command is run before the package that it lies in switches the telemetry off."""
    for folder in ARROWS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = [
                name
                for node in tree.body
                for name in [getattr(node, "module", None), *(n.name for n in getattr(node, "names", ()))]
            ]
            if any(ast.unparse(node).startswith("if __name__") for node in tree.body):
                assert not any(str(n).startswith("onnxruntime") for n in names), file.relative_to(ROOT)


def test_import_loads_nothing_heavy():
    code = f"import sys, pixelclip_sdk; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_only_the_server_loads_what_a_server_needs():
    code = (
        "import sys, pixelclip_sdk.segmenter, pixelclip_sdk.cli.main as main; main.parser(); "
        "print([m for m in ('fastapi', 'uvicorn', 'pydantic', 'websockets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_segmenter_class_loads_no_runtime():
    code = (
        "import sys; from pixelclip_sdk import Segmenter; "
        f"print([m for m in {HEAVY[2:]} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_segmenting_never_loads_torch(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from pixelclip_sdk import Segmenter\n"
        "Segmenter.from_pretrained(classes=['cat', 'sofa']).predict(np.zeros((48, 64, 3), np.uint8))\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "False"


def test_all_is_sorted_and_complete():
    names = pixelclip_sdk.__all__
    assert names == sorted(names)
    for name in names:
        assert hasattr(pixelclip_sdk, name)
    assert dir(pixelclip_sdk) == names
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pixelclip_sdk.Nothing  # noqa: B018


def test_every_error_is_of_one_tree_and_exported():
    from pixelclip_sdk import errors

    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert len(classes) == 9
    for name, error in classes.items():
        assert issubclass(error, pixelclip_sdk.PixelClipError)
        assert getattr(pixelclip_sdk, name) is error
        assert name in errors.__doc__


def test_backends_import_only_what_every_engine_needs():
    """CONTRIBUTING.md: bundle, errors, support and other backends."""
    allowed = ("backends", "bundle", "errors", "support")
    for file in sorted((ROOT / "pixelclip_sdk" / "backends").glob("*.py")):
        for name in imported(file):
            package, _, rest = name.partition(".")
            if package == "pixelclip_sdk":
                assert rest.split(".")[0] in allowed, f"{file.name} imports {name}"
