"""Make a smaller model from yours: a small image tower learns a teacher's dense features.

``python training/distil.py --teacher pixelclip-vit-b16 --student lite0 --images PHOTOS --out RUN``

It needs photos, but neither labels nor masks nor words. The student keeps the teacher's text encoder: all of
the teacher's words and vocabularies work with it. The same command continues a stopped run.

Tested on CPUs. CUDA has not been run.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.contrib.logging import logging_redirect_tqdm

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.bundle import misfit
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write, sha256
from pixelclip_sdk.support.signals import stop_signal
from training.data.photos import Order, reading
from training.distillation.config import DistilConfig
from training.distillation.loss import Distillation, solve_head
from training.distillation.views import Views, ViewsOfPhotos, join_views
from training.models.dense import DenseImageEncoder
from training.models.lite.build import class_names
from training.models.load import load_teacher
from training.models.pair import EncoderPair
from training.models.runtime import TorchTextEncoder, embed_texts
from training.models.student import STUDENTS, LiteStudent, Student, build_student, start_from_teacher
from training.models.weights.checkpoints import load_exactly, read_checkpoint
from training.runs import checkpoint, run
from training.runs.config import ConfigError, load_config
from training.runs.errors import TrainingError, last_checkpoint, translate_errors
from training.runs.progress import Progress
from training.support.arguments import read_words
from training.support.devices import torch_device
from training.support.processes import available_cores

__all__ = ["STUDENT_FILE", "distil", "main"]

_log = logging.getLogger("training")

_CONFIG = Path(__file__).parent / "configs" / "distil.yaml"
_MOST_WORKERS = 4  # by default
STUDENT_FILE = "student.json"
"""File in a run's folder that describes the student, for ``export/to_onnx.py --model``."""


def distil(config: DistilConfig) -> Path:
    """Run a distillation to its end, or until a signal stops it.

    Returns the newest weights, for ``export/to_onnx.py --model RUN/student.json --checkpoint``. Raises
    TrainingError if the loss or gradient is not finite or memory ran out, and PixelClipError if the settings,
    photos, teacher or output folder cannot be used.
    """
    saved = checkpoint.newest(config.out)
    if saved is not None:
        run.check_settings(config, saved)
    with translate_errors(config.out):
        return _distil(config, torch_device(config.device), saved)


