"""Refinement: sample states for the actions, let the policy act on those states, a few times over (Eqs. 7–9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor

from dydiff_env.world.rollout import Rollout

Sample = Callable[[Rollout, Tensor], tuple[Tensor, Tensor]]
"""For rollouts and actions (B, L, A), the states s_1 … s_L (B, L, O) and how likely the episode goes on after each step (B, L)."""
Settle = Callable[[Tensor], tuple[Tensor, Tensor]]
"""For wanted states s_1 … s_L (B, L, O), those of the refined rollouts (B, L+1, O) and the policy's actions (B, L, A) on them."""

UPDATES = ("replace", "average", "damped")


@dataclass(frozen=True)
class RefinementConfig:
    """How often, and what becomes of the states.

    Args:
        iterations: M.
        update: "replace": the sample replaces the states (the paper's text); "average": the mean of the sample and the states before
            (the released code); "damped": the m-th sample counts 1/m² and what was before the rest. These steps have a finite sum, so that
            iterating comes to rest whatever a policy answers.
        trust: share of the sample's distance from the single-step rollout that is believed; 1 is the sample itself (the paper). None:
            estimated for each policy (:mod:`dydiff_env.world.trust`).
        nudge: κ, how hard a rollout is drawn to those states at every step (:mod:`dydiff_env.world.nudge`); 1 puts them in its place
            (the paper).
    """

    iterations: int = 1
    update: str = "damped"
    trust: float | None = None
    nudge: float = 0.6


def refine(
    rolled: Rollout,
    sample: Sample,
    settle: Settle,
    iterations: int,
    update: str = "replace",
    believe: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """M refinements of single-step rollouts.

    The rollout itself stays what the denoiser is anchored to in every iteration; only the actions it is asked about change.
    A rollout made anew from relabelled actions would be an open-loop one, and diverge.

    Args:
        rolled: τ_dyn, B rollouts of L steps.
        sample: the denoiser.
        settle: makes rollouts of the policy out of states.
        iterations: M; 0 returns the rollout.
        update: see RefinementConfig.
        believe: what is left of the samples (B, L, O + 1), the last dimension being alive; default: all.

    Returns:
        states (B, L+1, O), the policy's actions (B, L, A) on them, and how likely the episode goes on after each
        step (B, L).
    """
    return next(islice(refinements(rolled, sample, settle, update, believe), iterations, None))


def refinements(
    rolled: Rollout,
    sample: Sample,
    settle: Settle,
    update: str = "replace",
    believe: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What :func:`refine` returns, for M = 0, 1, 2 and so on."""
    states, actions, alive = rolled.states, rolled.actions, rolled.alive
    so_far = ahead(rolled)
    for m in count(1):
        yield states, actions, alive
        following, living = sample(rolled, actions)
        drawn = torch.cat([following, living[..., None]], -1)
        part = {"replace": 1.0, "average": 0.5, "damped": 1 / m**2}[update]
        so_far = so_far.lerp(drawn, part)
        wanted = so_far if believe is None else believe(so_far)
        states, actions = settle(wanted[..., :-1])
        alive = wanted[..., -1]


def ahead(rolled: Rollout) -> Tensor:
    """(B, L, O + 1): s_1 … s_L, and whether they live."""
    return torch.cat([rolled.states[:, 1:], rolled.alive[..., None]], -1)


def in_place(starts: Tensor, relabel: Callable[[Tensor], Tensor]) -> Settle:
    """The wanted states themselves, and the policy's actions there (Eq. 8).

    Args:
        starts: (B, O).
        relabel: the policy's actions (B, L, A) on states s_0 … s_{L−1} (B, L, O).
    """

    def settle(wanted: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.cat([starts[:, None], wanted], 1)
        return states, relabel(states[:, :-1])

    return settle
