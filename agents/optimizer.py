"""Adam on one flat vector: for small networks the bookkeeping per tensor costs more than the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class FlatAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015) whose parameters and gradients become views of two vectors.

    Args:
        parameters: what is trained; they keep their shapes and values. Move them to their device beforehand.
        rate: learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        parts = list(parameters)
        self.flat = nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
        self.flat.grad = torch.zeros_like(self.flat)
        pieces = [
            vector.split([part.numel() for part in parts]) for vector in (self.flat.data, self.flat.grad)
        ]
        for part, value, gradient in zip(parts, *pieces, strict=True):
            part.data, part.grad = value.view_as(part), gradient.view_as(part)
        super().__init__([self.flat], lr=rate, fused=True)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero; they stay where they are."""
        assert self.flat.grad is not None
        self.flat.grad.zero_()
