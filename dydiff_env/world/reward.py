"""The reward model r_ψ (Eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dydiff_env.world.networks import perceptron


@dataclass(frozen=True)
class RewardConfig:
    """Size and inputs of the reward model.

    Args:
        width: units of a hidden layer.
        depth: hidden layers.
        next_state: True for r(s, a, s'), False for the paper's r(s, a). None: `fit` takes r(s, a, s') where r(s, a) leaves much
            unexplained that the next state tells, a goal that is reached or a crash.
    """

    width: int = 256
    depth: int = 2
    next_state: bool | None = False


class RewardModel(nn.Module):
    """r_ψ(s, a) or r_ψ(s, a, s'): normalised states and actions in, the environment's rewards out."""

    mean: Tensor
    std: Tensor

    def __init__(self, observation_size: int, action_size: int, config: RewardConfig) -> None:
        super().__init__()
        self.config = config
        inputs = observation_size * (2 if config.next_state else 1) + action_size
        self.network = perceptron(inputs, 1, config.width, config.depth)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, states: Tensor, actions: Tensor, next_states: Tensor) -> Tensor:
        """Rewards (…) for states (…, O), actions (…, A) and next states (…, O); the last are unused in r(s, a)."""
        inputs = [states, actions, next_states] if self.config.next_state else [states, actions]
        return self.network(torch.cat(inputs, -1)).squeeze(-1) * self.std + self.mean

    def loss(self, states: Tensor, actions: Tensor, next_states: Tensor, rewards: Tensor) -> Tensor:
        """Eq. 10 on standardised rewards."""
        return ((self(states, actions, next_states) - rewards) / self.std).square().mean()
