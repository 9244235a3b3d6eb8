"""How much labels flicker with and without smoothing, and what smoothing costs.

``python benchmarks/flicker.py --videos DIR --objects DIR --camvid DIR`` measures, with the recommended
smoothing, that of ``--smooth`` and without:

* flicker: the share of pixels whose label changes between neighbouring frames, among those whose grey value
  changes by less than 6 of 255; twelve words, the first 80 frames of each video, mean of frames, then videos
* lag: objects cut out of photos move over a photo; how many frames the centre of their label is behind that
  of the labels without smoothing
* the mIoU on CamVid's validation frames, a drive at 15 frames a second, in order
* milliseconds of smoothing a frame
"""

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.harness import tables
from benchmarks.harness.photos import PHOTOS
from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import PixelClipError, Segmentation, Segmenter, class_list
from pixelclip_sdk.image import load_image
from pixelclip_sdk.smoothing import AUTO_S, Smooth
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images, open_image_file
from pixelclip_sdk.video.sources import open_source
from training.evaluation.datasets import load_dataset
from training.evaluation.metrics import IGNORE_INDEX, Confusion

WORDS = "person, dog, car, chair, table, cup, bed, floor, wall, window, tree, road"
_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm"}
_FRAMES = 80
_SAME_GREY = 6
_FPS = 30
_CAMVID_FPS = 30  # The number in a file's name counts frames of this rate.

_MOVING = ("cat", "cow", "dog", "horse", "person", "sheep")
_SCENE = ("cup", "table", "wall", "floor")
_STAGE = (400, 640)  # Height and width of the picture that objects move over.
_OBJECT_SIDES = (120, 330)
_OBJECTS = 12
_STEPS_PX = (4, 12)  # A frame.
_MOVES = 40
_NOISE = 2.0  # Standard deviation, of 255.
_FOUND = 0.4  # Objects whose label covers less than this share of them without smoothing are left out.
_SETTLED = 5  # Frames at the start that do not count.

Frames = Sequence[tuple[float, Any]]
Labels = npt.NDArray[np.unsignedinteger]


def flicker(labels: Sequence[Labels], greys: Sequence[npt.NDArray[np.uint8]]) -> float:
    """Returns the share of still pixels whose label changes, 0–1; the mean over pairs of neighbouring frames.

    Labels and grey values are `(H, W)` each.
    """
    shares = []
    for (before, after), (dark, bright) in zip(
        itertools.pairwise(labels), itertools.pairwise(greys), strict=True
    ):
        still = np.abs(dark.astype(np.int16) - bright) < _SAME_GREY
        shares.append(np.count_nonzero((before != after) & still) / max(np.count_nonzero(still), 1))
    return float(np.mean(shares))


def read_video(path: Path, count: int) -> list[tuple[float, npt.NDArray[np.uint8]]]:
    """Returns times in seconds and pictures `(H, W, 3)` of the first frames of a video."""
    with contextlib.closing(open_source(path)) as source:
        return [(frame.time_s or 0.0, frame.image) for frame in itertools.islice(source, count)]


