"""How often a PointMaze log's agent touches a wall: the share of its states within the ball's radius of one.

    python benchmarks/wall_contacts.py DATASET…
"""

from __future__ import annotations

import sys

import numpy as np

from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.simulator import make_env
from dydiff_env.evaluation.mazes import free_of_walls, position_columns

RADIUS = 0.1005  # the ball's .1, and a little for the solver


def main() -> None:
    for name in sys.argv[1:]:
        data = load_dataset(name)
        with make_env(data.spec.env_spec) as env:
            maze = env.unwrapped.maze
        places = np.asarray(data.observations[:, position_columns(data.spec.observation_space)])
        sides = np.array([[RADIUS, 0], [-RADIUS, 0], [0, RADIUS], [0, -RADIUS]])
        around = places[:, None] + sides
        touching = ~free_of_walls(around, np.ones(around.shape[:2], bool), maze)
        print(f"{name}: {touching.mean():.4%} of {len(places)} states touch a wall")


if __name__ == "__main__":
    main()
