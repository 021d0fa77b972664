"""The dream as a Gymnasium environment: ``DyDiffDream-v0``, single and batched."""

from dydiff_env.envs.registration import ENV_ID, register

__all__ = ["ENV_ID", "register"]
