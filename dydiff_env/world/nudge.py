"""Nudging: the policy rolled out again, by a model that is drawn towards where the refinement says the states should be.

A denoiser's states are closer to the truth than a rollout's, but rougher: each is a guess of its own, and they follow from one
another less exactly than states that a model has rolled out. Meteorologists meet the same question when observations should correct
a forecast, and answer it by nudging (Newtonian relaxation; Hoke and Anthes, 1976): run the model, and at every step pull it a part κ of
the way towards the wanted state s*,

    x_{t+1} = (1 − κ) f(x_t, π(x_t)) + κ s*_{t+1}.

Only what the model itself cannot follow is left out. The policy acts on the very states of the result, so its actions need no
relabelling. κ = 1 puts the wanted states in the place of the rollout's, as in the paper.

Near the anchor ŝ, one member is enough for f: the ensemble's mean there is known from the anchor's own rollout, and the member adds
by how much the next state moves with the state and the policy's answer,

    f(x, a) = ŝ_{t+1} + f_1(x, a) − f_1(ŝ_t, â_t).

So where nothing is to be corrected, the result is the anchor, to the digit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dydiff_env.world.dynamics import Dynamics
from dydiff_env.world.rollout import BOUND, Act, Rollout


def nudger(
    dynamics: Dynamics, rolled: Rollout, act: Act, gain: float
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """For the wanted states s_1 … s_L (B, L, O) of B rollouts: the states (B, L+1, O) and the actions (B, L, A) of the nudged ones.

    Args:
        dynamics: T_φ.
        rolled: the anchor.
        act: the policy that was rolled out.
        gain: κ.
    """
    single = dynamics.only(dynamics.elites[:1].tolist())
    assert rolled.first is not None
    offset = rolled.states[:, 1:] - rolled.first
    lives = torch.cat([torch.ones_like(rolled.alive[:, :1]), rolled.alive[:, :-1]], 1)[..., None]

    @torch.no_grad()
    def nudged(wanted: Tensor) -> tuple[Tensor, Tensor]:
        states = torch.empty_like(rolled.states)
        states[:, 0] = now = rolled.states[:, 0]
        memory, actions = rolled.memory, []
        for t in range(wanted.shape[1]):
            actions.append(act(t, now))
            following = single.predict(now, actions[-1], memory).mean + offset[:, t]
            drawn = following.lerp(wanted[:, t], torch.where(lives[:, t] > 0, gain, 1.0)).clamp(-BOUND, BOUND)
            memory = dynamics.recall(now, actions[-1], drawn)
            states[:, t + 1] = now = drawn
        return states, torch.stack(actions, 1)

    return nudged
