"""Reads checkpoint files from untrusted sources without running code in them.

A `.pth` file is a pickle, and a pickle is a program. torch's restricted reader (`weights_only=True`) builds
only tensors and plain containers and refuses every other name. TorchScript archives are programs too and are
refused.
"""

from __future__ import annotations

import os
import re
import string
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelclip_sdk.errors import CheckpointError

__all__ = ["read_checkpoint"]

# Keys that hold the weights: detectron2 (official PixelCLIP) and open_clip.
_WRAPPERS = ("model", "state_dict")


class _Discarded:
    """Replaces numpy scalars and arrays, which trainers leave in the state of optimisers and hooks.

    The restricted reader calls this class instead of numpy, and it ignores its arguments.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMPY = [
    (_Discarded, "numpy.dtype"),
    (_Discarded, "numpy.ndarray"),
    (_Discarded, "numpy.core.multiarray.scalar"),
    (_Discarded, "numpy.core.multiarray._reconstruct"),
    (_Discarded, "numpy._core.multiarray.scalar"),  # since numpy 2
    (_Discarded, "numpy._core.multiarray._reconstruct"),
]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a `.safetensors` file or a torch checkpoint, on the CPU, dtypes as in the file.

    The content decides the format, not the file name. The weights may be under `model` or `state_dict`. Other
    content (optimiser, iteration, …) is ignored. The tensors may stay mapped to the file: do not change it
    while they are in use.

    Raises:
        CheckpointError: The file is missing, damaged or another kind of file, contains code, contains tensors
            larger than the file, or contains no tensors.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {file}: {error.strerror or error}. Give a .safetensors or .pth file."
        ) from error
    if _is_safetensors(head):
        content: Any = _read_safetensors(file)
    elif head.startswith(b"PK\x03\x04"):
        _check_archive(file, size)
        content = _read_torch(file, mmap=True)
    elif head[:1] == b"\x80":  # a pickle: torch's format before version 1.6
        content = _read_torch(file, mmap=False)
    else:
        raise CheckpointError(f"{file} is not a checkpoint: {_describe(head, size)}")
    state = {
        key: value
        for key, value in _unwrapped(content).items()
        if isinstance(key, str) and isinstance(value, Tensor) and _is_dense(value)
    }
    if not state:
        found = type(content).__name__
        if isinstance(content, dict):
            found = f"dict with {', '.join(map(repr, list(content)[:5])) or 'no keys'}"
        raise CheckpointError(
            f"{file} contains no named tensors (found a {found}). Expected a state dict, bare or under "
            f"{' or '.join(map(repr, _WRAPPERS))}."
        )
    for key, value in state.items():
        # A stride of 0 repeats one number for free, until the tensor is copied.
        if (claimed := value.numel() * value.element_size()) > size:
            raise CheckpointError(
                f"{file} has {size} bytes, but its tensor {key} claims {claimed}. "
                "The file is damaged or malicious; download it again."
            )
    return state


def _is_safetensors(head: bytes) -> bool:
    """Checks for the header: its length in 8 bytes, at most 100 MB by the format, then JSON."""
    return head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= 100_000_000


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged ({error}). Download or copy it again.") from error


def _check_archive(file: Path, size: int) -> None:
    """Raises CheckpointError for a ZIP archive that is not a torch checkpoint."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises many kinds of errors for a damaged directory
        raise CheckpointError(
            f"{file} is truncated or damaged: cannot read its ZIP directory ({error}). "
            "Download or copy it again."
        ) from error
    parts = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        raise CheckpointError(
            f"{file} is a TorchScript archive, which contains a program, so it is not opened. OpenAI's "
            "original CLIP files are TorchScript; use the model clip-vit-b16 for the same weights. Convert "
            "others on a machine that may run them: save torch.jit.load(FILE).state_dict() with "
            "safetensors.torch.save_file."
        )
    if "data.pkl" not in parts:
        names = ", ".join(entry.filename for entry in entries[:3]) or "empty"
        raise CheckpointError(
            f"{file} is a ZIP archive, but not a torch checkpoint ({names}). Unpack it first if it is a "
            "packed folder."
        )
    # torch stores entries uncompressed, so together they are smaller than the file.
    if (unpacked := sum(entry.file_size for entry in entries)) > size:
        raise CheckpointError(
            f"{file} has {size} bytes but unpacks to {unpacked}; torch writes uncompressed archives. "
            "The file is damaged or malicious; download it again."
        )


def _read_torch(file: Path, *, mmap: bool) -> Any:
    """Reads a torch file with the restricted reader."""
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle may raise any error
        refused = re.search(r"GLOBAL (\S+)|unrecognized function (.+)", str(error))
        if refused is None:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(
                f"{file} is truncated or damaged ({reason}). Download or copy it again."
            ) from error
        raise CheckpointError(
            f"{file} contains code ({refused[1] or refused[2]}), which was not run. "
            "If you trust the file, extract its weights on a machine that may run it: "
            'torch.save(torch.load(FILE, weights_only=False)["model"], NEW), with the key of its weights.'
        ) from error


def _describe(head: bytes, size: int) -> str:
    """Returns what a file that is not a checkpoint looks like, and what to do."""
    if size == 0:
        return "it is empty. Download or copy it again."
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer. Run `git lfs pull` in its repository."
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps a login or error page. Download the file itself."
    if not set(head) - set(string.printable.encode()):
        return f"it is text that begins with {head[:40].decode()!r}. Download the file again."
    return f"its first bytes are {head[:8].hex(' ')}. Expected a .safetensors file or a torch checkpoint."


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    """Returns the innermost dict under `_WRAPPERS`."""
    for _ in range(3):  # bounded, because a pickle may contain itself
        inner = [content[key] for key in _WRAPPERS if key in content] if isinstance(content, dict) else []
        content = next((value for value in inner if isinstance(value, dict)), content)
    return content if isinstance(content, dict) else {}


def _is_dense(tensor: Tensor) -> bool:
    """Returns False for sparse, quantised and meta tensors, which are not CLIP weights."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
