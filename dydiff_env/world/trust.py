"""How far corrections of a policy's rollouts are to be believed: as far as the ensemble's members bear them out.

Where the single-step model is good, a correction can harm: it may read something off the log that this policy's rollouts do not
have, or be asked about states the log never held. No simulator is at hand to tell, but the ensemble is. Each member is a
world as like the ensemble's mean as reality is: roll the policy out in the mean (the anchor ŝ) and, from the same starts, in each
member m alone, each in its own closed loop. With c the correction of the anchor, the share of it that serves the members best is

    η_d = Σ (s^m − ŝ)_d c_d / Σ c_d²        (least squares over starts and steps, for each dimension d)

taken from 0 to 1, less its standard error over the members. Half of it is applied: the squared error it saves is quadratic in the share, so
half keeps three quarters of the gain, and a quarter of the price, which is that corrected states follow from one another less
exactly than rolled-out ones.

Members that are much nearer to one another than reality is to them have an error in common, which they cannot tell of. `fit` finds
that out on held-out episodes (heldout.py) and then sets one number for all policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dydiff_env.world.rollout import Rollout

STARTS = 64  # rollouts that the share is estimated from
APPLIED = 0.5  # part of η


def borne_out(anchor: Rollout, states: Tensor, alive: Tensor, members: Sequence[Rollout]) -> Tensor:
    """The share of B corrections of L steps that is applied: APPLIED · η.

    Args:
        anchor: in the ensemble's mean.
        states: (B, L, O), the corrected s_1 … s_L.
        alive: (B, L), the corrected chance that each step is outlived.
        members: in each member alone, from the same starts.

    Returns:
        (O + 1,), from 0 to ``APPLIED``: of the states' dimensions, and of being alive.
    """
    both = torch.cat([states - anchor.states[:, 1:], (alive - anchor.alive)[..., None]], -1)
    shares = []
    for member in members:
        known = ((anchor.alive > 0) & (member.alive > 0)).float()[..., None]
        weight = torch.cat([known.expand_as(states), torch.ones_like(known)], -1)
        apart = torch.cat(
            [member.states[:, 1:] - anchor.states[:, 1:], (member.alive - anchor.alive)[..., None]], -1
        )
        total = (weight * both.square()).sum((0, 1))
        shares.append((weight * apart * both).sum((0, 1)) / total.clamp(min=1e-12))
    found = torch.stack(shares)
    error = found.std(0) / len(members) ** 0.5 if len(members) > 1 else torch.zeros_like(found[0])
    return APPLIED * (found.mean(0) - error).clamp(0, 1)
