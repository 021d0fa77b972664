"""Judging an agent without its environment: by the return of its dreams, so that a run's best checkpoint is kept.

Offline training has no simulator to say when to stop, and an agent that was good can fall apart while its losses look well. Its dreams
show it: Fu et al. 2021 (arXiv 2103.16596) call this selection by off-policy evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dydiff_env.agents.agent import Agent
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.simulator import environment_spec
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.policies.loader import as_policy
from dydiff_env.world.world import World


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
    def of(world: World, data: Dataset, episodes: int = 32) -> Judge:
        """A judge of agents that are trained on ``data``: its episodes are as long as the environment's, or else as the longest logged.

        Raises:
            DyDiffError: where the world is of other spaces.
        """
        for what in ("observation_space", "action_space"):
            theirs, ours = getattr(world.spec, what), getattr(data.spec, what)
            if theirs != ours:
                raise DyDiffError(
                    f"The world's {what.replace('_', ' ')} is {theirs}, the data's is {ours}.",
                    "Name a world that was fitted on such data.",
                    usage=True,
                )
        limit = environment_spec(data.spec.env_spec).max_episode_steps if data.spec.env_spec else None
        return Judge(world, int(limit or data.lengths.max()), episodes)

    def __call__(self, agent: Agent) -> dict[str, float]:
        """A row of the log: the mean return and length of the agent's dreamt episodes."""
        found = dream_returns(self.world, as_policy(agent, self.world.spec), self.episodes, horizon=self.horizon)
        return {"dream_return": float(found.returns.mean()), "dream_length": float(found.lengths.mean())}


def best_of(out: Path) -> Path:
    """Where the best agent of the run at ``out`` is kept: ``ckpt.pt`` becomes ``ckpt-best.pt``."""
    return out.with_name(f"{out.stem}-best{out.suffix}")
