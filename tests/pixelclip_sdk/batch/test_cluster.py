"""Ray: real clusters on this machine. The results are those of the local engine, whoever dies."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from batch_runs import batch_command, files, kill_after_a_shard

from pixelclip_sdk import BackendError, BackendUnavailableError, BundleError
from pixelclip_sdk.batch import cluster
from pixelclip_sdk.batch.inputs import find_pictures
from pixelclip_sdk.batch.job import Job, Shard
from pixelclip_sdk.batch.local import segment_here

pytest.importorskip("ray")
arrow = pytest.importorskip("pyarrow")
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

# Two machines with a CPU each, and the command. After the first shard, what `victim` says is killed.
TWO_MACHINES = """
import os, signal, subprocess, sys, time
from pathlib import Path
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"
from ray.cluster_utils import Cluster

photos, out, victim = sys.argv[1:]
machines = Cluster()


def add_machine(**options):
    for _ in range(5):  # On a busy machine a node does not always start in the 30 s that Ray gives it.
        try:
            return machines.add_node(num_cpus=1, **options)
        except Exception as error:
            print(error, file=sys.stderr)


add_machine(include_dashboard=False)
second = add_machine()
machines.wait_for_nodes()


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


command = [sys.executable, "-m", "pixelclip_sdk", "batch", photos, "--classes", "cat, sofa, grass"]
command += ["--out", out, "--shard-size", "4", "--json", "--engine", "ray", "--threads", "1"]
with subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": machines.address}) as process:
    while not list(Path(out).glob("results/part-*")):
        assert process.poll() is None
        time.sleep(0.01)
    if victim == "worker":
        os.kill(next(workers()), signal.SIGKILL)
    else:
        machines.remove_node(second, allow_graceful=False)
    assert process.poll() is None
    if victim == "machine, replaced":
        assert add_machine()
sys.exit(process.returncode)
"""

# The worker that has the first shard dies, each time.
POISON = """
import os, pickle, sys
from pixelclip_sdk import BackendError, segment_archive
from pixelclip_sdk.batch import cluster

class Dies(cluster.ShardActor):
    def __call__(self, batch):
        if any(pickle.loads(content).number == 0 for content in batch["shard"].to_pylist()):
            os._exit(1)
        return super().__call__(batch)

cluster.ShardActor = Dies
try:
    segment_archive([sys.argv[1]], sys.argv[2], "cat, sofa", shard_size=3, engine="ray", threads=1)
except BackendError as error:
    print(error)
"""


def run(code: str, *arguments: object, timeout: float = 500) -> str:
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=known | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[:4000] + result.stderr[-4000:]
    return result.stdout


def in_actor(job: Job, shards: list[Shard]) -> list:
    """What an actor makes of shards: they and the job go through pickle, as from machine to machine."""
    actor = cluster.ShardActor(pickle.loads(pickle.dumps(job)), threads=2)
    made = actor(arrow.table({"shard": [pickle.dumps(shard) for shard in shards]}))
    return [pickle.loads(content) for content in made["result"].to_pylist()]


@pytest.fixture
def shards(archive) -> list[Shard]:
    pictures = find_pictures([str(archive)])
    return [Shard(0, pictures[:3], frozenset()), Shard(7, pictures[3:], frozenset())]


def test_an_actor_makes_the_rows_of_the_local_engine(shards, lite):
    lite.set_classes(WORDS)
    job = Job.of(lite, "pixelclip-lite", {"backend": lite.backend}, "parquet")
    expected = list(segment_here(job, lite, shards, 2))
    found = in_actor(job, shards)
    assert [result.number for result in found] == [0, 7]
    for one, other in zip(found, expected, strict=True):
        assert [done._replace(timings={}) for done in one.done] == [
            done._replace(timings={}) for done in other.done
        ]


def test_an_error_of_an_actor_keeps_its_kind(shards, lite):
    lite.set_classes(WORDS)
    job = Job.of(lite, "pixelclip-lite", {}, "parquet")
    (error,) = in_actor(dataclasses.replace(job, model_hash="of another model"), shards)
    assert isinstance(error, BundleError)
    assert "another" in str(error)
    (error,) = in_actor(dataclasses.replace(job, options={"surprise": 1}), shards)
    assert isinstance(error, BackendError)
    assert "a worker of the Ray cluster failed: TypeError" in str(error)


@pytest.mark.slow
@pytest.mark.timeout(600)
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
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["worker", "machine", "machine, replaced"])
def test_who_dies_costs_time_and_no_picture(many, tmp_path, victim):
    from pixelclip_sdk import segment_archive

    said = json.loads(run(TWO_MACHINES, many, tmp_path / "ray", victim))
    assert (said["pictures"], said["done"], said["failed"]) == (81, 81, 1)
    segment_archive([many], tmp_path / "local", WORDS, shard_size=4)
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_shard_that_kills_each_worker_ends_the_run_when_the_others_are_done(archive, tmp_path):
    said = run(POISON, archive, tmp_path / "ray")
    assert "failed 3 times in a row for 1 shards" in said
    assert f"from {archive / '0.png'} to {archive / '2.png'}: its workers died" in said
    assert sorted(files(tmp_path / "ray")) == ["part-00001.parquet", "part-00002.parquet"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_on_a_cluster_is_continued(many, tmp_path, spawn):
    command = batch_command(many, WORDS)
    kill_after_a_shard(spawn, [*command, "--engine", "ray"], tmp_path / "ray", 200)
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
        [sys.executable, "-c", code], capture_output=True, text=True, env=known, timeout=250
    )
    assert result.returncode == 1
    assert "the Ray cluster of RAY_ADDRESS=127.0.0.1:1 cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr
