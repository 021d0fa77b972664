"""Behaviour cloning: the base line that every offline agent should beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.networks import MLP
from dydiff_env.agents.replay import Batch


@dataclass(frozen=True)
class BCConfig:
    """Hyper-parameters.

    Args:
        batch_size: B.
        learning_rate: Adam's.
        hidden: widths of the hidden layers.
    """

    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)


class BC(Agent):
    """min_π E (π(s) − a)²."""

    algorithm = "bc"
    config_class = BCConfig
    config: BCConfig

    def build(self, observation_size: int, action_size: int) -> None:
        """An actor."""
        self.actor = MLP((observation_size, *self.config.hidden, action_size))
        self.optimizer = self.adam("actor", self.actor, rate=self.config.learning_rate)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on (π(s) − a)²."""
        loss = F.mse_loss(self.actor(batch.observations[0]).tanh(), batch.actions[0])
        self.optimizer.descend(loss)
        return {"actor_loss": loss.detach()}

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """π(s)."""
        return self.actor(observations).tanh()
