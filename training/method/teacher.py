"""The momentum teacher: a slow copy of the student (paper: f̄, γ)."""

import copy

import torch
from torch import nn

__all__ = ["Teacher"]


class Teacher(nn.Module):
    """A copy of the student that follows it: ``teacher = γ · teacher + (1 - γ) · student``.

    Buffers follow as well: where the student's batch-norm statistics move, the teacher's weights would not
    fit frozen ones. Nothing of it is ever trained.

    Args:
        student: What is copied.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(student).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """One step towards the student.

        Args:
            student: Of the build that was copied.
            momentum: γ in 0-1. 0 makes the teacher the student; 1 leaves it as it began.
        """
        ours = [*self.encoder.parameters(), *self.encoder.buffers()]
        theirs = [*student.parameters(), *student.buffers()]
        for mine, other in zip(ours, theirs, strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 1.0 - momentum)
            else:  # counters
                mine.copy_(other)
