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
    states, actions, disagreement = [starts], [], []
    alive = [torch.ones(len(starts), device=starts.device)]
    for t in range(horizon):
        action = act(t, states[-1])
        prediction = dynamics.predict(states[-1], action)
        kept = alive[-1][:, None]
        following = torch.where(kept > 0, prediction.mean.clamp(-bound, bound), states[-1])
        states.append(following)
        actions.append(action)
        disagreement.append(prediction.disagreement * kept)
        alive.append(alive[-1] * (~termination.terminal(following)).float())
    return Rollout(
        torch.stack(states, 1),
        torch.stack(actions, 1),
        torch.stack(disagreement, 1),
        torch.stack(alive[1:], 1),
    )


def follow(dynamics: Dynamics, termination: TerminationModel, starts: Tensor, actions: Tensor) -> Rollout:
    """The open loop: given actions (B, L, A), whatever the states."""
    return rollout(dynamics, termination, lambda t, _: actions[:, t], starts, actions.shape[1])
