"""Pictures of rollouts in a maze, and a count of those that stay out of its walls (after the paper's Figs. 8 and 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dydiff_env.data.trajectories import Trajectories

INK, PATH, WRONG, WALL = "#1f2933", "#2a6f97", "#c8553d", "#d9dee3"


def position_columns(space: gym.spaces.Dict) -> slice:
    """Where (x, y) stands in PointMaze's flattened observation."""
    begin = 0
    for key, part in space.spaces.items():
        if key == "achieved_goal":
            break
        begin += gym.spaces.flatdim(part)
    return slice(begin, begin + 2)


def free_of_walls(positions: np.ndarray, mask: np.ndarray, maze: Any) -> np.ndarray:
    """(N,) bool, True where every real position (N, L+1, 2) lies in an open cell of the maze.

    Args:
        positions: (N, L+1, 2), in the maze's units.
        mask: (N, L+1) bool, which are real.
        maze: `env.unwrapped.maze`.
    """
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    columns = (positions[..., 0] + maze.x_map_center) // maze.maze_size_scaling
    rows = (maze.y_map_center - positions[..., 1]) // maze.maze_size_scaling
    rows, columns = np.nan_to_num(rows).astype(int), np.nan_to_num(columns).astype(int)
    inside = (rows >= 0) & (rows < walls.shape[0]) & (columns >= 0) & (columns < walls.shape[1])
    blocked = np.ones(positions.shape[:2], bool)
    blocked[inside] = walls[rows[inside], columns[inside]]
    return ~(blocked & mask).any(1)


def draw_rollouts(panels: dict[str, Trajectories], columns: slice, maze: Any, path: Path) -> dict[str, int]:
    """One maze a panel, its rollouts in it, those that enter a wall in another colour; written as PNG.

    Args:
        panels: title: rollouts.
        columns: of (x, y) in the observations.
        maze: `env.unwrapped.maze`.
        path: of the picture.

    Returns:
        For each panel, how many of its rollouts stay out of the walls.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.4 * len(panels), 5), layout="constrained")
    legal = {}
    size = maze.maze_size_scaling
    for axis, (title, rollouts) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        for i, row in enumerate(maze.maze_map):
            for j, cell in enumerate(row):
                if cell == 1:
                    x, y = maze.cell_rowcol_to_xy(np.array([i, j]))
                    axis.add_patch(Rectangle((x - size / 2, y - size / 2), size, size, color=WALL, lw=0))
        positions = rollouts.observations[..., columns]
        real = np.concatenate([np.ones((len(rollouts), 1), bool), rollouts.mask], 1)
        free = free_of_walls(positions, real, maze)
        legal[title] = int(free.sum())
        for way, length, ok in zip(positions, rollouts.lengths, free, strict=True):
            axis.plot(*way[: length + 1].T, color=PATH if ok else WRONG, lw=1.1, alpha=0.75)
            axis.plot(*way[0], "o", color=INK, ms=2.5)
        axis.set_title(f"{title}\n{legal[title]} of {len(rollouts)} stay out of the walls", fontsize=11)
        axis.set_aspect("equal")
        axis.set_xlim(-maze.x_map_center, maze.x_map_center)
        axis.set_ylim(-maze.y_map_center, maze.y_map_center)
        axis.axis("off")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return legal


def real_rollouts(env: Any, policy: Any, starts: np.ndarray, horizon: int) -> Trajectories:
    """What the simulator does with the policy from the same starts, over the same number of steps.

    Args:
        env: a PointMaze.
        policy: acts on flattened observations.
        starts: (B, O) flattened observations of this maze.
        horizon: steps.
    """
    import torch

    space, inner = env.observation_space, env.unwrapped
    observations = np.zeros((len(starts), horizon + 1, starts.shape[1]), np.float32)
    actions = np.zeros((len(starts), horizon, gym.spaces.flatdim(env.action_space)), np.float32)
    rewards = np.zeros((len(starts), horizon), np.float32)
    for i, start in enumerate(starts):
        env.reset(seed=i)
        parts = gym.spaces.unflatten(space, start.astype(np.float64))
        inner.goal = np.array(parts["desired_goal"])
        inner.point_env.set_state(np.array(parts["achieved_goal"]), np.array(parts["observation"][2:]))
        observations[i, 0] = start
        for t in range(horizon):
            acted = policy.act(torch.from_numpy(observations[i, t][None]))
            actions[i, t] = acted.numpy()[0]
            observation, rewards[i, t], *_ = inner.step(actions[i, t])
            observations[i, t + 1] = np.asarray(gym.spaces.flatten(space, observation))
    lengths = np.full(len(starts), horizon)
    return Trajectories(observations, actions, rewards, np.zeros(len(starts), bool), lengths)
