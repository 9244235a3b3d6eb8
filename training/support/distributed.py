"""Communication between the processes of a distributed training. With one process, nothing is exchanged."""

import os

import torch
import torch.distributed as dist
from torch import Tensor

from training.support.devices import torch_device

__all__ = ["agree", "gathered", "join", "largest", "leave", "rank", "total", "world"]


def join(device: str) -> torch.device:
    """Joins the process group if torchrun started this process, and returns this process's device."""
    chosen = torch_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def leave() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Returns the sum over all processes, elementwise."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(values: Tensor) -> Tensor:
    """Returns the maximum over all processes, elementwise."""
    return _reduced(values, dist.ReduceOp.MAX)


def agree(value: int, device: torch.device) -> bool:
    """Returns True if all processes have the same integer (less than 64 bits)."""
    both = torch.tensor([value, -value], device=device)
    return bool((largest(both) == both).all())


def gathered(rows: Tensor) -> Tensor:
    """Concatenates the rows `[M, D]` of all processes, in their order; M may differ between processes."""
    if not dist.is_initialized():
        return rows
    counts = rows.new_zeros(world(), dtype=torch.int64)
    counts[rank()] = len(rows)
    counts = total(counts)
    longest = int(counts.max())
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    everywhere = [torch.empty_like(padded) for _ in range(world())]
    dist.all_gather(everywhere, padded)
    return torch.cat([part[:count] for part, count in zip(everywhere, counts.tolist(), strict=True)])


def _reduced(values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if not dist.is_initialized():
        return values
    values = values.clone()
    dist.all_reduce(values, operation)
    return values
