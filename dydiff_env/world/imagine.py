"""Short rollouts that gradients flow through: how what a policy earns changes with its actions (Heess et al. 2015, arXiv 1510.09142)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dydiff_env.world.rollout import BOUND
from dydiff_env.world.world import World

LEAST = 1e-12


class Imagined(NamedTuple):
    """B rollouts of H steps."""

    rewards: Tensor  # (B, H)
    uncertainties: Tensor  # (B, H), root mean square of the members' disagreement about the next state
    lives: Tensor  # (B, H), 1 where a step is outlived, 0 where it ends the episode; a soft step between them
    last: Tensor  # (B, O), the last observations, environment units


def imagine(
    world: World,
    act: Callable[[Tensor], Tensor],
    observations: Tensor,
    before: Tensor,
    horizon: int,
    member: Tensor | None = None,
) -> Imagined:
    """Roll a policy out by the single-step model, with gradients.

    Each rollout may be one member's, instead of the elites' mean: what all members agree on can be earned in each of them, what only their
    mean promises cannot.

    Args:
        world: what is dreamt in.
        act: differentiable, observations (B, O) to actions (B, A), environment units.
        observations: (B, O), where to start.
        before: (B, O + A), the steps that led there; NaN where they are not known.
        horizon: H.
        member: (B,) int, whose rollout each is; −1 for the elites' mean. Default: all the elites' mean.
    """
    dynamics, ends = world.models.dynamics, world.models.termination
    every, elites = dynamics.only(range(dynamics.config.members)), dynamics.elites
    states = world.normalizer.normalize(observations)
    earlier, actions = before.split([observations.shape[1], before.shape[1] - observations.shape[1]], -1)
    known = before.isfinite().all(-1)
    memory = dynamics.recall(world.normalizer.normalize(earlier), actions, states, known=known)
    rows = torch.arange(len(states), device=states.device)
    rewards, uncertainties, lives = [], [], []
    for _ in range(horizon):
        action = act(world.normalizer.denormalize(states))
        found = every.each(states.expand(dynamics.config.members, -1, -1), action.expand(dynamics.config.members, -1, -1),
                           memory.expand(dynamics.config.members, -1, -1))  # fmt: skip
        following = found[elites].mean(0)
        spread = (found[elites] - following).square().mean((0, 2))
        if member is not None:
            following = torch.where(member[:, None] < 0, following, found[member.clamp(min=0), rows])
        following = following.clamp(-BOUND, BOUND)
        uncertainties.append((spread + LEAST).sqrt() - LEAST**0.5)  # a root has no slope at 0
        if ends.rule is None and torch.isinf(ends.sharpness):
            lives.append(torch.sigmoid(ends.threshold - ends(following)))  # 1 where the threshold is infinite: nothing ever ends
        else:
            lives.append(ends.outlived(following))
        seen = (world.normalizer.within(states), action, world.normalizer.within(following))
        rewards.append(world.models.reward.expected(*seen, lives[-1]))
        memory, states = dynamics.recall(states, action, following), following
    last = world.normalizer.denormalize(states)
    return Imagined(torch.stack(rewards, 1), torch.stack(uncertainties, 1), torch.stack(lives, 1), last)
