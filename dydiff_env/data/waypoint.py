"""The behaviour of the maze datasets: a controller that walks waypoints towards ever new goals."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from dydiff_env.data.flattening import columns_of


class Maze(Protocol):
    """What of gymnasium-robotics' maze is used: its map and the position of its cells."""

    maze_map: list[list[int | str]]  # 1 is a wall

    def cell_rowcol_to_xy(self, rowcol_pos: np.ndarray) -> np.ndarray:
        """Centre (x, y) of a cell (row, column)."""
        ...


@dataclass(frozen=True)
class WaypointConfig:
    """Gains of the controller.

    Args:
        position_gain: force per unit of distance to the waypoint.
        velocity_gain: force against each unit of velocity.
        noise: standard deviation of the force added to each component, the mean over the mazes of a batch: some agents
            are precise, others clumsy, from none for the first to twice as much for the last.
        memory: share of the noise that stays from one step to the next. A push that lasts leads off the way and into
            walls, which a world must have seen to dream them; noise drawn anew each step averages out before.
        reached: a waypoint counts as reached within this share of a cell's width.
    """

    position_gain: float = 10.0
    velocity_gain: float = 1.0
    noise: float = 0.5
    memory: float = 0.95
    reached: float = 0.25


class WaypointController:
    """Walks the shortest way through the maze's cells to the goal, by proportional-derivative control.

    The behaviour of D4RL's maze2d datasets (Fu et al. 2020, arXiv 2004.07219, section 5): a planner names the next
    cell, a PD controller steers there, noise makes the data broad. One call acts for a batch of mazes.

    Args:
        maze: the maze of ``env.unwrapped.maze``.
        space: the observation space, a Dict with ``observation`` (x, y, vx, vy) and ``desired_goal`` (x, y).
        config: gains.
        seed: of the noise.
    """

    def __init__(self, maze: Maze, space: gym.spaces.Dict, config: WaypointConfig | None = None,
                 seed: int = 0) -> None:
        self._config = config or WaypointConfig()
        self._rng = np.random.default_rng(seed)
        self._state, self._goal = columns_of(space, "observation"), columns_of(space, "desired_goal")
        cells = [(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if cell != 1]
        self._centres = np.array([maze.cell_rowcol_to_xy(np.array(cell)) for cell in cells])  # (K, 2)
        self._next = next_cells(cells)
        spacing = np.linalg.norm(self._centres[:, None] - self._centres[None], axis=-1)
        self._reached = self._config.reached * spacing[spacing > 0].min()
        self._waypoint = np.zeros(0, np.int64)  # (B,) cell each maze's agent is heading for
        self._target = np.zeros(0, np.int64)  # (B,) cell of each goal
        self._push = np.zeros((0, 2))  # (B, 2) noise of unit variance

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Forces (B, 2) for flattened observations (B, O)."""
        position, velocity = np.split(observations[:, self._state], 2, axis=1)
        goal = observations[:, self._goal]
        here, target = self._cell(position), self._cell(goal)
        if len(self._waypoint) != len(here):
            self._waypoint, self._target = here, np.full_like(here, -1)
        centre = self._centres[self._waypoint]
        arrived = np.linalg.norm(position - centre, axis=1) < self._reached
        # A push into another corridor, a reset or a new goal makes the old waypoint meaningless.
        astray = (self._waypoint != here) & (self._next[here, self._waypoint] != self._waypoint)
        fresh = arrived | astray | (target != self._target)
        self._waypoint = np.where(fresh, self._next[here, target], self._waypoint)
        self._target = target
        aim = np.where((here == target)[:, None], goal, self._centres[self._waypoint])
        force = self._config.position_gain * (aim - position) - self._config.velocity_gain * velocity
        return np.clip(np.clip(force, -1.0, 1.0) + self._noise(len(force)), -1.0, 1.0)

    def _noise(self, mazes: int) -> np.ndarray:
        """(B, 2) the next push of each maze's agent."""
        if len(self._push) != mazes:
            self._push = self._rng.standard_normal((mazes, 2))
        memory = self._config.memory
        self._push = memory * self._push + np.sqrt(1 - memory**2) * self._rng.standard_normal((mazes, 2))
        clumsiness = np.linspace(0.0, 2.0, mazes) if mazes > 1 else np.ones(1)
        return self._config.noise * clumsiness[:, None] * self._push

    def _cell(self, positions: np.ndarray) -> np.ndarray:
        """(B,) the free cell nearest to each position (B, 2)."""
        return ((positions[:, None] - self._centres[None]) ** 2).sum(-1).argmin(1)


def next_cells(cells: list[tuple[int, int]]) -> np.ndarray:
    """(K, K) for each cell and goal, the neighbour a shortest way goes through; the cell itself at the goal.

    A cell no way leads from is its own next.
    """
    index = {cell: k for k, cell in enumerate(cells)}
    table: Any = np.repeat(np.arange(len(cells))[:, None], len(cells), axis=1)
    for goal, start in enumerate(cells):
        seen, queue = {start}, deque([start])
        while queue:  # breadth first, from the goal outwards
            i, j = queue.popleft()
            for neighbour in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if neighbour in index and neighbour not in seen:
                    seen.add(neighbour)
                    table[index[neighbour], goal] = index[i, j]
                    queue.append(neighbour)
    return table
