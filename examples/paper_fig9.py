"""The paper's Fig. 9: rollouts in a maze as they are refined, and how many of them stay out of the walls.

    python examples/paper_fig9.py fig9.png                                # the embedded maze and its policy
    python examples/paper_fig9.py fig9.png world/ td3bc.pt
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from dydiff_env import load_policy
from dydiff_env.envs.worlds import find_world
from dydiff_env.evaluation.mazes import frame, free_of_walls, position_columns, wall_squares
from dydiff_env.evaluation.simulator import Simulator

INK, GOOD, BAD, WALL = "#1f2933", "#2a6f97", "#c8553d", "#d9dee3"


def main(out: str, world_path: str | None = None, name: str = "demo", starts: int = 64, most: int = 2) -> list[int]:
    world = find_world(world_path, policy=name)
    policy, first = load_policy(name, world.spec), world.sample_starts(starts, seed=0)
    simulator = Simulator(world.spec)
    maze: Any = simulator.base.maze
    space: Any = world.spec.observation_space
    horizon = 2 * world.horizon  # two windows, one after the other
    trust = world.trust_in(policy)
    rollouts = {f"M = {m}": world.dream(policy, first, horizon, m, trust=trust) for m in range(most + 1)}
    rollouts["simulator"] = simulator.follow(policy, first, horizon)
    simulator.close()
    figure, axes = plt.subplots(1, len(rollouts), figsize=(3.4 * len(rollouts), 4.4), layout="constrained")
    legal = []
    for axis, (title, made) in zip(axes, rollouts.items(), strict=True):
        for x, y, right, top in wall_squares(maze):
            axis.add_patch(Rectangle((x, y), right - x, top - y, color=WALL, lw=0))
        positions = made.observations[..., position_columns(space)]
        free = free_of_walls(positions, np.concatenate([np.ones((starts, 1), bool), made.mask], 1), maze)
        for path, length, ok in zip(positions, made.lengths, free, strict=True):
            axis.plot(*path[: length + 1].T, color=GOOD if ok else BAD, lw=1, alpha=0.75)
            axis.plot(*path[0], "o", color=INK, ms=2)
        legal.append(int(free.sum()))
        x_range, y_range = frame(maze)
        axis.set_title(f"{title}\n{legal[-1]} of {starts} stay\nout of the walls", fontsize=13)
        axis.set(xlim=x_range, ylim=y_range, aspect="equal")
        axis.axis("off")
    figure.savefig(out, dpi=150, bbox_inches="tight", pad_inches=0.1)
    return legal


if __name__ == "__main__":
    main(*sys.argv[1:])