class MovingObject(NamedTuple):
    """An object that was cut out of a photo: its pixels `(H, W, 3)`, where it is `(H, W)`, and its name."""

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    name: str

    def frames(self, background: npt.NDArray[np.uint8], step: int) -> Frames:
        """Returns times and frames: the object moves to the right by `step` pixels a frame, with noise."""
        rng = np.random.default_rng(0)
        height, width = self.mask.shape
        moves = min(_MOVES, (background.shape[1] - width) // step)
        frames = []
        for i in range(moves):
            frame = background.copy()
            part = frame[40 : 40 + height, i * step : i * step + width]
            part[self.mask] = self.pixels[self.mask]
            noisy = np.clip(frame + rng.normal(0, _NOISE, frame.shape), 0, 255)
            frames.append((i / _FPS, noisy.astype(np.uint8)))
        return frames

    def coverage(self, labels: Labels, label: int, left: int) -> float:
        """Returns the share of the object's pixels that have a label, with the object at column `left`."""
        height, width = self.mask.shape
        return float((labels[40 : 40 + height, left : left + width][self.mask] == label).mean())


def cut_out(folder: Path) -> Iterator[MovingObject]:
    """Yields objects of photos of `folder/images` with VOC's label ids in `folder/labels`."""
    names = list(class_list("voc-20"))
    for photo in find_images(folder / "images"):
        label = load_labels(folder / "labels" / f"{photo.stem}.png")
        ids, areas = np.unique(label[(label > 0) & (label < IGNORE_INDEX)], return_counts=True)
        if not len(ids) or names[(largest := int(ids[areas.argmax()])) - 1] not in _MOVING:
            continue
        rows, columns = np.nonzero(label == largest)
        box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        mask = label[box] == largest
        if all(_OBJECT_SIDES[0] < side < _OBJECT_SIDES[1] for side in mask.shape):
            yield MovingObject(load_image(photo)[box], mask, names[largest - 1])


def load_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Returns the label ids of a PNG file, `(H, W)`."""
    with open_image_file(path) as picture:
        return np.asarray(picture)


def centre(labels: Labels, label: int) -> float:
    """Returns the mean column of the pixels with a label."""
    columns = np.nonzero(labels == label)[1]
    return float(columns.mean()) if len(columns) else float("nan")


def segmented(segmenter: Segmenter, frames: Frames, smooth: Smooth) -> list[Segmentation]:
    """Returns the results of a stream."""
    return list(segmenter.stream(frames, smooth=smooth))


def measure_flicker(
    segmenter: Segmenter, videos: Sequence[Path], count: int, settings: Sequence[Smooth]
) -> tuple[list[dict[str, Any]], dict[Smooth, list[float]]]:
    """Returns the flicker of every video by setting, and milliseconds of smoothing by setting."""
    segmenter.set_classes(WORDS)
    rows: list[dict[str, Any]] = []
    times: dict[Smooth, list[float]] = {setting: [] for setting in settings if setting}
    for video in videos:
        frames = read_video(video, count)
        greys = [np.asarray(Image.fromarray(picture).convert("L")) for _, picture in frames]
        row: dict[str, Any] = {"video": video.name, "frames": len(frames)}
        for setting in settings:
            labels = []
            for result in segmenter.stream(frames, smooth=setting):
                labels.append(result.labels)
                if setting:
                    times[setting].append(result.speed["smooth"])
            row[heading(setting)] = flicker(labels, greys)
        rows.append(row)
        print(tables.table([row]), file=sys.stderr, flush=True)
    return rows, times


def measure_lag(
    segmenter: Segmenter, objects: Sequence[MovingObject], settings: Sequence[Smooth]
) -> list[dict[str, Any]]:
    """Returns, for each speed, the mean and the largest lag in frames by setting."""
    height, width = _STAGE
    with open_image_file(PHOTOS / "coffee.jpg") as photo:
        background = np.asarray(photo.convert("RGB").resize((width, height)))
    names = segmenter.set_classes([*_MOVING, *_SCENE]).names
    rows = []
    for step in _STEPS_PX:
        lags: dict[str, list[float]] = {heading(setting): [] for setting in settings if setting}
        for item in objects:
            label, frames = names.index(item.name), item.frames(background, step)
            plain = [result.labels for result in segmented(segmenter, frames, None)]
            found = [item.coverage(labels, label, i * step) for i, labels in enumerate(plain)]
            if np.mean(found) < _FOUND:
                continue
            for setting in filter(None, settings):
                smoothed = [result.labels for result in segmented(segmenter, frames, setting)]
                behind = [
                    centre(before, label) - centre(after, label)
                    for before, after in zip(plain[_SETTLED:], smoothed[_SETTLED:], strict=True)
                ]
                lags[heading(setting)].append(float(np.nanmean(behind)) / step)
        row: dict[str, Any] = {"pixels a frame": step, "objects": max(map(len, lags.values()), default=0)}
        for name, values in lags.items():
            if values:
                row |= {f"{name}, mean": float(np.mean(values)), f"{name}, largest": max(values)}
        rows.append(row)
    return rows


def measure_miou(segmenter: Segmenter, camvid: Path, settings: Sequence[Smooth]) -> dict[str, float]:
    """Returns the mIoU on CamVid's validation frames in order, by setting."""
    data = load_dataset("camvid-11", camvid)
    segmenter.set_classes("camvid-11")
    frames = [(int(photo.stem.partition("_")[2]) / _CAMVID_FPS, photo) for photo in data.photos]
    scores = {}
    for setting in settings:
        confusion = Confusion.empty(len(data.classes))
        for index, result in enumerate(segmenter.stream(frames, smooth=setting)):
            confusion += Confusion.of(data.truth(index), result.labels, len(data.classes))
        scores[heading(setting)] = confusion.miou
    return scores


def heading(setting: Smooth) -> str:
    """Returns a setting's name in tables and results."""
    return "no smoothing" if not setting else f"{setting} s" if setting != "auto" else f"auto ({AUTO_S} s)"


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--refine", choices=["auto", "edges", "off"], default="auto", help="see docs/words.md (default: auto)"
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder of videos")
    parser.add_argument("--objects", type=Path, metavar="DIR", help="images/ and labels/ with VOC's ids")
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="see docs/evaluation.md")
    parser.add_argument("--frames", type=int, default=_FRAMES, help="of each video (default: %(default)s)")
    parser.add_argument(
        "--smooth", type=float, nargs="*", default=[], metavar="S", help="other memories to measure, seconds"
    )
    options = parser.parse_args()
    videos = sorted(file for file in options.videos.glob("*") if file.suffix.lower() in _SUFFIXES)
    if not videos or options.frames < 2:
        raise PixelClipError(
            f"{len(videos)} videos in {options.videos}, --frames {options.frames}; expected at least 1 and 2"
        )
    settings: list[Smooth] = [None, *options.smooth, "auto"]
    names = [heading(setting) for setting in settings]
    with Segmenter.from_pretrained(options.model, refine=options.refine) as segmenter:
        rows, times = measure_flicker(segmenter, videos, options.frames, settings)
        mean = {name: float(np.mean([row[name] for row in rows])) for name in names}
        content: dict[str, Any] = {"model": options.model, "refine": segmenter.refine, "words": WORDS}
        content |= {"flicker": rows, "mean": mean}
        content["smooth_ms"] = {
            heading(setting): {"p50": float(np.median(ms)), "p95": float(np.percentile(ms, 95))}
            for setting, ms in times.items()
        }
        print(tables.table([*rows, {"video": "mean", **mean}]))
        if options.objects:
            objects = list(itertools.islice(cut_out(options.objects), _OBJECTS))
            content["lag_frames"] = measure_lag(segmenter, objects, settings)
            print(f"\nframes behind\n\n{tables.table(content['lag_frames'])}")
        if options.camvid:
            content["camvid_miou"] = measure_miou(segmenter, options.camvid, settings)
            print(f"\nCamVid val, mIoU: {content['camvid_miou']}")
    print(f"\nms a frame: {content['smooth_ms']}")
    content["ratios"] = {"flicker without smoothing over with": mean[names[0]] / max(mean[names[-1]], 1e-6)}
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("flicker", main))
