"""The command, in processes of its own where that is the point."""

import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from toy_photos import write_photos

import training
from training.data.photos import reading
from training.method.pixelclip import PixelCLIP
from training.models.weights.checkpoints import load_into, read_checkpoint
from training.runs.config import load_config
from training.runs.progress import Progress
from training.runs.run import assemble
from training.support.processes import available_cores
from training.train import TrainingError, _combine, learning_rates, main, train

TRAINING = Path(training.__file__).parent
TINY = TRAINING / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    images, masks = write_photos(tmp_path_factory.mktemp("photos"), 6)
    return [f"images={images}", f"masks={masks}"]


def settings(photos, out, *more, config=TINY):
    return ["--config", str(config), *photos, f"out={out}", *more]


def start(photos, out, *more, agent=(), **environment):
    """Starts a run, with options of torchrun under torchrun."""
    command = [sys.executable]
    if agent:
        command += ["-m", "torch.distributed.run", *agent]
    return subprocess.Popen(
        [*command, str(TRAINING / "train.py"), *settings(photos, out, *more)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def finish(process):
    """Waits for a run, which must end well; returns what it said."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def lines(out):
    file = out / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(out, count, process):
    for _ in range(12_000):
        if len(lines(out)) >= count:
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def tensors(out, step, kind):
    return load_file(out / f"step-{step:08d}.{kind}.safetensors")


def assert_equal_runs(one, other, step):
    for kind in ("weights", "state"):
        first, second = tensors(one, step, kind), tensors(other, step, kind)
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A run from beginning to end, in a process of its own as those it is compared with."""
    out = tmp_path_factory.mktemp("whole")
    finish(start(photos, out))
    return out


def test_a_run_ends_with_weights_that_fit_their_model(whole):
    assert [line["step"] for line in lines(whole)] == [1, 2, 3, 4, 5, 6]
    assert list((whole / "tensorboard").glob("events.*"))
    weights = read_checkpoint(whole / "step-00000006.weights.safetensors")
    content = json.loads((TRAINING / "configs" / "tiny.json").read_text())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**content)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_into(model, weights, source="run") == []
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(n.startswith("visual.") and (".attn." in n or "positional" in n) for n in changed)
    teacher = {n: v for n, v in tensors(whole, 6, "state").items() if n.startswith("model.teacher.encoder.")}
    student = tensors(whole, 6, "state")
    moved = "tower.visual.positional_embedding"
    start, now = before["visual.positional_embedding"], student[f"model.student.{moved}"]
    follows = teacher[f"model.teacher.encoder.{moved}"]
    assert 0 < (follows - start).norm() < 0.05 * (now - start).norm()


def test_tensorboard_gets_what_the_log_gets(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole / "tensorboard")).Reload()
    log = lines(whole)
    assert set(board.Tags()["scalars"]) == set(log[0]) - {"step"}
    for name in ("loss", "norm", "masks", "clusters", "margin", "lr_decoder", "lr_encoder", "lr_prompts"):
        curve = [(event.step, event.value) for event in board.Scalars(name)]
        assert curve == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in log]
    # tiny.yaml's, at the step's beginning; a cosine to the half of it
    assert log[0]["lr_encoder"] == 1e-4
    assert log[3]["lr_prompts"] == pytest.approx(2e-3 * 0.75)


