"""Rolling a policy out, step by step, in the single-step model (Eq. 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dydiff_env.world.dynamics import Dynamics
from dydiff_env.world.termination import TerminationModel

Act = Callable[[int, Tensor], Tensor]
"""(t, normalised states (B, O)) to actions (B, A)."""


class Rollout(NamedTuple):
    """B single-step rollouts of L steps, in normalised units."""

    states: Tensor  # (B, L+1, O)
    actions: Tensor  # (B, L, A)
    disagreement: Tensor  # (B, L, O), of the elites about s_{t+1}
    alive: Tensor  # (B, L), 1 where neither s_{t+1} nor any state before it is terminal


@torch.no_grad()
def rollout(
    dynamics: Dynamics,
    termination: TerminationModel,
    act: Act,
    starts: Tensor,
    horizon: int,
    bound: float = 30.0,
) -> Rollout:
    """τ_dyn of Eq. 6: the elites' mean answers each action; a terminal state is kept to the end.

    Args:
        dynamics: T_φ.
        termination: says which states are terminal.
        act: chooses the actions; it still acts in a state that is kept.
        starts: (B, O), normalised.
        horizon: L.
        bound: states are clipped to this many standard deviations, so that a model that diverges stays finite.
    """
    rows, size = starts.shape
    states = starts.new_empty(rows, horizon + 1, size)  # filled in place: lists of parts fragment the heap
    disagreement, alive = starts.new_empty(rows, horizon, size), starts.new_ones(rows, horizon + 1)
    actions: list[Tensor] = []
    states[:, 0] = now = starts
    for t in range(horizon):
        actions.append(act(t, now))
        prediction = dynamics.predict(now, actions[-1])
        kept = alive[:, t, None]
        now = torch.where(kept > 0, prediction.mean.clamp(-bound, bound), now)
        states[:, t + 1] = now
        disagreement[:, t] = prediction.disagreement * kept
        alive[:, t + 1] = alive[:, t] * (~termination.terminal(now)).float()
    return Rollout(states, torch.stack(actions, 1), disagreement, alive[:, 1:])


def follow(dynamics: Dynamics, termination: TerminationModel, starts: Tensor, actions: Tensor) -> Rollout:
    """The open loop: given actions (B, L, A), whatever the states."""
    return rollout(dynamics, termination, lambda t, _: actions[:, t], starts, actions.shape[1])
