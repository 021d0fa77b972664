"""Pessimism, as wrappers: pay for uncertainty, or stop where it is too large."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np


class UncertaintyPenalty(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """r − λ·u: the reward pays for the transition's uncertainty (MOPO; Yu et al., 2020, Eq. 5).

    The reward before is ``info["model_reward"]``.

    Args:
        env: a dream.
        weight: λ ≥ 0.
    """

    def __init__(self, env: gym.Env, weight: float = 1.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, weight=weight)
        gym.Wrapper.__init__(self, env)
        self.weight = weight

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["model_reward"] = float(reward)
        return observation, float(reward) - self.weight * info["uncertainty"], terminated, truncated, info


class UncertaintyStop(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """The dream ends, with a penalty, where a transition is more uncertain than a threshold (MOReL; Kidambi et al., 2020).

    Such an end is a termination, a state from which nothing can be won, and ``info["halted"]`` is True.

    Args:
        env: a dream.
        threshold: the largest uncertainty that is let pass.
        penalty: taken from the reward of the step that is stopped, ≥ 0.
    """

    def __init__(self, env: gym.Env, threshold: float, penalty: float = 0.0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, threshold=threshold, penalty=penalty)
        gym.Wrapper.__init__(self, env)
        self.threshold, self.penalty = threshold, penalty

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["halted"] = bool(info["uncertainty"] > self.threshold)
        if info["halted"]:
            return observation, float(reward) - self.penalty, True, False, info
        return observation, reward, terminated, truncated, info


class VectorUncertaintyPenalty(gym.vector.VectorWrapper):
    """``UncertaintyPenalty`` of a batch of dreams.

    Args:
        env: batched dreams.
        weight: λ ≥ 0.
    """

    def __init__(self, env: gym.vector.VectorEnv, weight: float = 1.0) -> None:
        super().__init__(env)
        self.weight = weight

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a batch of actions."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        penalty = infos.get("uncertainty", np.zeros_like(rewards))
        if "final_info" in infos:  # same-step autoreset files the last step's infos there
            over = infos["_final_info"]
            penalty = np.where(over, infos["final_info"]["uncertainty"], penalty)
        return observations, rewards - self.weight * penalty, terminated, truncated, infos
