"""Peak memory of `predict` on the largest accepted pictures of every kind, and of files that are refused.

Each file is segmented by a process of its own. Its peak is the whole process with interpreter and model; of a
refused file, what it adds to the process that has segmented a photo before. Then the same of the command, by
what it writes.
"""

import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness.memory import memory_mb
from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.cli.outputs import FORMATS
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import most_pixels, open_image_file

__all__ = ["PICTURES", "segmented", "written"]

_PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
# Kinds of pictures that the command gets: the first with each format, then all with all.
_COMMANDED = ("JPEG", "JPEG, turned", "PNG, alpha", "WEBP, alpha")
_COMMAND = """
import sys
from benchmarks.harness.memory import memory_mb
from pixelclip_sdk.cli.main import main
code = main(sys.argv[1:])
print(f"peak_mb {memory_mb('VmHWM'):.0f}", file=sys.stderr)
sys.exit(code)
"""
_MOST_MB, _MOST_REFUSED_MB = 1000, 200


def _alpha(image: Image.Image) -> Image.Image:
    result = image.copy()
    result.putalpha(image.getchannel("G"))
    return result


def _palette(image: Image.Image) -> Image.Image:
    return image.quantize(64, Image.Quantize.FASTOCTREE)


def _grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


_Kind = tuple[str, Callable[[Image.Image], Image.Image] | None, dict[str, Any]]
_LOSSLESS = {"method": 0, "lossless": True, "quality": 0}
_RATE = {"quality_mode": "rates", "quality_layers": [40]}

PICTURES: Mapping[str, _Kind] = {
    "JPEG": ("JPEG", None, {}),
    "JPEG, turned": ("JPEG", None, {"exif": _turned()}),
    "JPEG, CMYK": ("JPEG", lambda image: image.convert("CMYK"), {}),
    "JPEG, progressive": ("JPEG", None, {"progressive": True, "subsampling": 0}),
    "PNG": ("PNG", None, {"compress_level": 1}),
    "PNG, alpha": ("PNG", _alpha, {"compress_level": 1}),
    "PNG, palette with transparency": ("PNG", _palette, {"compress_level": 1, "transparency": 3}),
    "PNG, 16-bit grey": ("PNG", _grey16, {"compress_level": 1}),
    "GIF": ("GIF", _palette, {}),
    "BMP": ("BMP", None, {}),
    "TGA": ("TGA", None, {"compression": "tga_rle"}),
    "PPM": ("PPM", None, {}),
    "TIFF, LZW": ("TIFF", None, {"compression": "tiff_lzw"}),
    "TIFF, JPEG": ("TIFF", None, {"compression": "jpeg"}),
    "TIFF, alpha": ("TIFF", _alpha, {"compression": "tiff_lzw"}),
    "WEBP": ("WEBP", None, {"method": 0, "quality": 40}),
    "WEBP, alpha": ("WEBP", _alpha, _LOSSLESS),
    "AVIF": ("AVIF", None, {"speed": 10, "quality": 30, "subsampling": "4:4:4"}),
    "AVIF, alpha": ("AVIF", _alpha, {"speed": 10, "quality": 30}),
    "JPEG 2000": ("JPEG2000", None, _RATE),
    "JPEG 2000, alpha": ("JPEG2000", _alpha, _RATE),
}
"""Name → Pillow's format, a change of an RGB image, and options of the encoder."""


