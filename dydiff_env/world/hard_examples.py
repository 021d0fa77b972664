"""Drawing hard transitions more often.

A ball at a wall, a foot that lands: the transitions at which a rollout goes wrong are few, and a network that sees them as seldom as they
happen learns them last. So transitions are drawn more often the more wrong the model was about them at the last look, and count the less,
so that the loss that is minimised remains the mean over all of them (prioritised replay; Schaul et al., 2016, arXiv 1511.05952).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

POOL = 2**18  # transitions that a look is taken at; of a log that is larger, others each time


class HardExamples:
    """Draws transitions with probabilities p_i = (1 − h) / n + h e_i / Σ e_j, and the weights 1 / (n p_i) that undo them.

    Args:
        rows: all transitions, (N,).
        errors: e, how wrong the model is about each of n transitions, (n,).
        share: h, from 0 (uniformly) to 1.
        every: draws between two looks. The first draw takes one, so that a training run that goes on from where a look was due draws
            as if it had never stopped.
    """

    def __init__(
        self, rows: np.ndarray, errors: Callable[[np.ndarray], Tensor], share: float, every: int
    ) -> None:
        self.rows, self.errors, self.share, self.every = rows, errors, share, every
        self.calls = 0

    def __call__(self, generator: torch.Generator, *shape: int) -> tuple[np.ndarray, Tensor]:
        """Transitions of that shape, and their weights, of mean 1."""
        if self.calls % self.every == 0:
            self._look(generator)
        self.calls += 1
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * self.sums[-1]
        at = torch.searchsorted(self.sums, drawn).clamp(max=len(self.pool) - 1)
        return self.pool[at.numpy()], self.weights[at]

    def _look(self, generator: torch.Generator) -> None:
        self.pool = self.rows
        if len(self.rows) > POOL:
            self.pool = self.rows[torch.randint(len(self.rows), (POOL,), generator=generator).numpy()]
        errors = self.errors(self.pool).cpu().double() + 1e-9
        often = 1 - self.share + self.share * errors / errors.mean()  # n p
        self.sums, self.weights = often.cumsum(0), (1 / often).float()
