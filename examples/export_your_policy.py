"""Roll out a policy of your own in a world and look at what comes back.

    python examples/export_your_policy.py world/ syn.minari

Anything that maps a batch of flattened observations (B, O) to actions (B, A) will do.
"""

from __future__ import annotations

import sys

import minari
import torch

from dydiff_env import World
from dydiff_env.synthesis.export import export


def main(world_path: str, out: str, batch: int = 256) -> None:
    world = World.load(world_path)
    torch.manual_seed(0)
    network = torch.nn.Linear(world.spec.observation_size, world.spec.action_size)

    def policy(observations: torch.Tensor) -> torch.Tensor:
        return torch.tanh(network(observations)).detach()

    report = export(world, policy, out, batch=batch, horizon=50, filter="hardmax", keep=0.5, overwrite=True)
    print(f"{report['trajectories']} rollouts, {report['trajectories_per_second']} a second")
    dataset = minari.MinariDataset(out)
    first = next(dataset.iterate_episodes())
    print(
        f"the first: {len(first.rewards)} steps, return {first.rewards.sum():.1f}, in {dataset.env_spec.id}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
