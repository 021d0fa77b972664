"""Adam on one flat vector: for small networks the bookkeeping per tensor costs more than the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dydiff_env.errors import DyDiffError


class FlatAdam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015) whose parameters and gradients become views of two vectors.

    Args:
        parameters: what is trained; they keep their shapes and values. Move them to their device beforehand.
        rate: learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        self.parts = parts = list(parameters)
        self.flat = nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
        self.flat.grad = torch.zeros_like(self.flat)
        pieces = [
            vector.split([part.numel() for part in parts]) for vector in (self.flat.data, self.flat.grad)
        ]
        for part, value, gradient in zip(parts, *pieces, strict=True):
            part.data, part.grad = value.view_as(part), gradient.view_as(part)
        super().__init__([self.flat], lr=rate, fused=True)

    def descend(self, loss: Tensor, bound: float = 0.0) -> None:
        """One step down ``loss``; where ``bound`` is not 0 the gradient is no longer than that.

        Raises:
            DyDiffError: where the parameters no longer lie in the vector: a step would move nothing that acts.
        """
        if self.parts[0].data_ptr() != self.flat.data_ptr():
            raise DyDiffError("The agent was moved or cast after it was made: it would learn nothing.", "Make or load it with device=….")
        self.zero_grad()
        loss.backward()
        if bound:
            nn.utils.clip_grad_norm_([self.flat], bound)
        self.step()

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to zero; they stay where they are."""
        assert self.flat.grad is not None
        self.flat.grad.zero_()
