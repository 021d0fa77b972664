"""The random policy: uniform over the action space."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError


class UniformPolicy:
    """Actions drawn uniformly from a bounded Box by torch's global generator: a rollout's seed governs it.

    It has no deterministic form: ``deterministic`` changes nothing.

    Args:
        action_space: Box with finite bounds.

    Raises:
        DyDiffError: when the space is unbounded.
    """

    def __init__(self, action_space: gym.Space) -> None:
        if not isinstance(action_space, gym.spaces.Box) or not action_space.is_bounded():
            raise DyDiffError(
                f"Nothing is uniform over {action_space}.", "Use a policy file instead of 'random'."
            )
        self.low = torch.as_tensor(np.float32(action_space.low)).reshape(-1)
        self.high = torch.as_tensor(np.float32(action_space.high)).reshape(-1)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A), independent of the observations (B, O)."""
        draw = torch.rand(len(observations), len(self.low), device=observations.device)
        return self.low.to(draw.device) + draw * (self.high - self.low).to(draw.device)
