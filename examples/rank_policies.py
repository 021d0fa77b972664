"""Rank policies without touching the environment: their returns in the dream.

python examples/rank_policies.py world/ first.pt second.pt random
"""

from __future__ import annotations

import sys

from dydiff_env import World, load_policy


def main(world_path: str, names: list[str], starts: int = 64, horizon: int = 200) -> list[tuple[str, float]]:
    world = World.load(world_path)
    first = world.sample_starts(starts, seed=0, kind="initial")
    scores = {
        name: world.dream(load_policy(name, world.spec), first, horizon).returns.mean() for name in names
    }
    ranking = sorted(scores.items(), key=lambda item: -item[1])
    for name, score in ranking:
        print(f"{score:10.1f}  {name}")
    return ranking


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
