"""The reward model r_ψ (Eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dydiff_env.world.networks import Units, perceptron


@dataclass(frozen=True)
class RewardConfig:
    """Size and inputs of the reward model.

    Args:
        width: units of a hidden layer.
        depth: hidden layers.
        next_state: True for r(s, a, s'), False for the paper's r(s, a). None: `fit` takes r(s, a, s') where r(s, a) leaves much
            unexplained that the next state tells, a goal that is reached or a crash.
        ends: with the next state, whether it is told besides that the step ends the episode.
    """

    width: int = 256
    depth: int = 2
    next_state: bool | None = False
    ends: bool = False


class RewardModel(nn.Module):
    """r_ψ(s, a), r_ψ(s, a, s') or r_ψ(s, a, s', end): normalised states and actions in, the environment's rewards out."""

    mean: Tensor
    std: Tensor

    def __init__(self, observation_size: int, action_size: int, config: RewardConfig) -> None:
        super().__init__()
        self.config = config
        inputs = observation_size * (2 if config.next_state else 1) + action_size + config.ends
        self.units = Units(action_size)
        self.network = perceptron(inputs, 1, config.width, config.depth)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, states: Tensor, actions: Tensor, next_states: Tensor, ends: Tensor | None = None) -> Tensor:
        """Rewards (…) for states (…, O), actions (…, A), next states (…, O), and where the step ends the episode (…): by default nowhere.

        What the model does not look at is unused.
        """
        inputs = [states, self.units(actions), *([next_states] if self.config.next_state else [])]
        if self.config.ends:
            inputs.append(torch.zeros_like(states[..., :1]) if ends is None else ends[..., None].to(states.dtype))
        return self.network(torch.cat(inputs, -1)).squeeze(-1) * self.std + self.mean

    def expected(self, states: Tensor, actions: Tensor, next_states: Tensor, outlived: Tensor) -> Tensor:
        """The mean of :meth:`forward` where steps are outlived with these probabilities (…)."""
        plain = self(states, actions, next_states)
        if not self.config.ends:
            return plain
        last = self(states, actions, next_states, torch.ones_like(outlived))
        return outlived * plain + (1 - outlived) * last

    def loss(self, states: Tensor, actions: Tensor, next_states: Tensor, rewards: Tensor, ends: Tensor | None = None) -> Tensor:
        """Eq. 10 on standardised rewards."""
        return ((self(states, actions, next_states, ends) - rewards) / self.std).square().mean()
