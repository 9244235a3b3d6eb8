"""Ray: real clusters on this machine. The results are those of the local engine, whoever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixelclip_sdk import BackendUnavailableError
from pixelclip_sdk.batch import cluster

pytest.importorskip("ray")
pytest.importorskip("pyarrow")
WORDS = "cat, sofa, grass"

# In a process of its own: Ray changes the signal handlers and the logging of the process that it starts in.
LOCAL = """
import sys
from pixelclip_sdk import segment_archive
photos, out = sys.argv[1:]
for engine in ("local", "ray"):
    done = segment_archive([photos], f"{out}/{engine}", "cat, sofa, grass", shard_size=3, engine=engine)
    assert (done.done, done.failed) == (8, 1), done
from ray._common.usage.usage_lib import usage_stats_enabled
assert not usage_stats_enabled()
"""

# Two machines with a CPU each. After the first shard, what `victim` says is killed.
TWO_MACHINES = """
import os, signal, sys
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
from pixelclip_sdk import segment_archive

photos, out, victim = sys.argv[1:]
machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = machines.add_node(num_cpus=1)
machines.wait_for_nodes()
os.environ["RAY_ADDRESS"] = machines.address


def workers():
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    for process in parents:
        above = process
        while above in parents and above != os.getpid():
            above = parents[above]
        try:
            title = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if above == os.getpid() and title.startswith(b"ray::") and b"MapWorker" in title:
            yield process


killed = []


def progress(now):
    global second
    if killed:
        return
    if victim == "worker":
        killed.extend(workers())
        assert killed
        os.kill(killed[0], signal.SIGKILL)
    else:
        killed.append(second)
        machines.remove_node(second, allow_graceful=False)
        if victim == "machine, replaced":
            second = machines.add_node(num_cpus=1)


done = segment_archive(
    [photos], out, "cat, sofa, grass", shard_size=4, engine="ray", threads=1, progress=progress
)
assert killed
print(done.pictures, done.done, done.failed)
"""


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "results").iterdir()}


def run(code: str, *arguments: object, timeout: float = 280) -> str:
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=known | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_a_cluster_of_one_machine_makes_the_files_of_the_local_engine(archive, tmp_path):
    run(LOCAL, archive, tmp_path)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert (tmp_path / "ray" / "batch.json").read_text() == (tmp_path / "local" / "batch.json").read_text()


@pytest.fixture
def many(tmp_path, photo) -> Path:
    from PIL import Image

    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(80):
        Image.fromarray(photo[i : i + 200, i : i + 300]).save(folder / f"{i}.jpg")
    (folder / "bad.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "machine", "machine, replaced"])
def test_who_dies_costs_time_and_no_picture(many, tmp_path, victim):
    from pixelclip_sdk import segment_archive

    said = run(TWO_MACHINES, many, tmp_path / "ray", victim)
    assert said == "81 81 1\n"
    segment_archive([many], tmp_path / "local", WORDS, shard_size=4)
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
def test_a_killed_run_on_a_cluster_is_continued(many, tmp_path, spawn):
    command = [
        sys.executable,
        "-m",
        "pixelclip_sdk",
        "batch",
        str(many),
        "--classes",
        WORDS,
        "--shard-size",
        "4",
    ]
    process = spawn([*command, "--engine", "ray", "--out", str(tmp_path / "ray")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "ray" / "results").glob("part-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    for engine in ("ray", "local"):
        subprocess.run(
            [*command, "--engine", engine, "--out", str(tmp_path / engine)], check=True, timeout=280
        )
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def node(alive: bool = True, **resources: float) -> dict:
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}


@pytest.mark.parametrize(
    ("machines", "wanted", "expected"),
    [
        ([node(CPU=16), node(CPU=5)], (None, None, False), (2, 10, 0)),
        ([node(CPU=16), node(CPU=1)], (None, None, False), (1, 17, 0)),
        ([node(CPU=16), node(alive=False, CPU=16), node()], (4, None, False), (4, 4, 0)),
        ([node(CPU=16)], (None, 3, False), (2, 3, 0)),
        ([node(CPU=16, GPU=2), node(CPU=16)], (None, None, True), (2, 2, 1)),
    ],
)
def test_actors_fill_the_machines(machines, wanted, expected):
    assert cluster._room(machines, *wanted) == expected


@pytest.mark.parametrize(
    ("machines", "wanted", "message"),
    [
        (
            [node(CPU=2)],
            (4, None, False),
            "no machine of the Ray cluster has 4 CPUs; it has 1 machines with 2",
        ),
        ([node(CPU=4)], (None, None, True), "no machine of the Ray cluster has 2 CPUs and a GPU"),
    ],
)
def test_a_cluster_without_room_is_refused(machines, wanted, message):
    with pytest.raises(BackendUnavailableError, match=message):
        cluster._room(machines, *wanted)


def test_an_address_where_no_cluster_is_does_not_start_one(archive, tmp_path):
    code = (
        "import sys; from pixelclip_sdk.cli.main import main; "
        f"sys.exit(main(['batch', {str(archive)!r}, '--classes', 'cat, sofa', '--engine', 'ray', "
        f"'--out', {str(tmp_path / 'out')!r}]))"
    )
    known = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=known, timeout=100
    )
    assert result.returncode == 1
    assert "the Ray cluster of RAY_ADDRESS=127.0.0.1:1 cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr
