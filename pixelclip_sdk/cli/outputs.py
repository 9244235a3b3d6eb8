"""What `pixelclip predict` writes: the results of one run, in the chosen formats."""

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.results import formats
from pixelclip_sdk.results.pictures import overlay, save_picture
from pixelclip_sdk.results.regions import Region
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.support.files import atomic_write, is_file
from pixelclip_sdk.support.hints import did_you_mean
from pixelclip_sdk.support.images import RESULT_SUFFIXES

OVERLAY, LABELS = RESULT_SUFFIXES
JSON = ".json"
# Format → what is written below the folder of a run.
FORMATS = {
    "png": f"NAME{OVERLAY}, NAME{LABELS}",
    "json": f"NAME{JSON}",
    "coco": "coco/annotations.json",
    "labelme": "labelme/NAME.json",
    "yolo-seg": "yolo-seg/data.yaml, images, labels",
}


def format_list(text: str) -> tuple[str, ...]:
    """Parse ``--format``: names of formats, separated by commas."""
    names = [name for part in text.split(",") if (name := part.strip().lower())]
    for name in names:
        if name not in FORMATS:
            hint = did_you_mean(name, FORMATS)
            raise argparse.ArgumentTypeError(f"{name!r}; expected some of {', '.join(FORMATS)}.{hint}")
    if not names:
        raise argparse.ArgumentTypeError(f"no format; expected some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)


class Outputs:
    """Writes the results of one run. Use it as a context manager, because COCO's file is written at the end.

    After an interruption it has the images that were done until then.

    Args:
        folder: The folder for all files.
        chosen: Names of `FORMATS`.
        names: The class names of the run.
        sources: All image files of the run. COCO's file names are relative to their common folder.
        model: Name of the model, for the description in COCO's file.
    """

    def __init__(
        self, folder: Path, chosen: Sequence[str], names: Sequence[str], sources: Sequence[Path], model: str
    ) -> None:
        self._folder, self._chosen, self._names = folder, chosen, names
        self._data = folder / "yolo-seg" / "data.yaml"
        if "yolo-seg" in chosen and _has_other_text(self._data, formats.yolo_data(names)):
            raise OutputError(
                f"{self._data} is of a run with other classes, and its label files would be read with "
                "these. Choose another folder for --out, or remove that one."
            )
        self._coco = None
        if "coco" in chosen:
            self._coco = _CocoFile(folder / "coco" / "annotations.json", names, sources, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._coco:
            with contextlib.closing(self._coco):
                if kind is None or issubclass(kind, KeyboardInterrupt):
                    self._coco.write()

    def write(self, result: Segmentation, source: Path, stem: str, facts: dict[str, Any]) -> None:
        """Write the result of an image in all formats but COCO's, which keeps it for the end."""
        regions = result.regions()
        if "png" in self._chosen:
            save_picture(overlay(result), Path(f"{self._folder / stem}{OVERLAY}"))
            result.save_labels(f"{self._folder / stem}{LABELS}")
        if "json" in self._chosen:
            _write_text(Path(f"{self._folder / stem}{JSON}"), json.dumps(facts, indent=1, ensure_ascii=False))
        if self._coco:
            self._coco.add(result, regions, source)
        if "labelme" in self._chosen:
            target = self._folder / "labelme" / f"{stem}{JSON}"
            content = formats.labelme(result, regions, _relative(source, target.parent))
            _write_text(target, json.dumps(content, ensure_ascii=False))
        if "yolo-seg" in self._chosen:
            if not is_file(self._data):
                _write_text(self._data, formats.yolo_data(self._names))
            with atomic_write(self._data.parent / "images" / f"{stem}{source.suffix}") as temporary:
                shutil.copyfile(source, temporary)
            _write_text(self._data.parent / "labels" / f"{stem}.txt", formats.yolo_lines(result, regions))


class _CocoFile:
    """Collects the annotations of many images, outside of the memory, and writes them as one file."""

    def __init__(self, path: Path, names: Sequence[str], sources: Sequence[Path], model: str) -> None:
        self._path, self._names = path, names
        self._common = os.path.commonpath([source.absolute().parent for source in sources])
        self._info = {"description": f"Regions found by {model}", "images_folder": self._common}
        self._images: list[dict[str, Any]] = []
        self._count = 0
        # JSON texts, one a line; from the first image on.
        self._annotations: IO[str] | None = None

    def add(self, result: Segmentation, regions: Sequence[Region], source: Path) -> None:
        """Add an image with its regions."""
        if self._annotations is None:
            self._annotations = self._temporary_file()
        number = len(self._images) + 1
        self._images.append(formats.coco_image(result, _relative(source, Path(self._common)), number))
        for annotation in formats.coco_annotations(regions, number, self._count + 1):
            self._annotations.write(f"{',' * (self._count > 0)}\n{json.dumps(annotation)}")
            self._count += 1

    def write(self) -> None:
        """Write the file, if there are images."""
        if self._annotations is None:
            return
        head = {
            "info": self._info,
            "images": self._images,
            "categories": formats.coco_categories(self._names),
        }
        self._annotations.seek(0)
        with (
            atomic_write(self._path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "annotations": [')
            shutil.copyfileobj(self._annotations, file)
            file.write("\n]}\n")

    def close(self) -> None:
        """Remove the collected annotations."""
        if self._annotations is not None:
            self._annotations.close()

    def _temporary_file(self) -> IO[str]:
        """A file without a name, beside the result: nothing is written elsewhere."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile("w+", encoding="utf-8", dir=self._path.parent)
        except OSError as error:
            raise OutputError(f"cannot write into {self._path.parent}: {error.strerror or error}") from error


def _relative(file: Path, folder: Path) -> str:
    """The path of a file from a folder; absolute if there is none, as between drives of Windows."""
    try:
        return formats.portable(os.path.relpath(file, folder))
    except ValueError:
        return formats.portable(file.absolute())


def _has_other_text(file: Path, text: str) -> bool:
    return is_file(file) and file.read_text(encoding="utf-8", errors="replace") != text


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        # A path that is not UTF-8 has surrogates, which JSON can escape but UTF-8 cannot hold.
        temporary.write_text(text.rstrip("\n") + "\n" * bool(text), "utf-8", "backslashreplace")
