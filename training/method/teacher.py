"""The momentum teacher: a moving average of the student (paper: f̄, γ)."""

import copy

import torch
from torch import nn

__all__ = ["Teacher"]


class Teacher(nn.Module):
    """A frozen copy of the student, updated by ``teacher = γ · teacher + (1 - γ) · student``.

    Buffers are averaged too, because averaged weights do not fit the first batch-norm statistics.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(student).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Update the teacher once; `momentum` is γ in 0-1. 0 copies the student, 1 changes nothing."""
        teacher_tensors = [*self.encoder.parameters(), *self.encoder.buffers()]
        student_tensors = [*student.parameters(), *student.buffers()]
        for mean, new in zip(teacher_tensors, student_tensors, strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1.0 - momentum)
            else:  # counters
                mean.copy_(new)
