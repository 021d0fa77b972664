"""MTDiff-s: diffusion over whole trajectories of states and actions (He et al., "Diffusion Model is an Effective
Planner and Data Synthesizer for Multi-Task Reinforcement Learning", 2023), for a single task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.world.batches import Batches
from dydiff_env.world.denoiser import Condition, Denoiser, DenoiserConfig
from dydiff_env.world.models import action_bounds
from dydiff_env.world.sampler import SamplerConfig, sample
from dydiff_env.world.training import TrainingConfig
from dydiff_env.world.transformer import CausalTransformer, TransformerConfig


@dataclass(frozen=True)
class MTDiffConfig:
    """Sizes and settings. The paper's network is a transformer of GPT-2's kind; the sizes here are our own.

    Args:
        network: the causal transformer.
        training: how it is trained.
        sampler: how trajectories are drawn.
    """

    network: TransformerConfig = field(default_factory=lambda: TransformerConfig(anchored=False))
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=3_000, batch=64, learning_rate=1e-3, ema=0.995, evaluate_every=200, clip=1.0
        )
    )
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(steps=18, churn=0.0))


PRESETS = {
    "fast": MTDiffConfig(),
    "quick": MTDiffConfig(training=replace(MTDiffConfig().training, steps=1_000)),
    "paper": MTDiffConfig(
        network=TransformerConfig(width=256, blocks=6, heads=4, anchored=False, patch=1),
        training=TrainingConfig(
            steps=100_000, batch=64, learning_rate=2e-4, ema=0.995, evaluate_every=500, clip=1.0
        ),
        sampler=SamplerConfig(),
    ),
    "tiny": MTDiffConfig(
        network=TransformerConfig(width=48, blocks=2, heads=2, anchored=False),
        training=TrainingConfig(
            steps=200, batch=64, learning_rate=2e-3, ema=0.98, evaluate_every=100, clip=1.0
        ),
        sampler=SamplerConfig(steps=6, churn=0.0),
    ),
}


class MTDiff(nn.Module):
    """p_θ(a_0, s_1, a_1, …, s_L | s_0): the actions are generated with the states, so that they are the data's and no
    policy's. In the paper a prompt of the task stands where the start state stands here.

    A step is one row (s_{t+1}, a_t) of O + A standardised numbers.

    Args:
        spec: the data's spaces.
        config: sizes and settings.
        horizon: L, steps of a window.
    """

    action_mean: Tensor
    action_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: DatasetSpec, config: MTDiffConfig, horizon: int) -> None:
        super().__init__()
        self.config, self.horizon, self.states = config, horizon, spec.observation_size
        size = spec.observation_size + spec.action_size
        network = CausalTransformer(size, 0, horizon, config.network)
        self.denoiser = Denoiser(
            network, DenoiserConfig(sigma_data=1.0, log_sigma_mean=-0.4, log_sigma_std=1.4)
        )
        self.register_buffer("action_mean", torch.zeros(spec.action_size))
        self.register_buffer("action_std", torch.ones(spec.action_size))
        low, high = action_bounds(spec)  # stored with the weights
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def measure(self, batches: Batches, rows: Tensor) -> None:
        """Set the actions' means and deviations by the transitions ``rows``."""
        actions = batches.steps(rows).actions
        self.action_mean.copy_(actions.mean(0))
        std = actions.std(0)
        self.action_std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std))

    def loss(self, batches: Batches, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Eq. 4 on the windows that start at the transitions ``rows`` (B,)."""
        states, actions, real, alive = batches.windows(rows, self.horizon)
        target = torch.cat([states[:, 1:], (actions - self.action_mean) / self.action_std], -1)  # (B, L, O+A)
        # After a terminal state the world is known to stand still; after a time-out nothing is known.
        weight = torch.maximum(real, 1 - alive)[..., None]
        return self.denoiser.loss(target, self._condition(states[:, 0], self.horizon), weight, generator)

    @torch.no_grad()
    def draw(self, starts: Tensor, steps: int, seed: int, rows: int = 512) -> tuple[Tensor, Tensor, int]:
        """Draw trajectories from start states.

        Args:
            starts: (B, O), normalised.
            steps: how many; beyond the window, windows are chained, each from where the last one ended.
            seed: of the noise.
            rows: windows a network call.

        Returns:
            States (B, L+1, O), normalised, actions (B, L, A) within the space, and how many of them had to be brought
            into it.
        """
        generator = torch.Generator().manual_seed(seed)
        states, actions, clipped = [starts[:, None]], [], 0
        for begin in range(0, steps, self.horizon):
            length = min(self.horizon, steps - begin)
            drawn = torch.cat(
                [self._window(part, length, generator) for part in states[-1][:, -1].split(rows)]
            )
            states.append(drawn[..., : self.states])
            proposed = drawn[..., self.states :] * self.action_std + self.action_mean
            actions.append(proposed.clamp(self.low, self.high))
            clipped += int(((proposed - actions[-1]).abs() > 1e-5).any(-1).sum())
        return torch.cat(states, 1), torch.cat(actions, 1), clipped

    def _window(self, starts: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """(B, L, O+A)."""
        condition = self._condition(starts, length)
        shape = (len(starts), length, self.states + len(self.action_mean))
        return sample(
            lambda x, sigma: self.denoiser(x, sigma, condition),
            shape,
            self.config.sampler,
            generator,
            starts.device,
        )

    def _condition(self, starts: Tensor, length: int) -> Condition:
        """s_0 as the step before the first, whose action is nil."""
        before = torch.cat([starts, starts.new_zeros(len(starts), len(self.action_mean))], -1)
        return Condition(
            before, starts.new_zeros(len(starts), length, 0), starts.new_ones(len(starts), length)
        )
