"""``DyDiffDream-v0``, batched: many dreams in one network call."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from dydiff_env.envs.dream import check_start, make_dreams, require_open
from dydiff_env.envs.dreams import Steps
from dydiff_env.envs.interface import flat_actions, flat_starts, one_of, structured
from dydiff_env.envs.rendering import Renderer, make_renderer, overlay
from dydiff_env.envs.worlds import find_world
from dydiff_env.errors import unknown
from dydiff_env.world.world import World

NO_STEPS = Steps(
    np.zeros((0, 0), np.float32),
    *(np.zeros(0, dtype) for dtype in (np.float32, bool, bool, np.float32, bool, np.int64)),
)


class DyDiffDreamVectorEnv(gym.vector.VectorEnv):
    """``num_envs`` dreams of :class:`~dydiff_env.envs.dream.DyDiffDreamEnv`, imagined together.

    Row i under seed s + i does what the single environment does under that seed.

    Args:
        num_envs: how many.
        world, policy, horizon, iterations, start, render_mode, device: as in the single environment.
        autoreset_mode: Gymnasium's: "NextStep", "SameStep" or "Disabled", or the enumeration.
        max_episode_steps: Gymnasium's limit; an episode is as long as the smaller of this and ``horizon``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        world: World | str | Path | None = None,
        policy: Any = None,
        horizon: int | None = None,
        iterations: int | None = None,
        start: Literal["dataset", "initial"] = "dataset",
        render_mode: str | None = None,
        device: str = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render mode", render_mode, self.metadata["render_modes"])
        self.num_envs, self.render_mode = num_envs, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.world = find_world(world, device, policy)
        self.start = check_start(start)
        if max_episode_steps is not None:
            horizon = min(max_episode_steps, self.world.horizon if horizon is None else horizon)
        self.dreams = make_dreams(self.world, policy, num_envs, horizon, iterations)
        self.single_observation_space = deepcopy(self.world.spec.observation_space)  # its own: a space holds a generator
        self.single_action_space = deepcopy(self.world.spec.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [gym.utils.seeding.np_random()[0] for _ in range(num_envs)]
        self._over = np.ones(num_envs, bool)
        self._begun = False
        self._renderers: list[Renderer] = []
        self._uncertainties = np.zeros(num_envs)  # of each row's last transition

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start all dreams, or those of ``options["reset_mask"]`` (num_envs,) bool.

        Args:
            seed: one for all (row i gets seed + i), or one a row.
            options: ``observation``: a batch of start states.

        Returns:
            Observations of all rows, and no infos.

        Raises:
            ValueError, TypeError: for a mask or seeds of a wrong length or type, as in Gymnasium.
        """
        require_open(self)
        rows = np.flatnonzero(self._mask((options or {}).get("reset_mask")))
        self._seed(seed, rows)
        if options is not None and "observation" in options:
            starts = flat_starts(self.single_observation_space, options["observation"], self.num_envs)
            # A number that was drawn ahead is the next episode's, wherever that starts.
            seeds = [int(self.dreams.next_seeds[row]) if self.dreams.prepared[row] else self._episode_seed(int(row)) for row in rows]
            self.dreams.begin(rows, starts[rows], seeds)
            self._clear(rows)
        else:
            self._begin(rows)
        self._over[rows] = False
        self._begun = True
        return structured(self.single_observation_space, self.dreams.current), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take a batch of actions; dreams that are over begin anew as the autoreset mode says.

        Raises:
            InvalidAction: for an action outside the space.
            ResetNeeded: before the first reset; with autoreset disabled, for a dream that is over.
        """
        require_open(self)
        if not self._begun:
            raise ResetNeeded("Call reset() before step().")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._over.any():
            raise ResetNeeded(
                'Some dreams are over: reset them with options={"reset_mask": terminated | truncated}.'
            )
        flat = flat_actions(self.single_action_space, actions, self.num_envs)
        live, again = np.flatnonzero(~self._over), np.flatnonzero(self._over)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        step = self.dreams.step(live, flat[live]) if len(live) else NO_STEPS
        rewards[live], terminated[live], truncated[live] = step.rewards, step.terminated, step.truncated
        infos = self._infos(step, live)
        self._draw(live, step)
        if len(again):  # next-step autoreset: this step only begins the new dream
            self._begin(again)
        self._over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            infos = self._finish(np.flatnonzero(self._over), infos)
            self._over = np.zeros(self.num_envs, bool)
        observations = structured(self.single_observation_space, self.dreams.current)
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One (H, W, 3) uint8 picture a dream; None without a render mode."""
        if self.render_mode is None:
            return None
        require_open(self)
        if not self._renderers:
            self._renderers = [make_renderer(self.world) for _ in range(self.num_envs)]
            for renderer, state in zip(self._renderers, self.dreams.current, strict=True):
                renderer.begin(state)
        return tuple(
            overlay(renderer.frame(), float(uncertainty))
            for renderer, uncertainty in zip(self._renderers, self._uncertainties, strict=True)
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Close the renderers and let go of the world and the dreams."""
        for renderer in self._renderers:
            renderer.close()
        self._renderers = []
        for name in ("world", "dreams"):
            self.__dict__.pop(name, None)

    def _begin(self, rows: np.ndarray) -> None:
        """Begin new dreams at starts of each row's own drawing, imagining other rows' next ones in the same batch."""
        if not self.dreams.prepared[rows].all():
            fresh = (
                np.flatnonzero(~self.dreams.prepared) if self._begun else rows[~self.dreams.prepared[rows]]
            )
            seeds = [self._episode_seed(int(row)) for row in fresh]
            starts = np.concatenate([self.world.sample_starts(1, seed, self.start) for seed in seeds])
            before = np.concatenate([self.world.sample_before(1, seed, self.start) for seed in seeds])
            self.dreams.prepare(fresh, starts, seeds, before)
        self.dreams.begin_prepared(rows)
        self._clear(rows)

    def _episode_seed(self, row: int) -> int:
        """A number for an episode, of the row's own drawing: where it starts and when it ends follows from it."""
        return int(self._generators[row].integers(2**31))

    def _clear(self, rows: np.ndarray) -> None:
        """Start the pictures of new dreams."""
        self._uncertainties[rows] = 0.0
        for row in rows if self._renderers else ():
            self._renderers[row].begin(self.dreams.current[row])

    def _finish(self, rows: np.ndarray, infos: dict[str, Any]) -> dict[str, Any]:
        """Same-step autoreset: keep what ended in the infos, as Gymnasium's own vector environments do."""
        over = np.zeros(self.num_envs, bool)
        over[rows] = True
        final = structured(self.single_observation_space, self.dreams.current[rows])
        observations = np.full(self.num_envs, None, dtype=object)
        for i, row in enumerate(rows):
            observations[row] = one_of(final, i)
        last = {
            key: np.where(over, value, np.zeros_like(value)) for key, value in infos.items() if key[0] != "_"
        }
        last |= {f"_{key}": over.copy() for key in tuple(last)}
        infos = {key: np.where(over, np.zeros_like(value), value) for key, value in infos.items()}
        self._begin(rows)
        return infos | {
            "final_obs": observations,
            "_final_obs": over.copy(),
            "final_info": last,
            "_final_info": over.copy(),
        }

    def _infos(self, step: Steps, rows: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        values = {
            "uncertainty": step.uncertainties,
            "replanned": step.replanned,
            "window_step": step.window_steps,
        }
        for key, value in values.items():
            infos[key] = np.zeros(self.num_envs, np.float64 if key == "uncertainty" else value.dtype)
            infos[key][rows] = value
            infos[f"_{key}"] = np.zeros(self.num_envs, bool)
            infos[f"_{key}"][rows] = True
        return infos

    def _draw(self, rows: np.ndarray, step: Steps) -> None:
        self._uncertainties[rows] = step.uncertainties
        if self._renderers:
            for i, row in enumerate(rows):
                self._renderers[row].advance(step.observations[i])

    def _mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(
                f"options['reset_mask'] must be a NumPy array of bool, got {type(mask).__name__}."
            )
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must have shape ({self.num_envs},) and at least one True."
            )
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, rows: np.ndarray) -> None:
        if seed is None:
            return
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            seed = [int(seed) + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"There are {len(seed)} seeds for {self.num_envs} environments.")
        for row in rows:
            if seed[row] is not None:
                self._generators[row] = gym.utils.seeding.np_random(seed[row])[0]
                self.dreams.prepared[row] = False
        if given := [seed[row] for row in rows if seed[row] is not None]:
            self.dreams.reseed(given[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderers": []}