def test_killed_anywhere_and_resumed_it_ends_the_same(photos, whole, tmp_path):
    at = random.randint(1, 4)
    process = start(photos, tmp_path)
    wait_for(tmp_path, at, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "step-00000006.json").exists()
    finish(start(photos, tmp_path, "workers=2"))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert_equal_runs(tmp_path, whole, 6)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_signal_saves_and_says_that_it_is_not_done(photos, whole, tmp_path, number):
    process = start(photos, tmp_path, "save_every=100")
    wait_for(tmp_path, 2, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said  # not 0: what comes after it would take half a run for a whole
    assert "stopped by a signal after step" in said
    done = lines(tmp_path)[-1]["step"]
    assert 2 <= done < 6
    assert (tmp_path / f"step-{done:08d}.json").exists()
    said = finish(start(photos, tmp_path, "save_every=100"))
    assert f"continuing from step {done}" in said
    assert_equal_runs(tmp_path, whole, 6)


def test_two_processes_train_as_one(photos, whole, tmp_path):
    finish(start(photos, tmp_path, agent=["--standalone", "--nproc-per-node", "2"]))
    assert_alike(whole, tmp_path)


def assert_alike(whole, shared):
    for one, two in zip(lines(whole), lines(shared), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["masks"] == one["masks"]
        assert two["margin"] == pytest.approx(one["margin"], rel=1e-3)
        assert two["clusters"] == pytest.approx(one["clusters"])
        assert two["norm"] == pytest.approx(one["norm"], rel=1e-3)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start_two_processes(photos, out, *more):
    """As torchrun starts them, without its agent, which ends one when the other has failed."""
    meet = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    return [start(photos, out, *more, RANK=rank, **meet) for rank in "01"]


def test_a_checkpoint_that_cannot_be_saved_stops_all_processes(photos, tmp_path):
    (tmp_path / "step-00000002.weights.safetensors").mkdir()
    processes = start_two_processes(photos, tmp_path)
    first, second = (process.communicate(timeout=300)[1] for process in processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert "train.py: cannot write" in first
    assert "train.py: the first process could not save step 2" in second
    assert "Traceback" not in first + second


def test_a_process_whose_peer_died_says_so(photos, tmp_path):
    killed, left = start_two_processes(photos, tmp_path, "steps=100000")
    wait_for(tmp_path, 3, killed)
    killed.kill()
    killed.communicate()
    said = left.communicate(timeout=300)[1]
    assert left.returncode == 1
    assert "train.py: another process of the training ended" in said
    assert "The last checkpoint is" in said
    assert "Traceback" not in said


def start_two_machines(photos, out, *more):
    """Two agents of torchrun, which meet as those of two machines do; `more` is for the second alone."""
    agent = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    agent += ["--rdzv-id", "run", "--local-addr", "localhost"]
    return [start(photos, out, *last, agent=agent) for last in ((), more)]


@pytest.mark.slow
def test_two_machines_train_as_one(photos, whole, tmp_path):
    for agent in start_two_machines(photos, tmp_path / "run"):
        finish(agent)
    assert_alike(whole, tmp_path / "run")


@pytest.mark.slow
def test_two_machines_on_plain_ports_equal_two_processes_of_one(photos, tmp_path):
    """With the commands of docs/training.md, which name the rank of each machine; equal to the bit."""
    one = tmp_path / "one"
    finish(start(photos, one, agent=["--standalone", "--nproc-per-node", "2"]))
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "localhost"]
    meet += ["--master-port", str(free_port())]
    agents = [start(photos, tmp_path / "two", agent=[*meet, "--node-rank", rank]) for rank in "01"]
    for agent in agents:
        finish(agent)
    assert_equal_runs(one, tmp_path / "two", 6)
    kept = ("loss", "norm", "masks", "margin", "clusters")
    one_log, two_log = (
        [[line[name] for name in kept] for line in lines(tmp_path / n)] for n in ("one", "two")
    )
    assert one_log == two_log


@pytest.mark.slow
def test_machines_that_see_other_photos_stop_and_say_so(photos, tmp_path):
    images, masks = write_photos(tmp_path, 5)
    agents = start_two_machines(photos, tmp_path / "run", f"images={images}", f"masks={masks}")
    said = [agent.communicate(timeout=300)[1] for agent in agents]
    assert all(agent.returncode for agent in agents)
    for text, count in zip(said, (6, 5), strict=True):
        assert f"the processes found different photos with masks; this one found {count}" in text
    assert not list((tmp_path / "run").glob("step-*"))


def test_the_log_has_all_parts_of_a_step(photos, whole, tmp_path):
    assert main(settings(photos, tmp_path, "accumulate=2", "steps=1")) == 0
    assert lines(tmp_path)[0]["masks"] == lines(whole)[0]["masks"]
    parts = [{"masks": torch.tensor(m), "margin": torch.tensor(v)} for m, v in ((2.0, 1.0), (4.0, 2.0))]
    assert _combine(parts) == {"masks": 6, "margin": 1.5}


def test_accumulated_parts_and_half_precision_run(photos, tmp_path):
    for precision in ("bf16", "fp16"):
        out = tmp_path / precision
        assert main(settings(photos, out, "accumulate=2", "steps=2", f"precision={precision}")) == 0
        losses = [line["loss"] for line in lines(out)]
        assert len(losses) == 2
        assert all(0.3 < loss < 1.5 for loss in losses)


def test_a_loss_that_is_not_finite_stops_the_run(photos, tmp_path):
    config = load_config(
        TINY, [*photos, f"out={tmp_path}", "lr_encoder=1e36", "clip_norm=1e9", "save_every=1"]
    )
    with pytest.raises(TrainingError, match=r"step \d: the loss is .*a/0\d.png.*The last checkpoint is"):
        train(config)
    saved = sorted(tmp_path.glob("*.json"))
    assert saved
    assert all(
        value.isfinite().all() for value in load_file(saved[0].with_suffix(".weights.safetensors")).values()
    )


def test_fp16_that_leaves_out_every_step_stops_the_run(photos, tmp_path, monkeypatch, capsys):
    def without_gradient(*given):
        model = assemble(*given)
        next(model.decoder.parameters()).register_hook(lambda gradient: gradient * torch.nan)
        return model

    monkeypatch.setattr("training.runs.run.assemble", without_gradient)
    assert main(settings(photos, tmp_path, "precision=fp16", "steps=40")) == 1
    assert "train.py: step 17: the gradient is not finite in fp16" in capsys.readouterr().err


def test_a_reading_process_that_is_killed_ends_the_run_in_a_line(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "report_step", lambda *_: multiprocessing.active_children()[0].kill())
    assert main(settings(photos, tmp_path, "workers=1", "steps=100")) == 1
    assert "train.py: a process that loads photos was killed" in capsys.readouterr().err


def test_too_little_memory_ends_the_run_in_a_line(begun, monkeypatch, capsys):
    """Raised by hand: only a GPU's memory runs out in this way."""

    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(PixelCLIP, "forward", forward)
    assert main(settings([f"images={begun / 'images'}", f"masks={begun / 'masks'}"], begun / "run")) == 1
    said = capsys.readouterr().err
    assert "train.py: out of memory: use more processes" in said
    assert "step-00000002.weights.safetensors; the same command continues" in said


def test_other_settings_do_not_continue_a_run(photos, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        for name in ("train.MaskedPhotos", "runs.run.starting_point"):  # refused before anything is loaded
            patch.setattr(f"training.{name}", None)
        assert main(settings(photos, whole, "seed=1", "workers=1")) == 1
        assert "seed was 0 and is 1. Use the old values" in capsys.readouterr().err
        assert main(settings(photos, whole, "steps=7", "workers=1")) == 1
        said = capsys.readouterr().err
    assert "steps was 6 and is 7" in said
    assert f"checkpoint={whole / 'step-00000006.weights.safetensors'} out=FOLDER" in said
    assert main(settings(photos, whole, "workers=1")) == 0  # nothing left to do
    assert "step-00000006.weights" in capsys.readouterr().out


def test_the_default_number_of_workers_fits_the_machine(photos, tmp_path, monkeypatch):
    """Torch warns about more workers than cores, and warnings are errors here."""
    taken = []

    def note(*given, workers, pin_memory):
        taken.append(workers)
        return reading(*given, workers=workers, pin_memory=pin_memory)

    monkeypatch.setattr("training.train.reading", note)
    train(load_config(TINY, [*photos, f"out={tmp_path}", "steps=1", "workers=null"]))
    assert taken == [min(available_cores(), 4)]


@pytest.fixture
def begun(tmp_path):
    """Photos of its own, and a run over them that was stopped after two of six steps."""
    images, masks = write_photos(tmp_path, 6)
    run = tmp_path / "run"
    assert main(settings([f"images={images}", f"masks={masks}"], run, "steps=2")) == 0
    notes = json.loads((run / "step-00000002.json").read_text())
    notes["config"]["steps"] = 6
    (run / "step-00000002.json").write_text(json.dumps(notes))
    return tmp_path


def test_moved_photos_and_masks_are_the_same_run(begun):
    (begun / "images").rename(begun / "photos")
    (begun / "masks").rename(begun / "regions")
    assert main(settings([f"images={begun / 'photos'}", f"masks={begun / 'regions'}"], begun / "run")) == 0
    assert [line["step"] for line in lines(begun / "run")] == [1, 2, 3, 4, 5, 6]


def test_other_photos_do_not_go_on_with_a_run(begun, capsys):
    """A photo less, and one of another name: the order of the samples would be another."""
    places = [f"images={begun / 'images'}", f"masks={begun / 'masks'}"]
    photo = begun / "images" / "a" / "03.png"
    kept = photo.read_bytes()
    photo.unlink()
    assert main(settings(places, begun / "run")) == 1
    said = capsys.readouterr().err
    assert f"{begun / 'run'} holds a run over 6 photos with masks" in said
    assert "has 5, or other names" in said
    photo.write_bytes(kept)
    for folder, suffix in (("images", "png"), ("masks", "npz")):
        (begun / folder / "a" / f"03.{suffix}").rename(begun / folder / "a" / f"31.{suffix}")
    assert main(settings(places, begun / "run")) == 1
    assert "has 6, or other names" in capsys.readouterr().err


def test_start_weights_may_move_but_not_change(photos, whole, tmp_path, monkeypatch, capsys):
    first, second = (whole / f"step-0000000{step}.weights.safetensors" for step in (4, 6))
    run = settings(photos, tmp_path / "run", "random_weights=false", "steps=1")
    start = Path(shutil.copy(first, tmp_path / "start.safetensors"))
    assert main([*run, f"checkpoint={start}"]) == 0
    moved = start.rename(tmp_path / "moved.safetensors")
    monkeypatch.chdir(tmp_path)
    assert main([*run, "checkpoint=moved.safetensors"]) == 0
    shutil.copy(second, moved)
    capsys.readouterr()
    assert main([*run, "checkpoint=moved.safetensors"]) == 1
    assert "holds a run with other start weights than moved.safetensors" in capsys.readouterr().err


def test_broken_files_are_skipped_counted_and_named(tmp_path, caplog):
    images, masks = write_photos(tmp_path, 6)
    photo, regions = images / "a" / "01.png", masks / "a" / "04.npz"
    photo.write_bytes(photo.read_bytes()[:200])
    regions.write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING):
        assert main(settings([f"images={images}", f"masks={masks}"], tmp_path / "run")) == 0
    said = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(said) == 2  # each once, though every epoch meets them
    for count, message in enumerate(said, start=1):
        assert message.startswith(f"skipped, {count} so far: ")
    assert {file for file in (photo, regions) if any(str(file) in message for message in said)} == {
        photo,
        regions,
    }
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_stops_the_run_and_its_last_checkpoint_goes_on(begun, capsys):
    """A limit on the size of files: the system then refuses to write, as on a full disk."""
    places, run = [f"images={begun / 'images'}", f"masks={begun / 'masks'}"], begun / "run"
    before = {file.name: file.read_bytes() for file in run.glob("step-*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(settings(places, run)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert "train.py: cannot write" in said
    assert "step-00000004.weights.safetensors: File too large" in said
    assert {file.name: file.read_bytes() for file in run.glob("step-*")} == before
    assert not list(run.glob(".*"))
    assert main(settings(places, run)) == 0
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    assert tensors(run, 6, "weights")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("accumulate=3", "multiple of accumulate"),
        ("input_size=70", "takes multiples of 16"),
        ("model=pixelclip-lit", "Did you mean 'pixelclip-lite'"),
        ("random_weights=false", "has no weights of its own"),
        ("images=nowhere", "nowhere is no folder"),
        ("stepps=3", "Did you mean steps"),
        pytest.param(
            *("device=cuda", "finds no GPU"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_input_is_said_in_a_line(photos, tmp_path, capsys, change, message):
    assert main(settings(photos, tmp_path, change)) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("train.py: ")


def test_the_schedule_is_the_paper_s(photos):
    config = load_config(TRAINING / "configs" / "vit-b16.yaml", [*photos, "out=x"])
    groups = [{"name": n, "params": [torch.zeros(1)]} for n in ("decoder", "encoder", "prompts")]
    optimiser = torch.optim.AdamW(groups)
    assert learning_rates(config, optimiser, 0) == pytest.approx([2e-4, 2e-6, 2e-3])
    assert learning_rates(config, optimiser, 5000) == pytest.approx([1.5e-4, 1.5e-6, 1.5e-3])
    assert learning_rates(config, optimiser, 10_000) == pytest.approx([1e-4, 1e-6, 1e-3])


def test_lite_takes_a_step_and_its_weights_fit(photos, tmp_path):
    from training.models.load import load_model

    config = TRAINING / "configs" / "pixelclip-lite.yaml"
    more = ["batch=2", "steps=1", "input_size=96", "mask_size=24", "workers=0", "device=cpu"]
    assert main(settings(photos, tmp_path, *more, config=config)) == 0
    file = tmp_path / "step-00000001.weights.safetensors"
    tuned, base = load_model("pixelclip-lite", checkpoint=file), load_model("pixelclip-lite-start")
    before = base.image.state_dict()
    changed = {n for n, value in tuned.image.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert all(name.startswith("ridge") for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit-b16", "vit-b16-dino", "convnext-b", "convnext-b-dino"])
def test_the_paper_s_models_take_a_step(photos, tmp_path, name):
    """With seeded random weights: the real ones cannot be downloaded where the tests run."""
    config = TRAINING / "configs" / f"{name}.yaml"
    more = ["random_weights=true", "steps=1", "batch=1", "workers=0", "device=cpu", "log_every=1"]
    assert main(settings(photos, tmp_path, *more, config=config)) == 0
    (line,) = lines(tmp_path)
    assert 0.3 < line["loss"] < 1.5
    assert line["masks"] > 1
