"""Pictures of dreams: the source environment's own, a maze from above, or the bare numbers."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from dydiff_env.data.simulator import make_env
from dydiff_env.envs.interface import structured
from dydiff_env.errors import DyDiffError, Note
from dydiff_env.world.world import World

DREAM = np.array([196, 64, 196], np.uint8)  # frame of every dreamt picture
REAL = np.array([110, 110, 110], np.uint8)  # and of a real one beside it
SIDE = 480  # pixels


class Renderer(Protocol):
    """Draws one dream as it goes."""

    def begin(self, state: np.ndarray) -> None:
        """A dream begins at ``state`` (O,), which may be changed afterwards."""

    def advance(self, state: np.ndarray) -> None:
        """It has gone to ``state`` (O,)."""

    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8, without the marks of a dream."""

    def close(self) -> None:
        """Free windows and contexts."""


def make_renderer(world: World) -> Renderer:
    """The best renderer for the world's source environment on this machine.

    A maze is drawn from above; a MuJoCo environment by its own renderer, where OpenGL works and its state can be
    told from the observation; everything else, with a warning that says why, as its numbers over time.
    """
    try:
        if (source := world.spec.environment) is None:
            raise DyDiffError("The world does not name its source environment.")
        return MazeRenderer(world, source) if "Maze" in str(source) else MujocoRenderer(world, source)
    except Exception as error:  # OpenGL fails in as many ways as there are platforms
        reason = error.problem if isinstance(error, DyDiffError) else f"{type(error).__name__}: {error}"
        warnings.warn(
            f"Drawing numbers, not the source environment ({reason.splitlines()[0]}). For MuJoCo pictures without a "
            "display, install EGL or OSMesa and set MUJOCO_GL=egl or osmesa.", Note, stacklevel=3,
        )
        return NumbersRenderer(world)


class MujocoRenderer:
    """The source environment, put into the dreamt state and drawn by itself.

    Positions the observation leaves out (x, and y for an ant) are integrated from their velocities, from 0.
    """

    def __init__(self, world: World, source: EnvSpec) -> None:
        self.env = make_env(source, render_mode="rgb_array")
        base: Any = self.env.unwrapped
        if not hasattr(base, "set_state"):
            raise DyDiffError(f"{self.env.spec and self.env.spec.id} is not a MuJoCo environment.")
        self.positions, self.velocities = base.model.nq, base.model.nv
        structure = getattr(base, "observation_structure", None) or {}
        size = world.spec.observation_size
        self.skipped = structure.get("skipped_qpos", self.positions + self.velocities - size)
        if not 0 <= self.skipped <= 2 or size < self.positions - self.skipped + self.velocities:
            raise DyDiffError("The state of this environment cannot be told from its observation.")
        self.begin(np.zeros(size))
        with headless():
            self.env.reset(seed=0)
            self.frame()  # a context that cannot draw shows it here

    def begin(self, state: np.ndarray) -> None:
        """A dream begins at ``state`` (O,)."""
        self.state = state.copy()
        self.offset = np.zeros(self.skipped)

    def advance(self, state: np.ndarray) -> None:
        """It has gone to ``state`` (O,)."""
        speed = (self._velocity(self.state) + self._velocity(state)) / 2
        self.offset = self.offset + speed[: self.skipped] * self.env.unwrapped.dt  # type: ignore[attr-defined]
        self.state = state

    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        base: Any = self.env.unwrapped
        position = np.concatenate([self.offset, self.state[: self.positions - self.skipped]])
        base.set_state(position.astype(np.float64), self._velocity(self.state).astype(np.float64))
        with headless():
            return np.asarray(self.env.render())

    def close(self) -> None:
        """Close the source environment."""
        self.env.close()

    def _velocity(self, state: np.ndarray) -> np.ndarray:
        begin = self.positions - self.skipped
        return state[begin : begin + self.velocities]


