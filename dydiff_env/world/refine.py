"""Refinement: sample states for the actions, relabel the actions on those states, a few times over (Eqs. 7–9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from dydiff_env.world.rollout import Rollout


@dataclass(frozen=True)
class RefinementConfig:
    """How often, and what becomes of the states.

    Args:
        iterations: M.
        update: "replace": the sample replaces the states (the paper's text); "average": the mean of the sample and the states before
            (the released code).
        trust: share of the sample's distance from the single-step rollout that is believed; 1 is the sample itself (the paper). None:
            estimated for each policy (:mod:`dydiff_env.world.trust`).
    """

    iterations: int = 2
    update: str = "replace"
    trust: float | None = None


def refine(
    rolled: Rollout,
    sample: Callable[[Rollout, Tensor], tuple[Tensor, Tensor]],
    relabel: Callable[[Tensor], Tensor],
    iterations: int,
    update: str = "replace",
    trust: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """M refinements of single-step rollouts.

    The rollout itself stays what the denoiser is anchored to in every iteration; only the actions it is asked about change.
    A rollout made anew from relabelled actions would be an open-loop one, and diverge.

    Args:
        rolled: τ_dyn, B rollouts of L steps.
        sample: for the rollout and actions (B, L, A), the states s_1 … s_L (B, L, O) and how likely the episode
            goes on after each step (B, L).
        relabel: the policy's actions (B, L, A) on states s_0 … s_{L−1} (B, L, O).
        iterations: M; 0 returns the rollout.
        update: see RefinementConfig.
        trust: see RefinementConfig; or (O + 1,), of each dimension of the states and of being alive.

    Returns:
        states (B, L+1, O), the policy's actions (B, L, A) on them, and how likely the episode goes on after each
        step (B, L).
    """
    rounds = refinements(rolled, sample, relabel, update, trust)
    return next(islice(rounds, iterations, None))


def refinements(
    rolled: Rollout,
    sample: Callable[[Rollout, Tensor], tuple[Tensor, Tensor]],
    relabel: Callable[[Tensor], Tensor],
    update: str = "replace",
    trust: Tensor | float = 1.0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What :func:`refine` returns, for M = 0, 1, 2 and so on."""
    states, actions, alive = rolled.states, rolled.actions, rolled.alive
    while True:
        yield states, actions, alive
        following, living = sample(rolled, actions)
        if isinstance(trust, Tensor):
            following = rolled.states[:, 1:].lerp(following, trust[:-1])
            living = rolled.alive.lerp(living, trust[-1])
        elif trust != 1:
            following = rolled.states[:, 1:].lerp(following, trust)
            living = rolled.alive.lerp(living, trust)
        if update == "average":
            following, living = (following + states[:, 1:]) / 2, (living + alive) / 2
        states, alive = torch.cat([states[:, :1], following], 1), living
        actions = relabel(states[:, :-1])
