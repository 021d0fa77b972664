"""How wrong a single-step rollout expects itself to be, and the condition the denoiser gets of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dydiff_env.world.denoiser import Condition
from dydiff_env.world.rollout import Rollout


@dataclass(frozen=True)
class ErrorScale:
    """The rollout's expected error, from its step and the disagreement it has gathered.

    ln E(s_t − ŝ_t)² ≈ α_{t,d} + β_{t,d} · ln Σ_{k≤t} disagreement_k²

    A calibrated uncertainty, and the unit in which the denoiser works.

    Args:
        intercept: α, (L, O).
        slope: β, (L, O).
    """

    intercept: Tensor
    slope: Tensor

    @staticmethod
    def gathered(disagreement: Tensor) -> Tensor:
        """ln of the disagreement gathered so far, (B, L, 1), from (B, L)."""
        return (disagreement.square().cumsum(1)[..., None] + 1e-8).log()

    def __call__(self, disagreement: Tensor) -> Tensor:
        """Expected absolute errors (B, L, O) of a rollout with this disagreement (B, L); L may be a prefix."""
        length = disagreement.shape[1]
        log_variance = self.intercept[:length] + self.slope[:length] * self.gathered(disagreement)
        return (log_variance / 2).clamp(np.log(1e-3), np.log(5.0)).exp()

    @staticmethod
    def fit(error: Tensor, disagreement: Tensor, mask: Tensor) -> ErrorScale:
        """Weighted least squares in the log, then a factor per step and dimension that makes the variance right.

        Args:
            error: s − ŝ, (B, L, O).
            disagreement: (B, L).
            mask: (B, L), 1 where the error is known.
        """
        x, y, w = ErrorScale.gathered(disagreement), (error.square() + 1e-8).log(), mask[..., None]
        total = w.sum(0).clamp(min=1)
        mean_x, mean_y = (w * x).sum(0) / total, (w * y).sum(0) / total
        slope = (w * (x - mean_x) * (y - mean_y)).sum(0) / (w * (x - mean_x).square()).sum(0).clamp(min=1e-3)
        slope = slope.clamp(0, 1.5)
        intercept = mean_y - slope * mean_x
        # A log-average underestimates the mean of squares; bounded, so that a few wild rollouts do not set the scale.
        ratio = (error.square() / (intercept + slope * x).exp()).clamp(max=100.0)
        intercept = intercept + ((w * ratio).sum(0) / total).clamp(min=1e-3).log()
        return ErrorScale(intercept, slope)


ALIVE_SCALE = 0.5
"""The unit of the life channel, which is 0 or 1."""


def condition(
    rolled: Rollout, scale: Tensor, actions: Tensor | None = None, valid: Tensor | None = None
) -> Condition:
    """The denoiser's condition for a rollout.

    Args:
        rolled: B rollouts of L steps.
        scale: (B, L, O), their expected errors.
        actions: (B, L, A), whose states are asked for; default: the rollout's own.
        valid: (B, L), 0 where a step is to be left out.
    """
    alive = rolled.alive[..., None]
    return Condition(
        starts=rolled.states[:, 0],
        actions=rolled.actions if actions is None else actions,
        valid=torch.ones_like(rolled.alive) if valid is None else valid,
        anchor=torch.cat([rolled.states[:, 1:], alive], -1),
        anchor_actions=rolled.actions,
        scale=torch.cat([scale, torch.full_like(alive, ALIVE_SCALE)], -1),
    )
