"""Batched dreams for Stable-Baselines3, whose vector environments are not Gymnasium's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from dydiff_env.envs.vector import DyDiffDreamVectorEnv
from dydiff_env.errors import DyDiffError


class DreamVecEnv(VecEnv):
    """``DyDiffDreamVectorEnv`` as SB3 wants it; ``VecMonitor``, ``VecNormalize`` and the algorithms take it as it is.

    Args:
        num_envs: how many dreams.
        penalty: λ of the uncertainty penalty, r − λ·u (MOPO).
        options: of ``DyDiffDreamVectorEnv``: world, policy, horizon, iterations, start, render_mode, device.
    """

    def __init__(self, num_envs: int, penalty: float = 0.0, **options: Any) -> None:
        self.dreams = DyDiffDreamVectorEnv(num_envs, **options, autoreset_mode=AutoresetMode.SAME_STEP)
        self.penalty = penalty
        super().__init__(num_envs, self.dreams.single_observation_space, self.dreams.single_action_space)
        self._actions = np.zeros((num_envs, *(self.dreams.single_action_space.shape or ())))

    def reset(self) -> VecEnvObs:
        """Start all dreams, under the seeds of ``seed()`` and with the options of ``set_options()`` where they were called.

        Raises:
            DyDiffError: where the rows were given options of different names.
        """
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, _ = self.dreams.reset(seed=seeds, options=self._batched_options())
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observations

    def _batched_options(self) -> dict[str, Any] | None:
        """SB3 keeps options row by row, the batch takes them together."""
        if not any(self._options):
            return None
        names = {tuple(sorted(row)) for row in self._options}
        if len(names) > 1:
            raise DyDiffError(
                f"The rows' options have the names {sorted(names)}.", "Give every row the same ones.", usage=True
            )
        return {name: _stack([row[name] for row in self._options]) for name in names.pop()}

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the kept actions; dreams that end begin anew, their last observation in ``terminal_observation``."""
        observations, rewards, terminated, truncated, infos = self.dreams.step(self._actions)
        over = terminated | truncated
        uncertainty = infos["uncertainty"]
        if over.any():
            uncertainty = np.where(over, infos["final_info"]["uncertainty"], uncertainty)
        rows: list[dict[str, Any]] = [{"uncertainty": float(value)} for value in uncertainty]
        for row in np.flatnonzero(over):
            rows[row]["terminal_observation"] = infos["final_obs"][row]
            rows[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return observations, (rewards - self.penalty * uncertainty).astype(np.float32), over, rows

    def close(self) -> None:
        """Close the renderers."""
        self.dreams.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of each dream."""
        return self.dreams.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batch's attribute, once a row."""
        return [getattr(self.dreams, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the whole batch."""
        setattr(self.dreams, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch, once; its result, once a row."""
        result = getattr(self.dreams, method_name)(*method_args, **method_kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """Rows are not wrapped one by one."""
        return [False] * len(list(self._get_indices(indices)))


def _stack(rows: list[Any]) -> Any:
    """Observations of all rows as one batch; those of a Dict space part by part."""
    if isinstance(rows[0], dict):
        return {key: _stack([row[key] for row in rows]) for key in rows[0]}
    return np.stack(rows)
