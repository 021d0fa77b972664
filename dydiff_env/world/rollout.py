"""Rolling a policy out, step by step, in the single-step model (Eq. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dydiff_env.data.normalizer import FARTHEST
from dydiff_env.world.dynamics import Dynamics
from dydiff_env.world.termination import TerminationModel

Act = Callable[[int, Tensor], Tensor]
"""(t, normalised states (B, O)) to actions (B, A)."""

LOOK = 4  # steps between two looks at which members' rollouts have ended
BOUND = FARTHEST  # states are clipped to this many standard deviations, so that a model that diverges stays finite


class Rollout(NamedTuple):
    """B single-step rollouts of L steps, in normalised units."""

    states: Tensor  # (B, L+1, O)
    actions: Tensor  # (B, L, A)
    disagreement: Tensor  # (B, L), of the elites about s_{t+1}: root mean square over its dimensions
    alive: Tensor  # (B, L), 1 where neither s_{t+1} nor any state before it is terminal, or how likely that is
    first: Tensor | None = None  # (B, L, O), what the first elite alone would have put in s_{t+1}'s place; not kept in training
    memory: Tensor | None = None  # (B, P), of the step before the first


@torch.no_grad()
def rollout(
    dynamics: Dynamics,
    termination: TerminationModel,
    act: Act,
    starts: Tensor,
    horizon: int,
    memory: Tensor | None = None,
) -> Rollout:
    """τ_dyn of Eq. 6: the elites' mean answers each action; a terminal state is kept to the end.

    Args:
        dynamics: T_φ.
        termination: says which states are terminal.
        act: chooses the actions; it still acts in a state that is kept.
        starts: (B, O), normalised.
        horizon: L.
        memory: (B, P), of the steps that led to the starts (:meth:`Dynamics.recall`); default: nothing is known of them.
    """
    rows, size = starts.shape
    states = starts.new_empty(rows, horizon + 1, size)  # filled in place: lists of parts fragment the heap
    first, disagreement = starts.new_empty(rows, horizon, size), starts.new_empty(rows, horizon)
    alive = starts.new_ones(rows, horizon + 1)
    actions: list[Tensor] = []
    states[:, 0] = now = starts
    recalled = memory
    for t in range(horizon):
        actions.append(act(t, now))
        prediction = dynamics.predict(now, actions[-1], recalled)
        kept = alive[:, t, None] > 0
        following = torch.where(kept, prediction.mean.clamp(-BOUND, BOUND), now)
        recalled = dynamics.recall(now, actions[-1], following)
        states[:, t + 1] = now = following
        disagreement[:, t] = prediction.disagreement.square().mean(-1).sqrt() * kept[:, 0]
        first[:, t] = prediction.first
        alive[:, t + 1] = alive[:, t] * termination.outlived(now)
    return Rollout(states, torch.stack(actions, 1), disagreement, alive[:, 1:], first, memory)


@torch.no_grad()
def apart(
    dynamics: Dynamics,
    termination: TerminationModel,
    act: Act,
    starts: Tensor,
    horizon: int,
    memory: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The elites' own rollouts: each goes its own way from the same starts, and the policy acts on its states.

    Args:
        dynamics: T_φ.
        termination: says which states are terminal; what comes after one is no longer of use.
        act: chooses the actions (elites, B, A) in states (elites, B, O).
        starts: (B, O), normalised.
        horizon: L.
        memory: as of :func:`rollout`.

    Yields:
        For t = 1 … L the states s_t (elites, B, O), and (elites, B), 1 where no state before has been seen to be terminal; it is
        looked at every ``LOOK`` steps, since it takes as long as two elites.
    """
    now = starts.expand(len(dynamics.elites), -1, -1)
    recalled = None if memory is None else memory.expand(len(dynamics.elites), -1, -1)
    alive = starts.new_ones(now.shape[:2])
    for t in range(horizon):
        actions = act(t, now)
        following = dynamics.each(now, actions, recalled).clamp(-BOUND, BOUND)
        recalled, now = dynamics.recall(now, actions, following), following
        if t % LOOK == LOOK - 1:
            alive = alive * termination.outlived(now) ** LOOK
        yield now, alive


def follow(
    dynamics: Dynamics, termination: TerminationModel, starts: Tensor, actions: Tensor, memory: Tensor | None = None
) -> Rollout:
    """The open loop: given actions (B, L, A), whatever the states."""
    return rollout(dynamics, termination, lambda t, _: actions[:, t], starts, actions.shape[1], memory)
