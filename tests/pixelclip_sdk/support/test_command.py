"""How commands end, tried in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip_sdk.support.command import terminal_json

HEAD = """
import sys
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.command import run_command
"""


def run(body: str, **streams) -> subprocess.CompletedProcess:
    code = f"{HEAD}def body():\n    {body}\n    return 0\nsys.exit(run_command('name', body))"
    # Buffered, as usual: what is left in the buffer is written when the process ends.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-c", code], text=True, check=False, env=env, **streams)


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("pass", 0, ""),
        ("return 3", 3, ""),
        ("raise ImageError('no picture')", 1, "name: no picture\n"),
        ("open('nowhere/x')", 1, "name: [Errno 2] No such file or directory: 'nowhere/x'\n"),
        ("raise KeyboardInterrupt", 130, "name: interrupted; nothing was written\n"),
    ],
)
def test_exit_codes_and_one_line_on_stderr(body, code, stderr):
    result = run(body, capture_output=True)
    assert (result.returncode, result.stderr) == (code, stderr)


def test_a_fault_of_ours_keeps_its_traceback():
    assert "ZeroDivisionError" in run("1 / 0", capture_output=True).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error_without_a_traceback():
    with Path("/dev/full").open("w") as full:
        result = run("print('x')", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == "name: [Errno 28] No space left on device\n"


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    result = run("print('x' * 100000)", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_closed_stderr_does_not_change_the_exit_code():
    result = run("sys.stderr = None; raise ImageError('no picture')", capture_output=True)
    assert result.returncode == 1


def test_control_characters_do_not_reach_the_terminal():
    result = run(
        r"raise ImageError('a\x1b[2J\x9b1m\rb.jpg: no picture\nSecond line, Kätzchen 猫')",
        capture_output=True,
    )
    assert result.stderr == "name: a\\x1b[2J\\x9b1m\\rb.jpg: no picture\nSecond line, Kätzchen 猫\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("body", "code"),
    [("print('x'); raise ImageError('no picture')", 1), ("print('x'); raise SystemExit(0)", 1)],
)
def test_a_full_stdout_never_adds_a_traceback(body, code):
    with Path("/dev/full").open("w") as full:
        result = run(body, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == code
    assert result.stderr.count("\n") == 1
    assert "Error" not in result.stderr.replace("[Errno 28]", "")


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors through the shell")
def test_with_all_descriptors_closed_a_file_does_not_become_stderr(tmp_path):
    body = (
        f"import os; f = open({str(tmp_path / 'out')!r}, 'w'); os.write(2, b'log'); f.write('data'); "
        "f.close(); raise ImageError('no picture')"
    )
    code = f"{HEAD}def body():\n    {body}\nsys.exit(run_command('name', body))"
    result = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert result.returncode == 1
    assert (tmp_path / "out").read_text() == "data"


@pytest.mark.parametrize("setup", ["", "logging.basicConfig(format='%(message)s'); "])
def test_control_characters_do_not_reach_the_terminal_in_log_lines(setup):
    code = (
        f"import logging, sys\nfrom pixelclip_sdk.support.command import run_command\n{setup}\n"
        "def body():\n    logging.getLogger('x').warning('%s is odd', 'a\\x1b[2J.jpg')\n    return 0\n"
        "sys.exit(run_command('name', body))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ("" if setup else "name: ") + "a\\x1b[2J.jpg is odd\n"


def test_json_for_a_terminal_has_no_control_characters_and_the_same_content():
    value = {"猫\x9b2J\x1b\x7f\u2028": ["a\nb", 1]}
    text = terminal_json(value)
    assert json.loads(text) == value
    assert "猫" in text
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u2028" for c in text)
