import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHOTOS = str(ROOT / "examples" / "photos")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["photo_test.py", "nowhere"], 1, "photo_test: .*nowhere"),
        (["latency.py", "--model", "pixelclip-light"], 1, "latency: .*pixelclip-lite"),
        (["latency.py", "--image", "nowhere.jpg"], 1, "latency: .*nowhere.jpg"),
        (["latency.py", "--runs", "0"], 2, "--runs: 0; expected at least 1"),
        (["backends.py", "--engines", "nowhere"], 2, "no engines .* in nowhere"),
        (["video.py", "--frames", "9"], 2, "--frames 9 --warmup 50; expected at least 10 and 0"),
        (["precision.py", "--photos", PHOTOS], 2, "2 photos in .*; expected more than 64"),
        (["compare.py", "--photos", "nowhere"], 1, "compare: the folder nowhere does not exist"),
        (["all.py", "--photos", "x", "--camvid", "y", "--only", "nothing"], 2, "invalid choice: 'nothing'"),
    ],
)
def test_a_wrong_argument_is_reported_in_one_line(words, code, message, tmp_path):
    script, *rest = words
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *rest], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert "telemetry" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(message, last)
