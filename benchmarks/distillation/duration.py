"""How long does a distillation take? ``python benchmarks/distillation/duration.py PHOTOS``.

Times the parts of a training step, with a PixelCLIP ViT-B/16 of random weights as the teacher (the time does
not depend on the weights) and the default student. Processor time: other load on the machine counts little.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.harness.models import random_vit
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.tables import table
from pixelclip_sdk.support.command import run_command
from training.data.photos import Order
from training.distillation.config import DistilConfig
from training.distillation.loss import Distillation
from training.distillation.views import ViewsOfPhotos, join_views
from training.models.student import Student, build_student


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=3)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos")
    options = parser.parse_args()
    config = DistilConfig(images=options.photos, teacher="pixelclip-vit-b16", out=Path("unused"))
    teacher = random_vit()
    about = Student(
        student=config.student, input_size=config.input_size, dim=teacher.dim, teacher=config.teacher
    )
    student, _ = build_student(about, pretrained=True)
    model = Distillation(student, words=None, words_weight=0.0, temperature=config.temperature)
    optimiser = torch.optim.AdamW(student.parameters(), lr=0.0)
    photos = ViewsOfPhotos(
        options.photos,
        student_size=config.input_size,
        teacher_size=(teacher.input.height, teacher.input.width),
        crop=config.crop,
        seed=0,
    )
    order = Order(len(photos), batch=config.batch, parts=1, first=0, last=options.rounds + 1, seed=0)
    seconds: dict[str, list[float]] = {"photos": [], "teacher": [], "student": []}
    for keys in order:
        start = time.process_time()
        views = join_views([photos[key] for key in keys])
        seconds["photos"].append(time.process_time() - start)
        start = time.process_time()
        with torch.no_grad():
            target = teacher.image.encode_image(views.teacher)
        seconds["teacher"].append(time.process_time() - start)
        start = time.process_time()
        model(views.student, target)[0].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds["student"].append(time.process_time() - start)
    # The first round warms up.
    each = {part: 1000 / config.batch * statistics.median(times[1:]) for part, times in seconds.items()}
    each["all"] = sum(each.values())
    print(table([{"part": part, "processor seconds per 1000 photos": value} for part, value in each.items()]))
    shares = {part: value / each["all"] for part, value in each.items()}
    content = {"teacher": "ViT-B/16 at 320×320, random weights", "student": config.student}
    store(
        options.json,
        {**content, "input_size": config.input_size, "cpu_s_per_1000": each, "ratios": shares},
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("duration", main))
