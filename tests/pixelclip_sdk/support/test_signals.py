"""Stop signals, sent to real processes."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")

# Cleaning up takes until the end of stdin: this is where a second signal arrives.
COMMAND = """
import sys
from pixelclip_sdk.support.command import run_command

def body():
    try:
        print("started", flush=True)
        sys.stdin.readline()
    finally:
        print("cleaning", flush=True)
        sys.stdin.readline()
        print("clean", flush=True)
    return 0

sys.exit(run_command("name", body))
"""


@pytest.fixture
def start():
    processes = []

    def start(*prefix: str, code: str = COMMAND) -> subprocess.Popen:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "started\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_cleans_up_and_exits_with_130(start, sent):
    process = start()
    process.send_signal(sent)
    assert process.stdout.readline() == "cleaning\n"
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out, err) == (130, "clean\n", "name: interrupted; nothing was written\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(start, sent):
    process = start()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(sent)
    assert process.wait(60) == -sent
    assert process.stderr.read() == ""


def test_a_terminal_that_hangs_up_twice_does_not_end_the_cleaning(start):
    process = start()
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (130, "clean\n")


def test_nohup_stays_in_force(start):
    code = COMMAND.replace(
        "import sys", "import signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)", 1
    )
    process = start(code=code)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate("\n\n", timeout=60)
    assert (process.returncode, out) == (0, "cleaning\nclean\n")


def test_a_stop_flag_is_set_by_the_first_signal_and_the_second_interrupts(start):
    code = """
import sys, time
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.signals import stop_signal

def body():
    with stop_signal() as stopped:
        print("started", flush=True)
        while not stopped():
            time.sleep(0.01)
        print("stopping", flush=True)
        sys.stdin.readline()
    return 0

sys.exit(run_command("name", body))
"""
    for second, expected in (("\n", 0), (None, 130)):
        process = start(code=code)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        if second is None:
            process.send_signal(signal.SIGINT)
        process.communicate(second, timeout=60)
        assert process.returncode == expected


def test_handlers_are_put_back(start):
    code = """
import signal
from pixelclip_sdk.support.signals import interruptible

stops = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
before = [signal.getsignal(number) for number in stops]
print("started", flush=True)
try:
    with interruptible():
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt as interrupt:
    print(interrupt, [signal.getsignal(number) for number in stops] == before)
"""
    out, err = start(code=code).communicate(timeout=60)
    assert (out, err) == ("SIGTERM True\n", "")


def test_a_forked_worker_ends_silently_when_its_parent_terminates_it(start):
    code = """
import multiprocessing, sys, time
from pixelclip_sdk.support.command import run_command

def body():
    print("started", flush=True)
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    time.sleep(0.2)
    worker.terminate()
    worker.join()
    print(worker.exitcode, flush=True)
    return 0

sys.exit(run_command("name", body))
"""
    out, err = start(code=code).communicate(timeout=60)
    assert (out, err) == ("-15\n", "")
