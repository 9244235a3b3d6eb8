import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import time
from training.support.processes import pool_of

if __name__ == "__main__":
    with pool_of(2, str) as pool:
        for _ in range(2):
            pool.submit(time.sleep, 600)
        print(*pool._processes, flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc which processes run")
def test_the_processes_of_a_pool_end_with_the_one_that_was_killed(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as program:
        workers = [Path("/proc", number) for number in program.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(3)  # Until they have started.
        assert all(worker.exists() for worker in workers)
        program.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < end, "orphans wait for ever"
        time.sleep(0.1)
