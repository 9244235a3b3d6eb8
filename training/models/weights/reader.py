"""Weights from files that strangers made, read without running anything.

A `.pth` is a pickle, and a pickle is a program. It is only ever read by torch's restricted reader
(`weights_only=True`), which builds tensors and plain containers and refuses every other name. TorchScript
archives are programs too and are refused.
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

# Keys that checkpoints keep their weights under: detectron2, open_clip, common habit.
_WRAPPERS = ("model", "state_dict", "model_state_dict")


class _Discarded:
    """Stands in for numpy's scalars and arrays, which trainers leave in the state of optimisers and hooks.

    Safe because nothing of numpy is called: under numpy's names the reader gets this class, and all it does
    is to forget what it is given. Weights are tensors, so nothing that is needed gets lost.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# By both names of numpy's private module, before and since version 2.
_NUMPY = [
    (_Discarded, name)
    for core in ("numpy.core", "numpy._core")
    for name in (f"{core}.multiarray.scalar", f"{core}.multiarray._reconstruct")
] + [(_Discarded, "numpy.dtype"), (_Discarded, "numpy.ndarray")]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a `.safetensors` file or of a torch checkpoint; runs nothing that is in it.

    The kind of the file is told by its content. Weights may lie under `model` or `state_dict`; whatever lies
    beside them (optimiser, iteration, …) is left out, and so are entries that are no tensors.

    Args:
        path: The file. Its tensors may stay mapped to it: do not change it while they are in use.

    Returns:
        Key → tensor on the CPU, dtypes as in the file.

    Raises:
        CheckpointError: There is no such file, it is damaged, it is something else (a web page, a pointer of
            Git LFS, a TorchScript archive, …), it asks for code to run, or no tensors are in it.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {file}: {error.strerror or error}. Name a .safetensors or .pth file."
        ) from error
    if _is_safetensors(head):
        content: Any = _read_safetensors(file)
    elif head.startswith(b"PK\x03\x04"):
        _check_archive(file)
        content = _read_torch(file, mmap=True)
    elif head[:1] == b"\x80":  # a pickle: torch's format before version 1.6
        content = _read_torch(file, mmap=False)
    else:
        raise CheckpointError(f"{file} is no checkpoint: {_what_else(head, size)}")
    state = {
        key: value
        for key, value in _unwrapped(content).items()
        if isinstance(key, str) and isinstance(value, Tensor) and _is_plain(value)
    }
    if not state:
        raise CheckpointError(
            f"{file} holds no tensors by name ({_outline(content)}). Expected a state dict, bare or under "
            f"{' or '.join(map(repr, _WRAPPERS))}."
        )
    return state


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes with the header's length, at most 100 MB by the format, then the header, which is JSON."""
    return head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= 100_000_000


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged ({error}). Download or copy it again.") from error


def _check_archive(file: Path) -> None:
    """Tells torch's checkpoints from the other things that are ZIP archives."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile has many for a damaged directory
        raise CheckpointError(
            f"{file} is cut off or damaged: its ZIP directory cannot be read ({error}). "
            "Download or copy it again."
        ) from error
    parts = {name.partition("/")[2] for name in names}
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        raise CheckpointError(
            f"{file} is a TorchScript archive: a program, not only weights, so it is not opened. OpenAI's "
            "original CLIP files are such; the same weights are the model clip-vit-b16. Others: on a machine "
            "that may run it, save torch.jit.load(FILE).state_dict() with safetensors.torch.save_file."
        )
    if "data.pkl" not in parts:
        raise CheckpointError(
            f"{file} is a ZIP archive without a torch checkpoint in it ({', '.join(names[:3]) or 'empty'}). "
            "If it is a packed folder, unpack it first."
        )


def _read_torch(file: Path, *, mmap: bool) -> Any:
    """The content of a torch file, by the restricted reader."""
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle may fail in any way
        refused = re.search(r"GLOBAL (\S+)|unrecognized function (.+)", str(error))
        if refused is None:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(
                f"{file} is cut off or damaged ({reason}). Download or copy it again."
            ) from error
        raise CheckpointError(
            f"{file} asks for {refused[1] or refused[2]}, which is more than tensors; nothing of it was run. "
            "If you trust the file, strip it on a machine that may run it: "
            'torch.save(torch.load(FILE, weights_only=False)["model"], NEW), with the key of its weights.'
        ) from error


def _what_else(head: bytes, size: int) -> str:
    """Says what a file is that is no checkpoint, and what to do."""
    if size == 0:
        return "it is empty. Download or copy it again."
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file it points to. Run `git lfs pull` where it came from."
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page, perhaps a login or an error saved under this name. Download the file itself."
        )
    if not set(head) - set(string.printable.encode()):
        return f"it is text that begins with {head[:40].decode()!r}. Download the file again."
    return f"its first bytes are {head[:8].hex(' ')}. Expected a .safetensors file or a torch checkpoint."


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    """Goes down to the weights, through the wrappers around them."""
    for _ in range(3):  # not for ever: a pickle may hold itself
        inner = [content[key] for key in _WRAPPERS if key in content] if isinstance(content, dict) else []
        content = next((value for value in inner if isinstance(value, dict)), content)
    return content if isinstance(content, dict) else {}


def _is_plain(tensor: Tensor) -> bool:
    """Not sparse, quantised or without data: a file may ask for such, no CLIP is made of them."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _outline(content: Any) -> str:
    """What came, in a few words."""
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5])) or 'nothing in it'}"
    return f"a {type(content).__name__}"
