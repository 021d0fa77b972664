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

from dydiff_env.products import half_products
from dydiff_env.world.batches import Batches
from dydiff_env.world.behavior import Behavior
from dydiff_env.world.denoiser import Condition, Denoiser
from dydiff_env.world.error_scale import ErrorScale, condition
from dydiff_env.world.models import Models, action_bounds
from dydiff_env.world.rollout import Rollout, rollout


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


def closed_loop(feedback: Feedback, models: Models, memory: Tensor) -> Rollout:
    """The single-step model's rollouts of the policies π_w, with memory (B, P) of the steps before."""
    starts, horizon = feedback.states[:, 0], feedback.actions.shape[1]
    return rollout(models.dynamics, models.termination, feedback.act, starts, horizon, memory)


@torch.no_grad()
def feedback_windows(
    batches: Batches, models: Models, starts: np.ndarray, length: int, clone: int, gain: Tensor
) -> tuple[Feedback, Tensor, Tensor]:
    """The policies π_w of logged windows; which steps are real, and which are outlived, (B, L) each."""
    states, actions, real, alive = batches.windows(starts, length)
    behavior = models.behavior
    assert behavior is not None
    low, high = (bound.to(states.device) for bound in action_bounds(batches.dataset.spec))
    actions = torch.where(real[..., None] > 0, actions, behavior(clone, states[:, :-1]))
    return Feedback(behavior, clone, states, actions, gain[:, None], low, high), real, alive


@torch.no_grad()
def training_condition(
    feedback: Feedback,
    rolled: Rollout,
    scale: ErrorScale,
    relabelled: float,
    jitter: float,
    generator: torch.Generator,
) -> Condition:
    """What the denoiser is told in training: often the actions of a half-refined rollout, sometimes only a prefix.

    A refined rollout lies between the single-step one and the truth, with an error of its own; its relabelled actions are π_w's
    there. Trained on them, the denoiser neither trusts relabelled actions blindly nor follows their jitter, so iterating contracts.
    """
    rows, length, _ = rolled.actions.shape
    device = rolled.states.device
    expected = scale(rolled.disagreement)
    towards = torch.rand(rows, 1, 1, generator=generator).to(device)
    shape = (rows, 4, rolled.states.shape[-1])  # errors that are smooth along the window
    smooth = torch.nn.functional.interpolate(
        torch.randn(shape, generator=generator).transpose(1, 2), length, mode="linear"
    )
    rough = torch.randn(rows, length, shape[-1], generator=generator)
    noise = (0.8 * smooth.transpose(1, 2) + 0.6 * rough).to(device) * jitter * expected
    states = feedback.states.clone()
    states[:, 1:] += (1 - towards) * (rolled.states[:, 1:] - states[:, 1:]) + towards * noise
    again = (torch.rand(rows, 1, 1, generator=generator) < relabelled).to(device)
    actions = torch.where(again, feedback.relabel(states[:, :-1]), rolled.actions)
    cut = torch.randint(1, length + 1, (rows, 1), generator=generator)
    cut = torch.where(torch.rand(rows, 1, generator=generator) < 0.1, cut, length).to(device)
    valid = (torch.arange(length, device=device) < cut).float()
    return condition(rolled, expected, actions, valid)


@torch.no_grad()
def refined_condition(feedback: Feedback, given: Condition, denoiser: Denoiser) -> Condition:
    """Half the windows with π_w's actions on states that the denoiser, as it now is, makes of them: a further iteration."""
    half = given.rows(slice(0, -(-len(given.starts) // 2)))
    assert half.anchor is not None and half.scale is not None
    sigma = torch.full((len(half.starts),), denoiser.config.sigma_max, device=given.starts.device)
    with half_products(given.starts.device):
        correction = denoiser(torch.zeros_like(half.anchor), sigma, half)
    drawn = half.anchor + half.scale * correction
    states = torch.cat([half.starts[:, None], drawn[:, :-1, :-1]], 1)
    again = feedback.rows(slice(0, len(half.starts))).relabel(states)
    return given._replace(actions=torch.cat([again, given.actions[len(half.starts) :]]))
