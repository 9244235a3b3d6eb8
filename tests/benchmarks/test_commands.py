import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["photo_test.py", "nowhere"], 1, "photo_test: .*nowhere"),
        (["latency.py", "--model", "pixelclip-light"], 1, "latency: .*pixelclip-lite"),
        (["latency.py", "--image", "nowhere.jpg"], 1, "latency: .*nowhere.jpg"),
        (["latency.py", "--runs", "0"], 2, "--runs: 0; expected at least 1"),
        (["backends.py", "--engines", "nowhere"], 2, "no engines .* in nowhere"),
    ],
)
def test_a_wrong_argument_is_said_in_a_line(words, code, said, tmp_path):
    script, *rest = words
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *rest], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(said, last)
