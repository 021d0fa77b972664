"""Judging an agent without its environment: by the return of its dreams, so that a run's best checkpoint is kept.

Offline training has no simulator to say when to stop, and an agent that was good can fall apart while its losses look well. Its dreams
show it: selection by off-policy evaluation (Fu et al., 2021, arXiv 2103.16596).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dydiff_env.data.dataset import Dataset, check_same_spaces
from dydiff_env.evaluation.members import ByMember, returns_by_member
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.policies.loader import as_policy
from dydiff_env.policies.policy import Policy
from dydiff_env.world.identity import world_fingerprint
from dydiff_env.world.world import LONGEST, World


@dataclass(frozen=True)
class Judge:
    """Dreams whole episodes of an agent.

    Args:
        world: where.
        horizon: the longest episode, steps.
        episodes: how many, from first states of the data; the same ones every time, so that agents are compared on the same starts.
    """

    world: World
    horizon: int
    episodes: int = 32

    @staticmethod
    def of(world: World, data: Dataset) -> Judge:
        """A judge of agents that are trained on ``data``: its episodes are as long as the environment's, or else as the longest logged, but
        no longer than 1 000 steps.

        Raises:
            DyDiffError: where the world's spaces are others.
        """
        check_same_spaces(data.spec, world.spec)
        limit = data.spec.environment.max_episode_steps if data.spec.environment else None
        return Judge(world, min(int(limit or data.lengths.max()), LONGEST))

    @cached_property
    def fingerprint(self) -> str:
        """Of the world."""
        return world_fingerprint(self.world)

    def __call__(self, agent: Policy) -> dict[str, float]:
        """A row of the log: mean and spread of the return of the agent's dreamt episodes, and their mean length."""
        policy, refined = as_policy(agent, self.world.spec), None if self.world.anchored else 0
        # Without an anchor a refinement takes a whole sampler's calls: a judge would take longer than the training.
        found = dream_returns(self.world, policy, self.episodes, horizon=self.horizon, iterations=refined)
        return {
            "dream_return": float(found.returns.mean()),
            "dream_std": float(found.returns.std()),
            "dream_length": float(found.lengths.mean()),
        }


@dataclass(frozen=True)
class Sceptic:
    """Dreams whole episodes of a policy in each member of the ensemble alone, its actions disturbed, and believes the member in which it
    gains least over another.

    What members differ in about both policies alike, one promising more than the next, says nothing about which is better.

    Args:
        world: whose members.
        horizon: the longest episode, steps.
        than: the policy to be better than.
        episodes: in each member, from first states of the data; the same ones every time, and the same noise.
        noise: its standard deviation, in units of half an action's range: what holds only without noise does not hold in reality.
    """

    world: World
    horizon: int
    than: Policy
    episodes: int = 16
    noise: float = 0.1

    @cached_property
    def fingerprint(self) -> str:
        """Of the world."""
        return f"{world_fingerprint(self.world)} by the least gain in a member, noise {self.noise}"

    @cached_property
    def before(self) -> np.ndarray:
        """What the policy to be better than earns in each member (members,)."""
        return self._dreams(self.than).returns.mean(1)

    def __call__(self, policy: Policy) -> dict[str, float]:
        """A row of the log: what the other policy earns, and the least that this one earns more in any member; the spread over members,
        and the mean length in all."""
        found = self._dreams(policy)
        means = found.returns.mean(1)
        worth = self.before.mean() + (means - self.before).min()
        return {"dream_return": float(worth), "dream_std": float(means.std()), "dream_length": float(found.lengths.mean())}

    def _dreams(self, policy: Policy) -> ByMember:
        bounded = as_policy(policy, self.world.spec)
        return returns_by_member(self.world, bounded, self.episodes, horizon=self.horizon, noise=self.noise)
