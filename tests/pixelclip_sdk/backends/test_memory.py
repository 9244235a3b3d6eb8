"""Memory that loading a model leaves behind."""

import subprocess
import sys

import pytest

from pixelclip_sdk.backends import memory

_LOADED = """
import ctypes
from pathlib import Path
from pixelclip_sdk import Segmenter

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

segmenter = Segmenter.from_pretrained(backend="{backend}", classes="cat, sofa")
loaded = resident()
ctypes.CDLL(None).malloc_trim(0)
print(loaded - resident())
"""


@pytest.mark.skipif(memory._trim is None, reason="only glibc keeps memory")
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_loading_a_model_keeps_no_memory_that_it_freed(backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    code = _LOADED.format(backend=backend)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 10  # It was 80 MB.
