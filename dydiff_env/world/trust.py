"""How far corrections of a policy's rollouts are to be believed: as far as the ensemble's members bear them out.

Where the single-step model is good, a correction can harm: it may read something off the log that this policy's rollouts do not
have, or be asked about states the log never held. No simulator is at hand to tell, but the ensemble is. Each member m is a
world as like the mean of the others as reality is like the mean of all. Roll the policy out in m alone (s^m, for the truth) and, from the
same starts, in the mean of the other elites (the anchor ŝ), in closed loop each. Two things may bring the anchor nearer to the truth:

- c, the denoiser's correction of it;
- e, how far the other elites go from it, each rolled out on its own, on the mean: rollouts that spread around a turn or a fall have
  another mean than the mean's rollout.

Their shares are those that serve best, for each dimension d and over all starts and steps,

    least Σ ((s^m − ŝ)_d − η_d c_d − ζ_d e_d)²,

averaged over m, less two and a half standard errors of that mean, from 0 to 1. What a correction reads off is there for some policies
and not for others, and a share that is not clearly borne out does more harm than good.

Members that are much nearer to one another than reality is to them have an error in common, which they cannot tell of. `fit` finds
that out on held-out episodes (heldout.py) and then sets one number for all policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dydiff_env.world.refine import ahead
from dydiff_env.world.rollout import Rollout

ASTRAY = 4.0  # times as far as the median member: a rollout that has gone farther counts as if it had gone so far
STARTS = 64  # rollouts that the shares are estimated from
CAUTION = 2.5  # standard errors that are taken off η and ζ


class Trust(NamedTuple):
    """How much of each correction is applied.

    Args:
        denoiser: η, (O + 1,): of the states' dimensions and of being alive; or one number for all.
        members: ζ, (O,), or one number for all.
    """

    denoiser: Tensor | float
    members: Tensor | float = 0.0

    @property
    def asks_denoiser(self) -> bool:
        """Whether c is needed."""
        return bool(torch.as_tensor(self.denoiser).any())

    @property
    def asks_members(self) -> bool:
        """Whether e is needed."""
        return bool(torch.as_tensor(self.members).any())


def elsewhere(anchor: Rollout, steps: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """e, (B, L, O), for members' own rollouts: at each step their states (members, B, O), and which are alive (members, B).

    A member that has ended no longer tells where others go, and counts as not apart. One that has gone astray, far beyond what it was
    trained on, would draw the mean of all after it, and is held back (``ASTRAY``).
    """
    e = torch.empty_like(anchor.states[:, 1:])
    for t, (states, alive) in enumerate(steps):
        apart = alive[..., None] * (states - anchor.states[:, t + 1])
        distance = apart.square().mean(-1, keepdim=True).sqrt()
        median = torch.where(alive[..., None] > 0, distance, torch.nan).nanmedian(0).values.nan_to_num(0)
        e[:, t] = (apart * (ASTRAY * median / distance.clamp(min=1e-9)).clamp(max=1)).mean(0)
    return e


def shares(anchor: Rollout, truth: Tensor, denoiser: Tensor, members: Tensor) -> Tensor:
    """η and ζ, (2, O + 1), that would have served B rollouts of L steps best, if the truth were this; ζ of being alive is 0.

    Args:
        anchor: the rollouts.
        truth: (B, L, O + 1), states s_1 … s_L and, last, whether they live.
        denoiser: (B, L, O + 1), what the denoiser makes of the anchor.
        members: e, (B, L, O).
    """
    start = ahead(anchor)
    known = (start[..., -1:] > 0) & (truth[..., -1:] > 0)
    weight = torch.cat([known.expand_as(members), torch.ones_like(known)], -1)
    e = torch.cat([members, torch.zeros_like(members[..., :1])], -1)
    y, c, e = (weight * x for x in (truth - start, denoiser - start, e))
    cc, ee, ce, yc, ye = ((a * b).sum((0, 1)) for a, b in ((c, c), (e, e), (c, e), (y, c), (y, e)))
    cc, ee = 1.001 * cc + 1e-12, 1.001 * ee + 1e-12  # a ridge: the two may be alike
    return torch.stack([yc * ee - ye * ce, ye * cc - yc * ce]) / (cc * ee - ce * ce)


def borne_out(found: Sequence[Tensor]) -> Trust:
    """What the members' :func:`shares` come to; nothing is believed where there are none."""
    if not found:
        return Trust(0.0)
    views = torch.stack(list(found))
    error = views.std(0) / len(views) ** 0.5 if len(views) > 1 else torch.zeros_like(views[0])
    denoiser, members = (views.mean(0) - CAUTION * error).clamp(0, 1)
    return Trust(denoiser, members[:-1])
