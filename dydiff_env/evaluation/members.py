"""How far dreamt returns can be believed, told without a simulator: by what each member of the ensemble, asked alone, makes of a policy.

A bootstrap over starts tells how well a dream's mean is known, not how right the dream is. The members were trained on draws of their
own from the same log: where it knows what a policy does they promise the same, and where it does not they part (Lakshminarayanan et
al. 2017, arXiv 1612.01474). They can still be wrong together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from dydiff_env.evaluation.ope import dream_returns, rank_correlation
from dydiff_env.policies.policy import Policy
from dydiff_env.world.world import World

AGREED = 0.8  # the least consensus of a ranking to go by: of eight tasks, dreams ranked well where it was .84 to 1, badly where .25 or less


def alone(world: World, member: int) -> World:
    """The same world with one member of its ensemble for its whole single-step model; the weights are shared.

    Args:
        world: whose member.
        member: from 0.
    """
    models = copy.copy(world.models)
    models._modules = {**models._modules, "dynamics": world.models.dynamics.only([member])}
    return replace(world, models=models)


def returns_by_member(
    world: World,
    policy: Policy,
    episodes: int = 100,
    *,
    horizon: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """A policy's mean undiscounted return (members,) in the single-step dreams of each member of the ensemble.

    Args:
        world, policy, episodes, horizon, deterministic, seed: as for :func:`~dydiff_env.evaluation.ope.dream_returns`; every member
            dreams from the same starts.
    """
    means = [
        dream_returns(
            alone(world, member), policy, episodes, horizon=horizon, iterations=0, deterministic=deterministic, seed=seed
        ).returns.mean()
        for member in range(world.models.dynamics.config.members)
    ]
    return np.array(means)


def consensus(returns: Mapping[str, np.ndarray]) -> float:
    """Whether the members agree on a ranking: the mean rank correlation of any two, 1 where all rank the policies alike.

    Args:
        returns: by policy, two at least, what :func:`returns_by_member` found; of two members at least.
    """
    by_member = np.stack(list(returns.values()), 1)
    return float(np.mean([rank_correlation(*pair) for pair in combinations(by_member, 2)]))
