"""Bundle: the folder that holds a model.

``bundle.json`` describes the model and lists every file with its size and SHA-256. The hash of a file is
checked before the file is used. A bundle contains no pickles.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.manifest import MANIFEST, SCHEMA_VERSION, frozen, read_manifest
from pixelclip_sdk.support.files import is_file, set_aside, sha256, user_path

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IMAGE_ENCODER = "image_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
BACKGROUND = "background"
"""Name of the vocabulary whose words compete with the classes in `Segmentation.confidence`."""
VOCABULARIES = "vocabularies"
DAMPING = "damping.f16"
"""File of `Bundle.damping`. One that replaced another is ``damping.2.f16``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The input sizes of a model.

    Attributes:
        height: Nominal input height in pixels.
        width: Nominal input width in pixels.
        multiple: Input sides are multiples of this.
        fixed: True if the model accepts only the nominal size, False if it accepts any size whose sides are
            multiples of `multiple`.
        keep_aspect: True if an image keeps its aspect ratio: it is scaled to about `height * width` pixels,
            or for a fixed size scaled to fit and padded. False if it is squashed to the nominal size.
        batch: The only batch size of the model, or None for any.

    Raises:
        BundleError: The values contradict each other.

    Examples:
        >>> from pixelclip_sdk import InputSpec
        >>> spec = InputSpec(height=352, width=448, multiple=32, fixed=False, keep_aspect=True)
        >>> spec.resized((224, 288)).height
        224
    """

    height: int
    width: int
    multiple: int
    fixed: bool
    keep_aspect: bool
    batch: int | None = None

    def __post_init__(self) -> None:
        if problem := misfit((self.height, self.width), self.multiple):
            raise BundleError(f"input {problem}")
        if not self.fixed and not self.keep_aspect:
            raise BundleError("fixed and keep_aspect are both false; set one: squashing needs one size")
        if self.batch is not None and self.batch < 1:
            raise BundleError(f"input batch is {self.batch}; expected at least 1, or null for any")

    def resized(self, size: tuple[int, int]) -> "InputSpec":
        """Return a copy with another nominal size `(H, W)`.

        Raises:
            BundleError: `size` is not two whole numbers, the model accepts only another size, or a side is
                not a positive multiple of `multiple`.
        """
        sides = tuple(size) if isinstance(size, list | tuple) else (size,)
        if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            raise BundleError(f"input size is {size!r}; expected two whole numbers, (height, width)")
        height, width = sides
        if self.fixed and (height, width) != (self.height, self.width):
            raise BundleError(
                f"input size is {height}×{width}; this model takes {self.height}×{self.width} only. "
                f"Export it for that size: export/to_onnx.py --input-size {height} {width}"
            )
        return dataclasses.replace(self, height=height, width=width)

    @property
    def only_size(self) -> tuple[int, int] | None:
        """The only input size `(H, W)`, or None if there are several."""
        return (self.height, self.width) if self.fixed else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model's folder. Immutable: mappings and lists inside are read-only.

    Attributes:
        path: The folder.
        name: The model's name.
        license: SPDX expression of the licence of the weights.
        sources: Origins of the weights: mappings with `name`, `license`, `sha256`, ….
        input: The input sizes of the image encoder.
        grid: Cells `(h, w)` of the output grid at the nominal input size.
        embedding_dim: Width D of the embeddings.
        templates: Prompts that a class name is put into, each with one ``{}``.
        precision: Storage precision of the weights, e.g. ``"fp16"``.
        refine: How labels of this model are best made: ``"edges"``, or ``"off"`` where that was not measured
            to help. ``Segmenter(refine="auto")`` follows it.
        verification: The export's comparison with the source weights; see ``export/verify.py``.
        files: Relative path → ``{"size": bytes, "sha256": hex}``.
        confidence: Constants behind `Segmentation.confidence`, fitted by ``benchmarks/calibration.py``:
            ``temperature`` and ``background_weight``; None for a model where they were not fitted.
        schema_version: Version of the manifest's layout.

    Examples:
        >>> from pixelclip_sdk import Bundle, available_models
        >>> bundle = Bundle.open(available_models()["pixelclip-lite"])
        >>> bundle.name, bundle.embedding_dim
        ('pixelclip-lite', 384)
        >>> bundle.verify()  # Raises if a file was changed.
    """

    path: Path
    name: str
    license: str
    sources: tuple[Mapping[str, Any], ...]
    input: InputSpec
    grid: tuple[int, int]
    embedding_dim: int
    templates: tuple[str, ...]
    precision: str
    refine: Literal["edges", "off"] = "off"
    verification: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    confidence: Mapping[str, float] | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for field in ("sources", "templates", "verification", "files", "confidence"):
            object.__setattr__(self, field, frozen(getattr(self, field)))

    def __reduce__(self) -> tuple[Callable[[], "Bundle"], tuple[()]]:
        fields = self.manifest() | {"path": self.path, "input": self.input, "grid": self.grid}
        return functools.partial(type(self), **fields), ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Bundle":
        """Read a bundle's manifest and check that every listed file exists and has the listed size.

        Hashes are checked later, by `file` for each file in use and by `verify` for all.

        Raises:
            BundleError: The manifest is missing or cannot be read, its schema is newer than this library's, a
                key is missing or unknown, or a listed file is missing or of another size.
        """
        folder = user_path(path)
        manifest = folder / MANIFEST
        if not is_file(manifest):
            if folder.name and is_file(set_aside(folder) / MANIFEST):
                raise BundleError(
                    f"{folder} is missing: an export was killed while it replaced the bundle. The old one is "
                    f"in {set_aside(folder)}. Run the export again, or rename that folder to {folder.name}."
                )
            raise BundleError(
                f"{folder} is not a bundle: it has no {MANIFEST}. Expected a folder made by export/to_onnx.py"
            )
        fields = read_manifest(manifest)
        bundle = cls(path=folder, **fields | {"input": InputSpec(**fields["input"])})
        for name, entry in bundle.files.items():
            if not is_file(file := folder / name):
                raise _damaged(file, f"is missing, but {MANIFEST} lists it")
            if (size := file.stat().st_size) != entry["size"]:
                said = f"{MANIFEST} says {entry['size']}: the copy is incomplete or was changed"
                raise _damaged(file, f"has {size} bytes, {said}")
        if IMAGE_ENCODER not in bundle.files:
            raise BundleError(f"{manifest} lists no {IMAGE_ENCODER}; a bundle needs one. Export it again.")
        return bundle

    def manifest(self) -> dict[str, Any]:
        """Return the content of ``bundle.json`` as dicts, lists, numbers and text."""
        fields: dict[str, Any] = json.loads(self.to_json())
        return fields

    def to_json(self) -> str:
        """Return the text of ``bundle.json``."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["path"]
        if self.confidence is None:
            del fields["confidence"]
        fields = {"schema_version": fields.pop("schema_version"), **fields, "input": vars(self.input)}
        return json.dumps(fields, indent=1, ensure_ascii=False, default=dict) + "\n"

    def file(self, name: str) -> Path:
        """Check the hash of a file and return its path. `name` is a key of `files`.

        Raises:
            BundleError: The bundle has no such file, or the file was changed after the export.
        """
        if name not in self.files:
            raise BundleError(f"bundle {self.name!r} has no {name}; it has {', '.join(sorted(self.files))}")
        path = self.path / name
        try:
            found = sha256(path)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        expected = self.files[name]["sha256"]
        if found != expected:
            hashes = f"its SHA-256 is {found[:12]}…, {MANIFEST} says {expected[:12]}…"
            raise _damaged(path, f"was changed or damaged: {hashes}")
        return path

    def verify(self) -> None:
        """Check the hash of every file; raise BundleError if one was changed after the export."""
        for name in self.files:
            self.file(name)

    @property
    def size(self) -> int:
        """Size of all listed files in bytes."""
        return sum(int(entry["size"]) for entry in self.files.values())

    @property
    def damping_file(self) -> str | None:
        """The key of `files` with the matrix of `damping`, or None."""
        return next((name for name in self.files if PurePosixPath(name).match("damping*.f16")), None)

    def damping(self) -> "npt.NDArray[np.float32] | None":
        """Return the matrix that tells which words fit too many photos, `(R, D)` float32, or None.

        The cosines of a word's embedding v are divided by the norm of ``matrix @ v`` where that is above 1:
        it is the standard deviation of the word's cosine over everyday photos, divided by the largest one
        that a word may have. `export/damping.py` makes the file: rows of D little-endian float16 numbers.

        Raises:
            BundleError: The file is damaged or of another width.
        """
        name = self.damping_file
        if name is None:
            return None
        import numpy as np  # Here: `import pixelclip_sdk` loads no numpy.

        size, width = int(self.files[name]["size"]), 2 * self.embedding_dim
        if size % width or not 0 < size <= width * self.embedding_dim:
            raise _damaged(self.path / name, f"has {size} bytes; expected 1 to {width // 2} rows of {width}")
        matrix = np.fromfile(self.file(name), "<f2").astype(np.float32).reshape(-1, self.embedding_dim)
        if not np.isfinite(matrix).all():
            raise _damaged(self.path / name, "holds numbers that are not finite")
        return matrix

    @property
    def has_text_encoder(self) -> bool:
        """Whether new words can be embedded with this bundle alone."""
        return TEXT_ENCODER in self.files and TOKENIZER in self.files

    @property
    def text_hash(self) -> str:
        """SHA-256 of the text encoder, or empty. A saved vocabulary of this model has the same one."""
        return str(self.files[TEXT_ENCODER]["sha256"]) if TEXT_ENCODER in self.files else ""

    @property
    def image_hash(self) -> str:
        """SHA-256 of the image encoder. A vocabulary made from pictures with this model has the same one."""
        return str(self.files[IMAGE_ENCODER]["sha256"])

    @property
    def vocabularies(self) -> dict[str, str]:
        """Name → file (a key of `files`) of every precomputed vocabulary to choose, sorted by name."""
        return {name: file for name, file in self.vocabulary_files.items() if name != BACKGROUND}

    @property
    def vocabulary_files(self) -> dict[str, str]:
        """`vocabularies` and the background words.

        A file is ``vocabularies/NAME.npz``; one that replaced another is ``vocabularies/NAME.2.npz``.
        """
        paths = [PurePosixPath(name) for name in self.files]
        found = {p.name.partition(".")[0]: str(p) for p in paths if p.match(f"{VOCABULARIES}/*.npz")}
        return dict(sorted(found.items()))


def _damaged(file: Path, problem: str) -> BundleError:
    return BundleError(f"{file} {problem}. Copy or export the bundle again.")


def misfit(size: tuple[int, int], multiple: int) -> str:
    """Describe why an input size `(H, W)` does not fit, with the nearest that do; empty if it fits."""
    problems = []
    for side, value in zip(("height", "width"), size, strict=True):
        if value <= 0 or multiple <= 0 or value % multiple:
            below = max(value // max(multiple, 1), 1) * multiple
            problems.append(
                f"{side} is {value}; expected a positive multiple of {multiple}, "
                f"for example {below} or {below + multiple}"
            )
    return ", and ".join(problems)
