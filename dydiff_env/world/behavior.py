"""Clones of the behaviour policies, whose feedback makes closed-loop training rollouts out of logged ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dydiff_env.world.networks import Units, perceptron


@dataclass(frozen=True)
class BehaviorConfig:
    """How many clones, and their size.

    Args:
        clones: behaviour clones, each of one quantile of the episodes by return: a log holds many policies.
        width: units of a hidden layer.
        depth: hidden layers.
    """

    clones: int = 4
    width: int = 128
    depth: int = 2


class Behavior(nn.Module):
    """β_j(s), the mean action of the j-th slice of the data, trained by squared error."""

    def __init__(self, observation_size: int, action_size: int, config: BehaviorConfig) -> None:
        super().__init__()
        self.config, self.units = config, Units(action_size)
        self.clones = nn.ModuleList(
            perceptron(observation_size, action_size, config.width, config.depth)
            for _ in range(config.clones)
        )

    def forward(self, clone: int, states: Tensor) -> Tensor:
        """Actions (…, A) of one clone for normalised states (…, O)."""
        return self.units.back(self.clones[clone](states))

    def loss(self, clone: int, states: Tensor, actions: Tensor) -> Tensor:
        """Mean squared error of one clone, for normalised states (B, O) and logged actions (B, A)."""
        return (self.clones[clone](states) - self.units(actions)).square().mean()
