"""Where a maze's walls are, and which rollouts stay out of them (after the paper's Figs. 8 and 9)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from dydiff_env.data.flattening import columns_of


def position_columns(space: gym.Space) -> slice:
    """Where (x, y) stands in PointMaze's flattened observation."""
    columns = columns_of(space, "achieved_goal")
    assert columns is not None
    return columns


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


def wall_squares(maze: Any) -> list[tuple[float, float, float, float]]:
    """The walls as squares (x0, y0, x1, y1), in the maze's units."""
    half = maze.maze_size_scaling / 2
    squares = []
    for i, row in enumerate(maze.maze_map):
        for j, cell in enumerate(row):
            if cell == 1:
                x, y = (float(value) for value in maze.cell_rowcol_to_xy(np.array([i, j])))
                squares.append((x - half, y - half, x + half, y + half))
    return squares


def frame(maze: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a picture shows, as ranges of x and y: the maze, and of its outer walls a strip."""
    x, y = (center - 0.6 * maze.maze_size_scaling for center in (maze.x_map_center, maze.y_map_center))
    return (-x, x), (-y, y)
