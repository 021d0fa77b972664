"""``DyDiffDream-v0`` in Gymnasium's registry."""

from __future__ import annotations

import gymnasium as gym

ENV_ID = "DyDiffDream-v0"


def register() -> None:
    """Register the environment, once; ``import dydiff_env`` does it."""
    if ENV_ID not in gym.registry:
        gym.register(
            ENV_ID,
            entry_point="dydiff_env.envs.dream:DyDiffDreamEnv",
            vector_entry_point="dydiff_env.envs.vector:DyDiffDreamVectorEnv",
        )
