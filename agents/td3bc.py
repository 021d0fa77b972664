"""TD3+BC (Fujimoto & Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning")."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.networks import MLP, QNetwork, frozen, soft_update
from dydiff_env.agents.replay import Batch


@dataclass(frozen=True)
class TD3BCConfig:
    """Hyper-parameters; the defaults are the paper's.

    Args:
        alpha: weight of Q against behaviour cloning: λ = alpha / mean |Q|.
        discount: γ.
        tau: rate of the target networks.
        policy_noise: standard deviation of the target policy's noise, in units of the action's half range.
        noise_clip: its bound.
        policy_freq: critic updates an actor update.
        batch_size: B.
        learning_rate: Adam's, actor and critics.
        hidden: widths of the hidden layers.
    """

    alpha: float = 2.5
    discount: float = 0.99
    tau: float = 0.005
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    policy_freq: int = 2
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)


class TD3BC(Agent):
    """TD3 whose actor also clones the data: max_π E[λ Q₁(s, π(s)) − (π(s) − a)²], λ = α / mean |Q₁|."""

    algorithm = "td3bc"
    config_class = TD3BCConfig
    config: TD3BCConfig

    def build(self, observation_size: int, action_size: int) -> None:
        """An actor, two critics and their targets."""
        config = self.config
        self.group = config.policy_freq
        self.actor = MLP((observation_size, *config.hidden, action_size))
        self.q1 = QNetwork(observation_size, action_size, config.hidden)
        self.q2 = QNetwork(observation_size, action_size, config.hidden)
        self.targets = deepcopy(torch.nn.ModuleList([self.actor, self.q1, self.q2])).requires_grad_(False)
        self.actor_optimizer = self.adam("actor", self.actor, rate=config.learning_rate)
        self.critic_optimizer = self.adam("critic", self.q1, self.q2, rate=config.learning_rate)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """A critic step a batch and, every ``policy_freq`` of them, one of the actor and the targets."""
        # The targets stand still until the actor moves: one larger product serves all K batches.
        targets = self.target_values(
            batch.next_observations.flatten(0, 1), batch.rewards.flatten(), batch.terminated.flatten()
        ).view_as(batch.rewards)
        for k, target in enumerate(targets):
            losses = {"critic_loss": self.update_critics(batch.observations[k], batch.actions[k], target)}
        if (self.updates + len(targets)) % self.config.policy_freq == 0:
            losses["actor_loss"] = self.update_actor(batch.observations[-1], batch.actions[-1])
            soft_update(self.targets, torch.nn.ModuleList([self.actor, self.q1, self.q2]), self.config.tau)
        return losses

    @torch.no_grad()
    def target_values(self, next_observations: Tensor, rewards: Tensor, terminated: Tensor) -> Tensor:
        """y = r + γ (1 − terminated) min_i Q'_i(s', clip(π'(s') + clip(ε, −c, c), −1, 1))."""
        actor, q1, q2 = self.targets
        action = actor(next_observations).tanh_()
        noise = torch.empty_like(action).normal_(0, self.config.policy_noise, generator=self.generator)
        action = (action + noise.clamp_(-self.config.noise_clip, self.config.noise_clip)).clamp_(-1, 1)
        value = torch.minimum(q1(next_observations, action), q2(next_observations, action))
        return rewards + self.config.discount * (1 - terminated) * value

    def update_critics(self, observations: Tensor, actions: Tensor, target: Tensor) -> Tensor:
        """One step on Σ_i (Q_i(s, a) − y)²."""
        loss = F.mse_loss(self.q1(observations, actions), target) + F.mse_loss(
            self.q2(observations, actions), target
        )
        self.critic_optimizer.descend(loss)
        return loss.detach()

    def update_actor(self, observations: Tensor, actions: Tensor) -> Tensor:
        """One step on −λ Q₁(s, π(s)) + (π(s) − a)²."""
        action = self.actor(observations).tanh()
        with frozen(self.q1):
            value = self.q1(observations, action)
        weight = self.config.alpha / value.detach().abs().mean()
        loss = -weight * value.mean() + F.mse_loss(action, actions)
        self.actor_optimizer.descend(loss)
        return loss.detach()

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """π(s); it has no noise."""
        return self.actor(observations).tanh()