def written(name: str, file: Path, pixels: int | None = None) -> int:
    """Writes a photo of some pixels, by default the most that are accepted, and returns their number."""
    kind, change, options = PICTURES[name]
    with Image.open(_PHOTO, formats=["JPEG"]) as image:
        photo = image.convert("RGB")
    if pixels is None:
        small, content = photo.resize((64, 48)), io.BytesIO()
        (change(small) if change else small).save(content, kind, **options)
        with open_image_file(content) as opened:
            pixels = most_pixels(opened)
    height = int((pixels * 0.75) ** 0.5)
    large = photo.resize((pixels // height, height))
    (change(large) if change else large).save(file, kind, **options)
    return large.width * large.height


def segmented(file: Path) -> dict[str, Any]:
    """Segments a file in a new process. Returns what came of it, and megabytes."""
    command = [sys.executable, __file__, "--one", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if result.returncode:
        return {
            "outcome": f"exit code {result.returncode}: {result.stderr[-500:]}",
            "peak_mb": 0,
            "added_mb": 0,
        }
    return dict(json.loads(result.stdout))


def _segment(file: Path) -> dict[str, Any]:
    with Segmenter.from_pretrained(classes="cat, sofa, cup") as segmenter:
        segmenter.predict(_PHOTO)
        idle = memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        try:
            segmenter.predict(file)
            outcome = "segmented"
        except PixelClipError as error:
            outcome = f"{type(error).__name__}: {str(error).replace(str(file), 'FILE')}"[:200]
    peak = memory_mb("VmHWM")
    return {"outcome": outcome, "peak_mb": round(peak), "added_mb": round(peak - idle)}


def commanded(file: Path, formats: str) -> dict[str, Any]:
    """Runs ``pixelclip predict`` on a file in a new process. Returns its exit code and megabytes."""
    with tempfile.TemporaryDirectory() as out:
        words = ["--classes", "cat, sofa, cup", "--out", out, "--format", formats, "--json"]
        command = [sys.executable, "-c", _COMMAND, "predict", str(file), *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    peak = re.findall(r"peak_mb (\d+)", result.stderr)
    return {"exit_code": result.returncode, "peak_mb": int(peak[-1]) if peak else 0}


def _of_the_command(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _COMMANDED:
        file = folder / f"picture.{PICTURES[name][0].lower()}"
        written(name, file)
        for formats in (*FORMATS, ",".join(FORMATS)) if name == "JPEG" else (",".join(FORMATS),):
            found[f"{name}: {formats}"] = commanded(file, formats)
            print(name, formats, found[f"{name}: {formats}"], flush=True)
        file.unlink()
    return found


def _refused(folder: Path, most: Mapping[str, int]) -> dict[str, Any]:
    """Files that are too large, and large ones that are damaged."""
    found, file = {}, folder / "picture"
    for name in ("JPEG", "PNG", "PNG, alpha", "TIFF, LZW", "WEBP"):
        written(name, file, int(most[name] * 1.05))
        found[f"{name}, too large"] = segmented(file)
    written("JPEG", file)
    whole = file.read_bytes()
    for share in (10, 40):
        file.write_bytes(whole[: len(whole) * share // 100])
        found[f"JPEG, cut off at {share} %"] = segmented(file)
    return found


def _run() -> int:
    parser = command_parser(__doc__)
    parser.add_argument("--one", type=Path, metavar="FILE", help="segment one file and print its memory")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_segment(options.one)))
        return 0
    pictures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        for name in PICTURES:
            pixels = written(name, file)
            pictures[name] = {"pixels": pixels, **segmented(file)}
            print(name, pictures[name], flush=True)
        refused = _refused(Path(folder), {name: one["pixels"] for name, one in pictures.items()})
        print(json.dumps(refused, indent=1), flush=True)
        by_format = _of_the_command(Path(folder))
    store(options.json, {"pictures": pictures, "refused": refused, "by_format": by_format})
    bad = [n for n, one in pictures.items() if one["outcome"] != "segmented" or one["peak_mb"] > _MOST_MB]
    bad += [
        n for n, one in refused.items() if "Error" not in one["outcome"] or one["added_mb"] > _MOST_REFUSED_MB
    ]
    bad += [n for n, one in by_format.items() if one["exit_code"] or one["peak_mb"] > _MOST_MB]
    print("beyond the limits:", ", ".join(bad) or "none")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(run_command("memory", _run, interrupted="no result was written"))
