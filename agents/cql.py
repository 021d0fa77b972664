"""Conservative Q-learning (Kumar et al. 2020), CQL(H) on soft actor-critic."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.networks import MLP, QNetwork, frozen, soft_update
from dydiff_env.agents.replay import Batch


@dataclass(frozen=True)
class CQLConfig:
    """Hyper-parameters; the defaults are those of the widely used re-implementation in CORL.

    There the multiplier 1 and the offset −1 of the log standard deviation are trained too; here they are constants, which the output
    layer's weights and bias make up for.

    Args:
        alpha: weight of the conservative term.
        lagrange: tune that weight so that the gap Q(other) − Q(data) is ``target_gap``.
        target_gap: τ of the Lagrange version.
        importance_sampling: weigh sampled actions by the inverse of their density in the log-sum-exp.
        actions: sampled actions of each kind (uniform, π(s), π(s')).
        temperature: of the log-sum-exp.
        backup_entropy: subtract the policy's log-density from the target value, as SAC does.
        discount: γ.
        tau: rate of the target networks.
        batch_size: B.
        policy_rate: Adam's learning rate for the actor and the entropy's weight.
        critic_rate: the same for the critics and the Lagrange multiplier.
        hidden: widths of the hidden layers.
    """

    alpha: float = 10.0
    lagrange: bool = False
    target_gap: float = -1.0
    importance_sampling: bool = True
    actions: int = 10
    temperature: float = 1.0
    backup_entropy: bool = False
    discount: float = 0.99
    tau: float = 0.005
    batch_size: int = 256
    policy_rate: float = 3e-5
    critic_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256, 256)


class CQL(Agent):
    """SAC whose critics also minimise α E[log Σ_a exp Q(s, a) − Q(s, a_data)]."""

    algorithm = "cql"
    config_class = CQLConfig
    config: CQLConfig

    def build(self, observation_size: int, action_size: int) -> None:
        """A tanh-Gaussian actor, two critics with targets, the entropy's weight, the Lagrange multiplier."""
        config = self.config
        self.actor = MLP((observation_size, *config.hidden, 2 * action_size))
        output = self.actor.layers[-1]
        assert isinstance(output, nn.Linear)
        nn.init.xavier_uniform_(output.weight, gain=0.01)
        nn.init.zeros_(output.bias)
        self.critics = nn.ModuleList(QNetwork(observation_size, action_size, config.hidden) for _ in range(2))
        for critic in self.critics:
            _orthogonal(critic)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.log_multiplier = nn.Parameter(torch.ones(()))
        self.actor_optimizer = self.adam("actor", self.actor, rate=config.policy_rate)
        self.critic_optimizer = self.adam("critic", self.critics, rate=config.critic_rate)
        self.alpha_optimizer = self.adam("alpha", self.log_alpha, rate=config.policy_rate)
        self.multiplier_optimizer = self.adam("multiplier", self.log_multiplier, rate=config.critic_rate)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the entropy's weight, the actor, the critics and the targets."""
        observations, actions, rewards, next_observations, terminated = batch.pick(0)
        present = self.distribution(observations)
        with torch.no_grad():
            following = self.distribution(next_observations)

        action, log_density = self.sample(present)
        alpha = self.log_alpha.detach().exp()
        alpha_loss = -self.log_alpha * (log_density.detach().mean() - actions.shape[1])
        self.alpha_optimizer.descend(alpha_loss)
        with frozen(self.critics):
            value = torch.minimum(*(critic(observations, action) for critic in self.critics))
        actor_loss = (alpha * log_density - value).mean()
        self.actor_optimizer.descend(actor_loss)

        present = (present[0].detach(), present[1].detach())
        with torch.no_grad():
            target = self.target_values(following, rewards, next_observations, terminated, alpha)
            sampled, log_densities = self.sampled_actions(present, following)
        critic_loss = self.critic_loss(observations, actions, target, sampled, log_densities)
        self.critic_optimizer.descend(critic_loss)
        soft_update(self.targets, self.critics, self.config.tau)
        return {"actor_loss": actor_loss.detach(), "critic_loss": critic_loss.detach()}

    def distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each (B, A), of the Gaussian before the tanh."""
        mean, log_std = self.actor(observations).chunk(2, 1)
        return mean, (log_std - 1).clamp(-20, 2)

    def sample(self, distribution: tuple[Tensor, Tensor], count: int | None = None) -> tuple[Tensor, Tensor]:
        """Actions (B, A) with log-densities (B,), or (B, K, A) with (B, K) for ``count`` K."""
        mean, log_std = distribution
        if count is not None:
            mean, log_std = (part[:, None].expand(-1, count, -1) for part in distribution)
        noise = torch.empty(mean.shape, device=mean.device).normal_(generator=self.generator)
        raw = mean + log_std.exp() * noise
        # log N(raw) − log(1 − tanh² raw), the latter in a form that does not overflow
        log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        log_density = log_density - 2 * (math.log(2) - raw - F.softplus(-2 * raw))
        return raw.tanh(), log_density.sum(-1)

    def target_values(
        self,
        following: tuple[Tensor, Tensor],
        rewards: Tensor,
        next_observations: Tensor,
        terminated: Tensor,
        alpha: Tensor,
    ) -> Tensor:
        """y = r + γ (1 − terminated) min_i Q'_i(s', a'), a' ~ π(s')."""
        action, log_density = self.sample(following)
        value = torch.minimum(*(target(next_observations, action) for target in self.targets))
        if self.config.backup_entropy:
            value = value - alpha * log_density
        return rewards + self.config.discount * (1 - terminated) * value

    def sampled_actions(
        self, present: tuple[Tensor, Tensor], following: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Actions (B, 3K, A) — uniform, from π(s), from π(s') — and their log-densities (B, 3K)."""
        count, (batch, size) = self.config.actions, present[0].shape
        uniform = torch.empty(batch, count, size, device=present[0].device).uniform_(
            -1, 1, generator=self.generator
        )
        flat = torch.full((batch, count), -size * math.log(2), device=uniform.device)
        here, density_here = self.sample(present, count)
        there, density_there = self.sample(following, count)
        return torch.cat([uniform, here, there], 1), torch.cat([flat, density_here, density_there], 1)

    def critic_loss(
        self, observations: Tensor, actions: Tensor, target: Tensor, sampled: Tensor, log_densities: Tensor
    ) -> Tensor:
        """Σ_i (Q_i(s, a) − y)² + α (log Σ_k exp Q_i(s, a_k) − Q_i(s, a)), the sum importance-weighted."""
        config, losses, gaps = self.config, [], []
        candidates = torch.cat([actions[:, None], sampled], 1)  # (B, 1 + 3K, A)
        for critic in self.critics:
            values = critic(observations, candidates)
            data, others = values[:, 0], values[:, 1:]
            others = others - log_densities if config.importance_sampling else values
            soft_maximum = config.temperature * torch.logsumexp(others / config.temperature, 1)
            losses.append(F.mse_loss(data, target))
            gaps.append((soft_maximum - data).mean())
        loss, gap = losses[0] + losses[1], gaps[0] + gaps[1]
        if not config.lagrange:
            return loss + config.alpha * gap
        excess = config.alpha * (gap - 2 * config.target_gap)
        multiplier_loss = -0.5 * self.log_multiplier.exp().clamp(0, 1e6) * excess.detach()
        multiplier = self.log_multiplier.detach().exp().clamp(0, 1e6)
        self.multiplier_optimizer.descend(multiplier_loss)
        return loss + multiplier * excess

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """tanh of the mean, or of a draw."""
        mean, log_std = self.distribution(observations)
        return (mean if deterministic else mean + log_std.exp() * torch.randn_like(mean)).tanh()


def _orthogonal(network: nn.Module) -> None:
    """Orthogonal weights, √2 in front of ReLUs and 0.01 at the end, and no biases."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, gain=0.01 if layer is linear[-1] else math.sqrt(2))
        nn.init.zeros_(layer.bias)
