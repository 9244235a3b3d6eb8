"""Nothing phones home: a running segmenter opens no socket and writes nothing below the home folder.

The child processes here run under a seccomp filter that kills them at the first `socket` call beyond AF_UNIX.
It sees native libraries too, which hooks in Python do not.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is a part of Linux")

FORBID_SOCKETS = """
import ctypes, platform, struct

def instruction(code, if_true, if_false, value):
    return struct.pack("HBBI", code, if_true, if_false, value)

socket_call = {"x86_64": 41, "aarch64": 198}[platform.machine()]
program = b"".join([
    instruction(0x20, 0, 0, 0),              # load the number of the system call
    instruction(0x15, 0, 3, socket_call),    # no `socket`: allow
    instruction(0x20, 0, 0, 16),             # load its first argument, the address family
    instruction(0x15, 1, 0, 1),              # AF_UNIX: allow
    instruction(0x06, 0, 0, 0x80000000),     # kill the process
    instruction(0x06, 0, 0, 0x7FFF0000),     # allow
])
buffer = ctypes.create_string_buffer(program, len(program))

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, ctypes.addressof(buffer))), 0, 0) == 0
"""
SEGMENT = """
import time
import numpy as np
from pixelclip_sdk import Segmenter

with Segmenter.from_pretrained(classes=["cat", "sofa"]) as segmenter:
    end = time.monotonic() + SECONDS
    while True:
        segmenter.predict(np.zeros((48, 64, 3), np.uint8))
        if time.monotonic() > end:
            break
        time.sleep(0.2)
print("done")
"""


def run(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess:
    known = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**known, "HOME": str(home), **environment},
    )


def test_the_filter_sees_a_socket(tmp_path):
    code = FORBID_SOCKETS + "import socket; socket.socket()"
    assert run(code, tmp_path).returncode == -signal.SIGSYS


def test_a_segmenter_opens_no_socket_and_writes_nothing_below_home(tmp_path):
    # The telemetry of onnxruntime 1.32 opens its first socket 10 s after a session is made.
    result = run(FORBID_SOCKETS + SEGMENT.replace("SECONDS", "13"), tmp_path)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
    assert list(tmp_path.rglob("*")) == []


def test_openvino_opens_no_socket_and_writes_nothing_below_home(tmp_path):
    """By itself, its import writes an identifier of the user below the home folder."""
    pytest.importorskip("openvino")
    code = SEGMENT.replace("SECONDS", "0").replace("classes=", 'backend="openvino", classes=')
    result = run(FORBID_SOCKETS + code, tmp_path)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
    assert list(tmp_path.rglob("*")) == []


def test_an_onnxruntime_that_came_first_is_reported(tmp_path):
    assert "its telemetry is on" in run("import onnxruntime, pixelclip_sdk", tmp_path).stderr
    silent = run("import onnxruntime, pixelclip_sdk", tmp_path, ORT_DISABLE_TELEMETRY="1")
    assert silent.stderr == ""
