"""``DyDiffDream-v0``: one dream as a Gymnasium environment."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from dydiff_env.children import one_thread_after_fork
from dydiff_env.data.flattening import batch_of_one
from dydiff_env.envs.dreams import Dreams
from dydiff_env.envs.interface import flat_actions, flat_starts, one_of, structured
from dydiff_env.envs.rendering import Renderer, make_renderer, overlay
from dydiff_env.envs.worlds import find_world
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.policies import as_policy
from dydiff_env.world.world import World

ROW = np.zeros(1, np.int64)


class DyDiffDreamEnv(gym.Env):
    """A dream in a learned world, with the spaces of the environment the world was learned from.

    **Start**: a state of the dataset, or a first state of its episodes, or ``reset(options={"observation": s0})``.

    **Step**: with a policy, ``reset`` dreams its whole refined rollout; an action that is the planned one (within
    1e-4 of the action space's width) leads to the planned state, any other has the dream imagined anew from the
    present with that action fixed. Without a policy only the given actions count.

    **Reward** and **termination** come from the learned models; **truncation** after ``horizon`` steps.

    **Info** of a step: ``uncertainty`` (disagreement of the dynamics ensemble on this transition), ``replanned``
    (this action left the plan), ``window_step`` (which step of its window this was).

    Args:
        world: a World, its folder, or None for the one the policy's checkpoint names, else ``$DYDIFF_ENV_WORLD``,
            else ``./world``, else the embedded maze.
        policy: anything ``as_policy`` takes, or None.
        horizon: steps until truncation; None for the world's window. Longer ones chain windows.
        iterations: refinements M; None for the world's own.
        start: "dataset" or "initial".
        render_mode: "rgb_array" or None; through ``gym.make`` also "human".
        device: where a world that is loaded runs.

    Raises:
        DyDiffError: for a missing world, a policy that does not fit it, or an impossible option.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(
        self,
        world: World | str | Path | None = None,
        policy: Any = None,
        horizon: int | None = None,
        iterations: int | None = None,
        start: Literal["dataset", "initial"] = "dataset",
        render_mode: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.world = find_world(world, device, policy)
        self.start, self.render_mode = check_start(start), render_mode
        self.dreams = make_dreams(self.world, policy, 1, horizon, iterations)
        self.observation_space = deepcopy(self.world.spec.observation_space)  # its own: a space holds a generator
        self.action_space = deepcopy(self.world.spec.action_space)
        self._over = True
        self._uncertainty = 0.0  # of the last transition
        self._renderer: Renderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a dream; ``options={"observation": s0}`` says where."""
        require_open(self)
        super().reset(seed=seed)
        if seed is not None:
            self.dreams.reseed(seed)
        episode_seed = int(self.np_random.integers(2**31))
        if options is not None and "observation" in options:
            starts = flat_starts(self.observation_space, batch_of_one(options["observation"]), 1)
            self.dreams.begin(ROW, starts, [episode_seed])
        else:
            drawn = 1, episode_seed, self.start
            self.dreams.begin(ROW, self.world.sample_starts(*drawn), [episode_seed], self.world.sample_before(*drawn))
        self._over, self._uncertainty = False, 0.0
        if self._renderer is not None:
            self._renderer.begin(self.dreams.current[0])
        return self._observation(self.dreams.current[:1]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action.

        Raises:
            InvalidAction: for an action outside the space.
            ResetNeeded: when the dream is over.
            ClosedEnvironmentError: after ``close``.
        """
        require_open(self)
        if self._over:
            raise ResetNeeded("This dream is over or has not begun: call reset() first.")
        step = self.dreams.step(ROW, flat_actions(self.action_space, np.asarray(action)[None], 1))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._over = terminated or truncated
        info = {
            "uncertainty": float(step.uncertainties[0]),
            "replanned": bool(step.replanned[0]),
            "window_step": int(step.window_steps[0]),
        }
        self._uncertainty = info["uncertainty"]
        if self._renderer is not None:
            self._renderer.advance(step.observations[0])
        return self._observation(step.observations), float(step.rewards[0]), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The present state as an (H, W, 3) uint8 picture, framed as a dream; None without a render mode."""
        if self.render_mode is None:
            return None
        require_open(self)
        if self._renderer is None:
            self._renderer = make_renderer(self.world)
            self._renderer.begin(self.dreams.current[0])
        return overlay(self._renderer.frame(), self._uncertainty)

    def close(self) -> None:
        """Close the renderer and let go of the world and the dreams; a closed environment cannot be used again."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        for name in ("world", "dreams"):
            self.__dict__.pop(name, None)

    def _observation(self, flat: np.ndarray) -> Any:
        return one_of(structured(self.observation_space, flat), 0)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_renderer": None,
        }  # windows and GL contexts cannot be copied; a copy makes its own


def make_dreams(world: World, policy: Any, rows: int, horizon: int | None, iterations: int | None) -> Dreams:
    """The engine of an environment, its options checked.

    Raises:
        DyDiffError: for an impossible option, or a policy that does not fit the world.
    """
    if (horizon is not None and horizon < 1) or (iterations is not None and iterations < 0):
        raise DyDiffError(
            f"horizon={horizon}, iterations={iterations}.",
            "Use at least one step, and 0 iterations or more.",
            usage=True,
        )
    one_thread_after_fork()
    bounded = None if policy is None else as_policy(policy, world.spec, device=str(world.device))
    return Dreams(world, bounded, rows, world.horizon if horizon is None else horizon, iterations)


def require_open(env: gym.Env | gym.vector.VectorEnv) -> None:
    """Refuse to go on after ``close``.

    Raises:
        ClosedEnvironmentError: where the dreams are gone.
    """
    if "dreams" not in env.__dict__:
        raise ClosedEnvironmentError("This environment is closed: make another one.")


def check_start(start: str) -> Literal["dataset", "initial"]:
    """``start`` itself.

    Raises:
        DyDiffError: when it is neither "dataset" nor "initial".
    """
    if start == "dataset" or start == "initial":
        return start  # type: ignore[return-value]
    raise unknown("kind of start", start, ("dataset", "initial"))