class MazeRenderer:
    """A maze from above: walls, goal, path, and where the dream is now."""

    def __init__(self, world: World, source: EnvSpec) -> None:
        self.space = world.spec.observation_space
        if not isinstance(self.space, gym.spaces.Dict):
            raise DyDiffError("This maze's observations do not say where the goal is.")
        with make_env(source) as env:
            maze: Any = env.get_wrapper_attr("maze")
            walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
            self.scale, self.center = float(maze.maze_size_scaling), (maze.x_map_center, maze.y_map_center)
        self.cell = max(SIDE // max(walls.shape), 4)  # pixels
        colors = np.where(walls[..., None], np.uint8(90), np.uint8(245))
        self.ground = np.repeat(np.repeat(colors, self.cell, 0), self.cell, 1).repeat(3, 2)
        self.path: list[np.ndarray] = []

    def begin(self, state: np.ndarray) -> None:
        """A dream begins at ``state`` (O,)."""
        self.path = [state.copy()]

    def advance(self, state: np.ndarray) -> None:
        """It has gone to ``state`` (O,)."""
        self.path.append(state)

    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        picture = self.ground.copy()
        states = structured(self.space, np.stack(self.path))
        self._disc(picture, states["desired_goal"][-1], 0.22, (222, 60, 50))
        for place in states["achieved_goal"][:-1]:
            self._disc(picture, place, 0.06, (120, 150, 220))
        self._disc(picture, states["achieved_goal"][-1], 0.15, (30, 80, 200))
        return picture

    def close(self) -> None:
        """Nothing is open."""

    def _disc(
        self, picture: np.ndarray, place: np.ndarray, radius: float, color: tuple[int, int, int]
    ) -> None:
        """Fill a disc of ``radius`` cells at (x, y)."""
        column = (place[0] + self.center[0]) / self.scale * self.cell
        row = (self.center[1] - place[1]) / self.scale * self.cell
        reach = radius * self.cell
        top, left = max(int(row - reach), 0), max(int(column - reach), 0)
        part = picture[top : max(int(row + reach) + 2, 0), left : max(int(column + reach) + 2, 0)]
        y, x = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
        part[(y - row) ** 2 + (x - column) ** 2 <= reach**2] = color


class NumbersRenderer:
    """Every number of the state over time, blue below and red above the data's mean; time runs to the right."""

    def __init__(self, world: World) -> None:
        self.mean, self.std = world.normalizer.mean.cpu().numpy(), world.normalizer.std.cpu().numpy()
        self.path: list[np.ndarray] = []

    def begin(self, state: np.ndarray) -> None:
        """A dream begins at ``state`` (O,)."""
        self.path = [state.copy()]

    def advance(self, state: np.ndarray) -> None:
        """It has gone to ``state`` (O,)."""
        self.path.append(state)

    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8: the last 120 states."""
        heat = np.clip((np.stack(self.path[-120:]) - self.mean) / (3 * self.std), -1, 1).T[
            ..., None
        ]  # (O, T, 1)
        fade = np.where(heat > 0, [0, 1, 1], [1, 1, 0]) * np.abs(heat)
        columns = np.full((len(self.mean), 120, 3), 235, np.uint8)
        columns[:, : heat.shape[1]] = (255 * (1 - fade)).astype(np.uint8)
        height = max(SIDE // len(columns), 2)
        return columns.repeat(height, 0).repeat(SIDE // 120, 1)

    def close(self) -> None:
        """Nothing is open."""


def overlay(picture: np.ndarray, uncertainty: float | None) -> np.ndarray:
    """Frame a picture: purple, the mark of a dream, with a bar below as long as the transition was uncertain.

    The bar's length is the square root of the disagreement; full, the ensemble disagrees by one standard deviation
    of the data. Without an uncertainty the frame is grey and has no bar: reality.
    """
    framed = np.pad(picture, ((6, 18), (6, 6), (0, 0)))
    framed[:6] = framed[-18:] = framed[:, :6] = framed[:, -6:] = REAL if uncertainty is None else DREAM
    if uncertainty is not None:
        full = round(picture.shape[1] * min(max(uncertainty, 0.0), 1.0) ** 0.5)
        framed[-13:-5, 6:-6] = 40
        framed[-13:-5, 6 : 6 + full] = (255, 200, 40)
    return framed


@contextmanager
def headless() -> Iterator[None]:
    """MuJoCo draws through EGL where there is no display and the user has not chosen otherwise."""
    chosen = os.environ.get("MUJOCO_GL")
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if chosen is None and not display and sys.platform == "linux":
        os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        if chosen is None:
            os.environ.pop("MUJOCO_GL", None)
