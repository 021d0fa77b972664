"""The paper's Fig. 1: what should be added to little data? TD3BC on 5 % of a log, while data are added.

    python examples/paper_fig1.py fig1.png demo/hopper-mr-v0 world/

(a) nothing, other logged episodes, the agent's own real rollouts; (b) its dreams, short to long; (c) single-step and refined
rollouts of the same length. Every addition has as many transitions; the world should be fitted on the log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from dydiff_env import World, load_dataset
from dydiff_env.agents import Replay, agent_class
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.recorder import record
from dydiff_env.evaluation.scores import environment_of, evaluate_returns

Addition = Callable[[Any, int], Any]  # (agent, round) -> Dataset or Trajectories


def additions(world: World, log: Dataset, others: np.ndarray, count: int) -> dict[str, dict[str, Addition]]:
    """For each panel its curves, by what they add in a round."""
    def behaviour(agent: Any, i: int) -> Dataset:
        order = np.random.default_rng(i).permutation(others)
        taken = order[: 1 + np.searchsorted(log.lengths[order].cumsum(), count)]
        return Dataset.from_episodes(log.spec, [log.episode(index) for index in taken])

    def own(agent: Any, i: int) -> Dataset:
        def act(rows: np.ndarray) -> np.ndarray:
            return agent.act(torch.as_tensor(rows), False).numpy()

        return Dataset.from_episodes(log.spec, list(record(str(log.spec.env_spec), act, steps=count, seed=i)))

    def dreams(length: int, iterations: int | None = None) -> Addition:
        drawn, at, before = max(1, count // length), world.sample_starts, world.sample_before
        return lambda agent, i: world.dream(agent, at(drawn, i), length, iterations, seed=i, before=before(drawn, i))

    longest, refined = world.horizon, max(1, world.iterations)
    return {
        "(a) real data": {"nothing": lambda agent, i: None, "behaviour data": behaviour, "on-policy data": own},
        "(b) length of the dreams": {f"{n} steps": dreams(n) for n in (5, 20, longest)},
        "(c) how they are made": {"single-step": dreams(longest, 0), "DyDiff": dreams(longest, refined)},
    }


def main(out: str, dataset: str, world_path: str, rounds: int = 20, updates: int = 1000, count: int = 5000, seeds: int = 3,
         episodes: int = 10) -> dict[str, np.ndarray]:  # fmt: skip
    world, log, found = World.load(world_path), load_dataset(dataset), {}
    order = np.random.default_rng(0).permutation(len(log))
    few, others = np.split(order, [max(2, len(log) // 20)])
    start = Dataset.from_episodes(log.spec, [log.episode(index) for index in few])
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey=True)
    for axis, (panel, curves) in zip(axes, additions(world, log, others, count).items(), strict=True):
        for name, add in curves.items():
            returns = np.zeros((seeds, rounds))
            for seed in range(seeds):
                agent, added = agent_class("td3bc")(log.spec, seed=seed), []
                for i in range(rounds):
                    agent.fit(Replay(start, added), updates)
                    returns[seed, i] = evaluate_returns(agent, environment_of(log.spec), episodes, seed=i).returns.mean()
                    added += [more] if (more := add(agent, i)) is not None else []
            found[name], x = returns, updates * np.arange(1, rounds + 1)
            axis.plot(x, returns.mean(0), label=name)
            axis.fill_between(x, returns.min(0), returns.max(0), alpha=0.2, lw=0)
        axis.set(title=panel, xlabel="updates", ylabel="return" if axis is axes[0] else "")
        axis.legend(frameon=False)
    figure.savefig(out, dpi=150)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:4])
