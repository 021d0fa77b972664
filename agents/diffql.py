"""Diffusion Q-learning (Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class …")."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.networks import MLP, QNetwork, frozen, soft_update, timestep_embedding
from dydiff_env.agents.replay import Batch


@dataclass(frozen=True)
class DiffQLConfig:
    """Hyper-parameters; the defaults are the authors' for Hopper's and Walker2d's medium-replay data.

    The learning rate is constant, as is their code's default (the commands of their README anneal it by ``--lr_decay``); HalfCheetah's
    gradient norm is 2 there.

    Args:
        eta: weight of Q against the diffusion loss.
        diffusion_steps: T denoising steps of the policy.
        max_q_backup: the target value is the best of ten next actions, for sparse rewards.
        candidates: actions drawn per observation when acting; one is picked by Q.
        gradient_norm: bound of the gradient's norm, actor and critics; 0 for none.
        ema_start: updates before the policy's average begins to move.
        ema_every: updates between its moves.
        ema_rate: its rate, 1 − decay.
        discount: γ.
        tau: rate of the target critics.
        batch_size: B.
        learning_rate: Adam's, actor and critics.
        hidden: widths of the hidden layers.
    """

    eta: float = 1.0
    diffusion_steps: int = 5
    max_q_backup: bool = False
    candidates: int = 50
    gradient_norm: float = 4.0
    ema_start: int = 1000
    ema_every: int = 5
    ema_rate: float = 0.005
    discount: float = 0.99
    tau: float = 0.005
    batch_size: int = 256
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256, 256)


class DiffusionPolicy(nn.Module):
    """a ~ π(· | s) by T denoising steps from noise, variance-preserving schedule (the paper's Eq. 2).

    Args:
        observation_size: O.
        action_size: A.
        hidden: widths of the noise network's hidden layers.
        steps: T.
    """

    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...], steps: int) -> None:
        super().__init__()
        self.steps, self.action_size, embedding = steps, action_size, 16
        self.time = nn.Sequential(
            nn.Linear(embedding, 2 * embedding), nn.Mish(), nn.Linear(2 * embedding, embedding)
        )
        self.noise = MLP((action_size + embedding + observation_size, *hidden, action_size), "mish")
        self.split = [action_size, embedding, observation_size]
        self.register_buffer("embedding", timestep_embedding(steps, embedding), persistent=False)
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        betas = 1 - torch.exp(-0.1 / steps - 0.5 * (10 - 0.1) * (2 * t - 1) / steps**2)
        kept = (1 - betas).cumprod(0)  # ᾱ_t
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        # Rows: √ᾱ_t, √(1−ᾱ_t); the posterior's coefficients of a_0 and a_t; its standard deviation, 0 at t = 0.
        schedule = torch.stack(
            [
                kept.sqrt(),
                (1 - kept).sqrt(),
                betas * before.sqrt() / (1 - kept),
                (1 - before) * (1 - betas).sqrt() / (1 - kept),
                (betas * (1 - before) / (1 - kept)).sqrt(),
            ]
        )
        self.register_buffer("schedule", schedule.float(), persistent=False)
        self.coefficients: list[list[float]] = schedule.T.tolist()  # the same as plain numbers

    embedding: Tensor
    schedule: Tensor

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions (B, A) in [−1, 1].

        Args:
            observations: (B, O).
            noise: (T + 1, B, A), standard normal: the start and what each step but the last adds.
        """
        state, time = self._state_part(observations), self._time_part()
        action = noise[self.steps]
        for t in reversed(range(self.steps)):
            scale, sigma, of_clean, of_noisy, spread = self.coefficients[t]
            predicted = self._tail(state + time[t], action)
            clean = (action / scale - sigma / scale * predicted).clamp(-1, 1)
            action = of_clean * clean + of_noisy * action + spread * noise[t]
        return action.clamp(-1, 1)

    def loss(self, actions: Tensor, observations: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """E‖ε − ε_θ(√ᾱ_t a + √(1−ᾱ_t) ε, s, t)‖² (the paper's Eq. 3)."""
        noisy = self.schedule[0, t, None] * actions + self.schedule[1, t, None] * noise
        predicted = self._tail(self._state_part(observations) + self._time_part()[t], noisy)
        return F.mse_loss(predicted, noise)

    # The first layer is a sum of three products; those of the state and of the time are made once for T steps.

    def _weights(self) -> list[Tensor]:
        return list(self.noise.first.weight.split(self.split, 1))

    def _state_part(self, observations: Tensor) -> Tensor:
        return F.linear(observations, self._weights()[2], self.noise.first.bias)

    def _time_part(self) -> Tensor:
        return F.linear(self.time(self.embedding), self._weights()[1])  # (T, H)

    def _tail(self, hidden: Tensor, actions: Tensor) -> Tensor:
        return self.noise.tail(torch.addmm(hidden, actions, self._weights()[0].t()))


class DiffQL(Agent):
    """min E‖ε − ε_θ‖² − η E[Q(s, a_0)] / E|Q|, a_0 ~ π_θ(s) through all denoising steps."""

    algorithm = "diffql"
    config_class = DiffQLConfig
    config: DiffQLConfig
    standardises = False
    fixed_noise: Tensor

    def build(self, observation_size: int, action_size: int) -> None:
        """A diffusion policy with its moving average, two critics with targets."""
        config = self.config
        self.actor = DiffusionPolicy(observation_size, action_size, config.hidden, config.diffusion_steps)
        self.average = deepcopy(self.actor).requires_grad_(False)
        self.critics = nn.ModuleList(
            QNetwork(observation_size, action_size, config.hidden, "mish") for _ in range(2)
        )
        self.targets = deepcopy(self.critics).requires_grad_(False)
        chain = (config.diffusion_steps + 1, config.candidates, action_size)
        fixed = torch.empty(chain).normal_(generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed_noise", fixed, persistent=False)
        self.actor_optimizer = self.adam("actor", self.actor, rate=config.learning_rate)
        self.critic_optimizer = self.adam("critic", self.critics, rate=config.learning_rate)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the critics, the policy, its average and the targets."""
        observations, actions, rewards, next_observations, terminated = batch.pick(0)
        target = self.target_values(rewards, next_observations, terminated)
        critic_loss = sum(F.mse_loss(critic(observations, actions), target) for critic in self.critics)
        assert isinstance(critic_loss, Tensor)
        self.critic_optimizer.descend(critic_loss, self.config.gradient_norm)

        t = torch.randint(
            self.config.diffusion_steps, (len(actions),), device=self.device, generator=self.generator
        )
        cloning = self.actor.loss(actions, observations, t, self._noise(actions.shape))
        actor_loss = cloning + self.config.eta * self.value_loss(observations)
        self.actor_optimizer.descend(actor_loss, self.config.gradient_norm)

        if self.updates >= self.config.ema_start and self.updates % self.config.ema_every == 0:
            soft_update(self.average, self.actor, self.config.ema_rate)
        soft_update(self.targets, self.critics, self.config.tau)
        return {"actor_loss": actor_loss.detach(), "critic_loss": critic_loss.detach()}

    @torch.no_grad()
    def target_values(self, rewards: Tensor, next_observations: Tensor, terminated: Tensor) -> Tensor:
        """y = r + γ (1 − terminated) min_i Q'_i(s', a'), or with max_a' inside for ``max_q_backup``."""
        count = 10 if self.config.max_q_backup else 1
        repeated = next_observations.repeat_interleave(count, 0)
        action = self.average.sample(repeated, self._chain_noise(len(repeated)))
        values = [target(repeated, action).view(-1, count).amax(1) for target in self.targets]
        return rewards + self.config.discount * (1 - terminated) * torch.minimum(*values)

    def value_loss(self, observations: Tensor) -> Tensor:
        """−E Q_i(s, a) / E|Q_j(s, a)|, a from the policy; i is drawn each time, j is the other."""
        action = self.actor.sample(observations, self._chain_noise(len(observations)))
        draw = torch.rand((), device=self.device, generator=self.generator)
        chosen, other = self.critics if draw > 0.5 else reversed(self.critics)
        with torch.no_grad():
            scale = other(observations, action).abs().mean()
        with frozen(self.critics):
            return -chosen(observations, action).mean() / scale

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """One of ``candidates`` samples: the one of highest Q, or, stochastic, drawn by softmax of Q.

        The authors' evaluation is the stochastic form. The deterministic one uses the same noise for every observation, so
        that it is a function of it.
        """
        batch, count, size = observations.shape[0], self.config.candidates, self.actor.action_size
        chain = (self.config.diffusion_steps + 1, batch * count, size)
        noise = (
            self.fixed_noise.repeat(1, batch, 1) if deterministic else torch.randn(chain, device=self.device)
        )
        repeated = observations.repeat_interleave(count, 0)
        actions = self.actor.sample(repeated, noise)
        values = torch.minimum(*(target(repeated, actions) for target in self.targets)).view(-1, count)
        actions = actions.view(-1, count, size)
        picked = values.argmax(1) if deterministic else torch.multinomial(values.softmax(1), 1).squeeze(1)
        return actions.gather(1, picked[:, None, None].expand(-1, 1, size)).squeeze(1)

    def _noise(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        return torch.empty(shape, device=self.device).normal_(generator=self.generator)

    def _chain_noise(self, batch: int) -> Tensor:
        return self._noise((self.config.diffusion_steps + 1, batch, self.actor.action_size))