def _distil(config: DistilConfig, device: torch.device, saved: checkpoint.Saved | None) -> Path:
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32

    # Teacher, student, photos
    teacher = load_teacher(
        config.teacher,
        checkpoint=config.teacher_checkpoint,
        input_size=config.teacher_size,
        offline=config.offline,
    )
    about, image = _student(config, teacher, is_new=saved is None)
    photos = ViewsOfPhotos(
        config.images,
        student_size=config.input_size,
        teacher_size=(teacher.input.height, teacher.input.width),
        crop=config.crop,
        seed=config.seed,
    )
    inputs = {
        "photos": {"count": len(photos), "sha256": photos.digest()},
        "teacher": [dict(source) for source in teacher.sources],
        "start": sha256(config.checkpoint) if config.checkpoint else None,
    }
    if saved is not None:
        _check_inputs(config, inputs, saved)
    teacher.image.to(device).eval().requires_grad_(False)
    model = Distillation(
        image, words=_words(config, teacher), words_weight=config.words_weight, temperature=config.temperature
    ).to(device)
    trained = [p for name, p in image.named_parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=False)  # part of a run's state
    first = 0
    if saved is not None:
        run.restore(model, optimiser, scaler, saved)
        first = saved.step
        _log.info("continuing from step %d of %s", first, config.out)

    def save(step: int) -> None:
        checkpoint.save(
            config.out,
            step,
            weights=image.state_dict(),
            state=run.state_of(model, optimiser),
            notes={"config": run.plain_settings(config), "scaler": {}, **inputs},
            keep=config.keep,
        )

    # The head
    workers = min(available_cores(), _MOST_WORKERS) if config.workers is None else config.workers
    _log.info(
        "%d photos, %d trained parameters of %s, teacher %s, %d steps of %d on %s",
        *(len(photos), sum(p.numel() for p in trained), config.student, teacher.name),
        *(config.steps, config.batch, device.type),
    )

    def batches(first: int, last: int, seed: int) -> contextlib.AbstractContextManager[Iterator[Views]]:
        order = Order(len(photos), batch=config.batch, parts=1, first=first, last=last, seed=seed)
        pin = device.type == "cuda"
        return reading(photos, order, workers=workers, pin_memory=pin, join=join_views)

    def pairs(views: Iterator[Views]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in views:
            batch = batch.to(device)
            yield batch.student, _features(teacher, batch.teacher)

    if saved is None:
        config.out.mkdir(parents=True, exist_ok=True)
        with atomic_write(config.out / STUDENT_FILE) as temporary:
            temporary.write_text(about.to_json(), encoding="utf-8")
        if config.closed_form and config.checkpoint is None and isinstance(image, LiteStudent):
            count = math.ceil(config.closed_form / config.batch)
            with batches(0, count, config.seed + 1) as views:
                solve_head(image, pairs(views), _class_points(teacher).to(device))
            _log.info("the head is solved on %d photos", count * config.batch)
        save(0)

    # Steps
    last = first
    with (
        contextlib.closing(Progress(config, first)) as progress,
        batches(first, config.steps, config.seed) as views,
        stop_signal() as stopped,
        logging_redirect_tqdm(),
    ):
        for step in range(first, config.steps):
            rate = learning_rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = next(views).to(device)
            progress.report_skipped(batch.skipped)
            loss, parts = model(batch.student, _features(teacher, batch.teacher))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
            if not (loss.isfinite() & norm.isfinite()):
                raise TrainingError(
                    f"step {step + 1}: the loss is {float(loss.detach())}, the gradient norm {float(norm)}. "
                    f"Photos of this batch: {', '.join(batch.names)}. No weight was changed. "
                    f"{last_checkpoint(config.out)} Check the photos, or lower lr."
                )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            done = step + 1
            progress.report_step(done, {"loss": loss.detach(), "norm": norm, **parts}, {"lr": rate})
            stop = stopped()
            if stop or done % config.save_every == 0 or done == config.steps:
                save(done)
                last = done
            if stop and done < config.steps:
                _log.warning("stopped by a signal after step %d; the same command continues from there", done)
                break
    return checkpoint.weights_file(config.out, last)


def _student(
    config: DistilConfig, teacher: EncoderPair, *, is_new: bool
) -> tuple[Student, LiteStudent | DenseImageEncoder]:
    """Build the student with the weights that a new run starts from, and mark what is trained."""
    about = Student(
        student=str(Path(config.student).resolve()) if config.student.endswith(".json") else config.student,
        input_size=config.input_size,
        dim=teacher.dim,
        teacher=str(Path(config.teacher).resolve()) if Path(config.teacher).exists() else config.teacher,
        teacher_checkpoint=str(config.teacher_checkpoint.resolve()) if config.teacher_checkpoint else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        image, start = build_student(about, pretrained=is_new and config.checkpoint is None)
    stride = image.trunk.stride if isinstance(image, LiteStudent) else image.tower.stride
    if problem := misfit(config.input_size, stride):
        raise ConfigError(f"input_size: {problem}")
    about = dataclasses.replace(about, start=start)
    is_vit = isinstance(image, DenseImageEncoder)
    if is_new and is_vit and config.checkpoint is None and start_from_teacher(image, teacher.image):
        _log.info("the student starts from its teacher's weights")
    if is_new and config.checkpoint is not None:
        weights = read_checkpoint(config.checkpoint)
        load_exactly(image, weights, source=config.checkpoint.name, what=f"a student {config.student}")
    for name, parameter in image.named_parameters():
        parameter.requires_grad_(re.search(config.trainable, name) is not None)
    if not any(parameter.requires_grad for parameter in image.parameters()):
        names = ", ".join(itertools.islice((name for name, _ in image.named_parameters()), 3))
        raise ConfigError(
            f"trainable is {config.trainable!r}, which matches no parameter of {config.student}; "
            f"its names are such as {names}"
        )
    return about, image.to(memory_format=torch.channels_last)


def _words(config: DistilConfig, teacher: EncoderPair) -> Tensor | None:
    """Embed the words with the teacher's text encoder: float32 `[K, D]`, unit rows."""
    words = read_words(config.words)
    if not words or not config.words_weight:
        return None
    return torch.from_numpy(Vocabulary.encode(words, TorchTextEncoder(teacher)).embeddings.copy())


@torch.no_grad()
def _class_points(teacher: EncoderPair) -> Tensor:
    """Embed the names of ImageNet's classes with the teacher's text encoder: `[1000, D]`, unit rows."""
    texts = [teacher.templates[-1].format(name) for name in class_names()]
    return embed_texts(teacher.text, teacher.tokenizer, teacher.text_inputs, texts).cpu()


@torch.no_grad()
def _features(teacher: EncoderPair, images: Tensor) -> Tensor:
    """Return the teacher's features of uint8 images `[N, H, W, 3]`: `[N, h, w, D]`."""
    return teacher.image.encode_image(images)


def learning_rate(config: DistilConfig, step: int) -> float:
    """Return the learning rate of a step: a linear warm-up over a twentieth of the steps, then a cosine."""
    share = (1 + math.cos(math.pi * step / config.steps)) / 2
    warm = min((step + 1) / (0.05 * config.steps), 1)
    return config.lr * warm * (config.lr_final + (1 - config.lr_final) * share)


def _check_inputs(config: DistilConfig, inputs: Mapping[str, Any], saved: checkpoint.Saved) -> None:
    """Raise ConfigError unless photos, teacher and start weights are those of the saved run."""
    now = json.loads(json.dumps(inputs))
    what = {
        "photos": f"other photos than those in {config.images}",
        "teacher": f"another teacher than {config.teacher}",
        "start": f"other start weights than {config.checkpoint}",
    }
    for name, problem in what.items():
        if saved.notes[name] != now[name]:
            raise ConfigError(
                f"{config.out} holds a run with {problem}. Restore them, or give another out=FOLDER to start "
                "a new run."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 130 if a signal stopped the run before its end."""
    parser = argparse.ArgumentParser(prog="distil.py", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--teacher", metavar="BUNDLE|MODEL", help="bundle (name or folder), or a model's name")
    add("--student", metavar="NAME", help=f"{', '.join(STUDENTS)}, or a JSON file with a vision_cfg")
    add("--images", metavar="DIR", help="folder of photos, with subfolders")
    add("--out", metavar="RUN", help="folder for checkpoints and logs")
    add("--config", type=Path, default=_CONFIG, metavar="FILE", help="settings, YAML (default: %(default)s)")
    add("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    options = parser.parse_args(arguments)
    given = [(name, getattr(options, name)) for name in ("teacher", "student", "images", "out")]
    overrides = [f"{name}={value}" for name, value in given if value is not None] + options.overrides
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command(
        "distil",
        lambda: _run(load_config(options.config, overrides, DistilConfig)),
        interrupted="saved checkpoints are unchanged",
    )


def _run(config: DistilConfig) -> int:
    weights = distil(config)
    if weights != checkpoint.weights_file(config.out, config.steps):
        print(f"distil.py: stopped; the same command continues from {weights}", file=sys.stderr)
        return 130
    student = config.out / STUDENT_FILE
    print(f"weights: {weights}")
    print(f"export: python export/to_onnx.py --model {student} --checkpoint {weights} --out BUNDLE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
