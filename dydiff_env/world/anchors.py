"""Training pairs for the anchored denoiser: what the single-step model dreams of a policy, and what really happened.

The denoiser is used in closed loop: it is given the rollout of a *policy* in the single-step model, and should say
what that policy would really have met. Logged windows give such pairs without a simulator. For a window (s, a) and a behaviour
clone β, the policy

    π_w(t, s) = a_t + g · (β(s) − β(s_t))                                                      (residual feedback)

reproduces the logged window exactly in the real environment, because there s = s_t at every step; and in the single-step
model it reacts to the model's errors as a policy with β's feedback does. Rolling π_w out from s_0 gives the anchor, the log
gives the truth. g = 0 is the open loop: the logged actions, blindly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dydiff_env.world.behavior import Behavior
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.dynamics import Dynamics
from dydiff_env.world.rollout import Rollout, rollout
from dydiff_env.world.termination import TerminationModel


@dataclass(frozen=True)
class AnchorConfig:
    """How the training rollouts are made.

    Args:
        windows: how many; they are rolled out once and kept on disk.
        open_loop: share with g = 0; the others draw g uniformly from ``gain``.
        gain: bounds of g.
        relabelled: share of the training windows with the actions of an imitated refined rollout instead of the
            anchor's own.
        jitter: standard deviation of the noise of such a rollout, in units of the expected error.
        refined: share of the batches in which half the windows have the actions of a rollout that the denoiser
            itself has refined.
        after_end: weight in the loss of the steps after a termination, where the truth stands still.
    """

    windows: int = 60_000
    open_loop: float = 0.25
    gain: tuple[float, float] = (0.5, 1.5)
    relabelled: float = 0.4
    jitter: float = 0.3
    refined: float = 0.5
    after_end: float = 0.2


@dataclass(frozen=True)
class Feedback:
    """The policies π_w of B logged windows.

    Args:
        behavior: the clones.
        clone: which one these windows use.
        states: (B, L+1, O), the logged states, normalised; after a termination the last one, repeated.
        actions: (B, L, A), logged; after the end whatever ``clone`` does there.
        gain: (B, 1).
        low: (A,), action bounds.
        high: (A,).
    """

    behavior: Behavior
    clone: int
    states: Tensor
    actions: Tensor
    gain: Tensor
    low: Tensor
    high: Tensor

    def rows(self, rows: slice) -> Feedback:
        """Some of the policies."""
        return replace(self, states=self.states[rows], actions=self.actions[rows], gain=self.gain[rows])

    def act(self, t: int, states: Tensor) -> Tensor:
        """π_w at step t in normalised states (B, O)."""
        feedback = self.behavior(self.clone, states) - self.behavior(self.clone, self.states[:, t])
        return torch.clamp(self.actions[:, t] + self.gain * feedback, self.low, self.high)

    def relabel(self, states: Tensor) -> Tensor:
        """π_w's actions (B, L, A) along whole trajectories of normalised states (B, L, O), as in Eq. 8."""
        feedback = self.behavior(self.clone, states) - self.behavior(self.clone, self.states[:, :-1])
        return torch.clamp(self.actions + self.gain[..., None] * feedback, self.low, self.high)


@dataclass(frozen=True)
class ErrorScale:
    """The rollout's expected error, from its step and the disagreement it has gathered.

    ln E(s_t − ŝ_t)² ≈ α_{t,d} + β_{t,d} · ln Σ_{k≤t} mean_d disagreement²

    A calibrated uncertainty, and the unit in which the denoiser works.

    Args:
        intercept: α, (L, O).
        slope: β, (L, O).
    """

    intercept: Tensor
    slope: Tensor

    @staticmethod
    def gathered(disagreement: Tensor) -> Tensor:
        """ln of the disagreement gathered so far, (B, L, 1), from (B, L, O)."""
        return (disagreement.square().mean(-1, keepdim=True).cumsum(1) + 1e-8).log()

    def __call__(self, disagreement: Tensor) -> Tensor:
        """Expected absolute errors (B, L, O) of a rollout with this disagreement (B, L, O); L may be a prefix."""
        length = disagreement.shape[1]
        log_variance = self.intercept[:length] + self.slope[:length] * self.gathered(disagreement)
        return (log_variance / 2).clamp(np.log(1e-3), np.log(5.0)).exp()

    @staticmethod
    def fit(error: Tensor, disagreement: Tensor, mask: Tensor) -> ErrorScale:
        """Weighted least squares in the log, then a factor per step and dimension that makes the variance right.

        Args:
            error: s − ŝ, (B, L, O).
            disagreement: (B, L, O).
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


def closed_loop(feedback: Feedback, dynamics: Dynamics, termination: TerminationModel) -> Rollout:
    """The single-step model's rollouts of the policies π_w."""
    return rollout(dynamics, termination, feedback.act, feedback.states[:, 0], feedback.actions.shape[1])


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
