"""Selects the torch device."""

import torch

from pixelclip_sdk.errors import BackendUnavailableError

__all__ = ["torch_device"]


def torch_device(name: str) -> torch.device:
    """Returns the device ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or with ``"auto"`` a GPU if there is one."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise BackendUnavailableError(
            f"device is {name!r}; expected auto, cpu, cuda, or one GPU such as cuda:1"
        )
    if kind == "cuda" and int(number or 0) >= count:
        found = f"{count} GPUs" if count else "no GPU"
        raise BackendUnavailableError(f"device is {name}, but torch finds {found} here; use cpu")
    return torch.device(name)
