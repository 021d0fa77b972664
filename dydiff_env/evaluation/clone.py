"""A policy every world brings along: its clone of the best episodes."""

from __future__ import annotations

import torch
from torch import Tensor

from dydiff_env.world.world import World


class BestClone:
    """The world's clone of the episodes with the highest returns, as a policy.

    Args:
        world: fitted with behaviour clones.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Its mean actions (B, A) for observations (B, O)."""
        behavior = self.world.models.behavior
        assert behavior is not None
        states = self.world.normalizer.normalize(observations.to(self.world.device))
        with torch.no_grad():
            actions: Tensor = behavior(behavior.config.clones - 1, states)
        return actions.clamp(self.world.low, self.world.high)
