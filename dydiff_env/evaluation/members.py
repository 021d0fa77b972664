"""How far dreamt returns can be believed, told without a simulator: by what each member of the ensemble, asked alone, makes of a policy.

A bootstrap over starts tells how well a dream's mean is known, not how right the dream is. The members were trained on draws of their
own from the same log: where it knows what a policy does they promise the same, and where it does not they part (Lakshminarayanan et
al. 2017, arXiv 1612.01474). They can still be wrong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch

from dydiff_env.evaluation.ope import rank_correlation
from dydiff_env.policies.draws import own_draws, stream
from dydiff_env.policies.loader import as_policy
from dydiff_env.products import fast_products
from dydiff_env.world.acting import Acting, draws
from dydiff_env.world.rollout import BOUND
from dydiff_env.world.world import World

# A ranking to go by has no less consensus and no more spread. Of nine tasks, dreams ranked the six well that these let through; the first
# alone would let a seventh through, whose members order alike what they promise wildly different returns.
AGREED, NEAR = 0.8, 0.1

GONE = 1e-3  # a dream that hardly goes on, where ends are not sure, is not followed further


class ByMember(NamedTuple):
    """Dreamt episodes of a policy in each member of the ensemble alone."""

    returns: np.ndarray  # (members, episodes)
    lengths: np.ndarray  # (members, episodes)


@torch.no_grad()
def returns_by_member(
    world: World,
    policy: Any,
    episodes: int = 100,
    *,
    horizon: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
    noise: float = 0.0,
    discount: float = 1.0,
) -> ByMember:
    """What a policy earns in the single-step dreams of each member, all from the same starts and with the same draws.

    Args:
        world, policy, episodes, horizon, deterministic, seed, discount: as for :func:`~dydiff_env.evaluation.ope.dream_returns`.
        noise: standard deviation of what is added to the actions, in units of half an action's range.
    """
    policy = as_policy(policy, world.spec, device=str(world.device))
    models, within = world.models, world.normalizer.within
    members = models.dynamics.config.members
    each, generator = models.dynamics.only(range(members)), torch.Generator(world.device).manual_seed(stream(seed, 0))
    acting = Acting(world, policy, deterministic, stream(seed, 1) if draws(world, policy, deterministic) else None)
    starts = torch.from_numpy(world.sample_starts(episodes, seed=seed, kind="initial")).to(world.device)
    states = world.normalizer.normalize(starts).expand(members, -1, -1)
    memory = states.new_zeros(members, episodes, each.memory_size)
    alive, returns, lengths = states.new_ones(members, episodes), *states.new_zeros(2, members, episodes)
    rows = torch.arange(episodes, device=world.device)  # the starts from which a member still lives
    with fast_products(world.device), own_draws(world.device):
        for t in range(world.episode_limit if horizon is None else horizon):
            actions = acting.each(t, states)
            if noise:
                # Of all starts, also those where none lives any more: each meets the same noise under whatever policy.
                drawn = torch.randn(episodes, actions.shape[-1], generator=generator, device=world.device)
                actions = (actions + noise * (world.high - world.low) / 2 * drawn[rows]).clamp(world.low, world.high)
            following = each.each(states, actions, memory).clamp(-BOUND, BOUND)
            outlived = models.termination.outlived(following)
            rewards = models.reward.expected(within(states), actions, within(following), outlived)
            returns[:, rows] += alive * discount**t * rewards
            lengths[:, rows] += alive
            memory, states = each.recall(states, actions, following), following
            alive = alive * outlived
            lives = (alive > GONE).any(0)
            rows, alive, states, memory = rows[lives], alive[:, lives], states[:, lives], memory[:, lives]
            if not len(rows):
                break
    return ByMember(returns.cpu().numpy(), lengths.cpu().numpy())


def consensus(returns: Mapping[str, np.ndarray]) -> float:
    """Whether the members agree on a ranking: the mean rank correlation of any two, 1 where all rank the policies alike.

    Args:
        returns: by policy, two at least, mean returns (members,); of two members at least.
    """
    by_member = np.stack(list(returns.values()), 1)
    return float(np.mean([rank_correlation(*pair) for pair in combinations(by_member, 2)]))


def spread(returns: Mapping[str, np.ndarray]) -> float:
    """How far the members part: a return's standard deviation over members, the mean over policies, to the range of the policies' medians.

    Args:
        returns: as for :func:`consensus`.
    """
    by_member = np.stack(list(returns.values()), 1)
    return float(by_member.std(0).mean() / (np.ptp(np.median(by_member, 0)) or 1.0))
