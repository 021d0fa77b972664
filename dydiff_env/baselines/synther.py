"""SynthER: unconditional diffusion over single transitions (Lu et al., "Synthetic Experience Replay", 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.world.batches import Batches
from dydiff_env.world.denoiser import Condition, Denoiser, DenoiserConfig
from dydiff_env.world.models import action_bounds
from dydiff_env.world.networks import initial
from dydiff_env.world.sampler import SamplerConfig, sample
from dydiff_env.world.training import TrainingConfig

EDM = SamplerConfig(steps=128, churn=80.0, churn_min=0.05, churn_max=50.0, churn_noise=1.003)
"""The paper's sampler: 255 network calls."""


@dataclass(frozen=True)
class SynthERConfig:
    """Sizes and settings; the defaults are small enough for a CPU, PRESETS["paper"] has the paper's.

    Args:
        width: of the residual perceptron.
        depth: residual layers.
        training: how it is trained.
        sampler: how transitions are drawn.
    """

    width: int = 256
    depth: int = 6
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=30_000, batch=256, learning_rate=1e-3, ema=0.995, evaluate_every=500
        )
    )
    sampler: SamplerConfig = field(default_factory=lambda: replace(EDM, steps=32))


PRESETS = {
    "fast": SynthERConfig(),
    "quick": SynthERConfig(training=replace(SynthERConfig().training, steps=8_000)),
    "paper": SynthERConfig(
        width=1024,
        training=TrainingConfig(
            steps=100_000, batch=256, learning_rate=3e-4, ema=0.995, evaluate_every=1_000
        ),
        sampler=EDM,
    ),
    "tiny": SynthERConfig(
        width=64,
        depth=3,
        training=TrainingConfig(steps=400, batch=128, learning_rate=2e-3, ema=0.98, evaluate_every=100),
        sampler=replace(EDM, steps=8, churn=0.0),
    ),
}


class Transitions(NamedTuple):
    """B drawn transitions, environment units."""

    observations: Tensor  # (B, O)
    actions: Tensor  # (B, A), within the space
    rewards: Tensor  # (B,)
    next_observations: Tensor  # (B, O)
    terminated: Tensor  # (B,) bool
    clipped: int  # actions that had to be brought into the space


class ResidualMLP(nn.Module):
    """The paper's denoiser network: layers x + linear(activation(x)), with random Fourier features of the noise level."""

    frequencies: Tensor

    def __init__(self, size: int, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", initial((8,), lambda: torch.randn(8)))
        self.noise = nn.Sequential(nn.Linear(17, width), nn.SiLU(), nn.Linear(width, width))
        self.input = nn.Linear(size, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.output = nn.Linear(width, size)

    def forward(self, x: Tensor, c_in: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        """F_θ (B, 1, D) for scaled noisy transitions (B, 1, D) and noise levels (B,); there is nothing to condition on."""
        angles = 2 * math.pi * c_noise[:, None] * self.frequencies
        features = torch.cat([c_noise[:, None], angles.sin(), angles.cos()], -1)  # (B, 17)
        h = self.input(x) + self.noise(features)[:, None]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            h = h + layer(F.relu(norm(h)))
        return self.output(h)


class SynthER(nn.Module):
    """p_θ(s, a, r, s', terminal), learned from the logged transitions alone: it follows no policy but the data's.

    A transition is one row of D = 2 O + A + 2 numbers, standardised column by column but for the terminal flag, which
    stays 0 or 1 and is called at ½.

    Args:
        spec: the data's spaces.
        config: sizes and settings.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: DatasetSpec, config: SynthERConfig) -> None:
        super().__init__()
        self.config = config
        o, a = spec.observation_size, spec.action_size
        self.sizes = [o, a, 1, o, 1]
        self.denoiser = Denoiser(
            ResidualMLP(sum(self.sizes), config.width, config.depth), DenoiserConfig(sigma_data=1.0)
        )
        self.register_buffer("mean", torch.zeros(sum(self.sizes)))
        self.register_buffer("std", torch.ones(sum(self.sizes)))
        low, high = action_bounds(spec)  # stored with the weights
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def measure(self, batches: Batches, rows: Tensor) -> None:
        """Set means and deviations by the transitions ``rows``."""
        columns = self._columns(batches, rows)
        self.mean.copy_(columns.mean(0))
        std = columns.std(0)
        self.std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std))
        self.mean[-1], self.std[-1] = 0.0, 1.0

    def loss(self, batches: Batches, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Eq. 4 on the transitions ``rows`` (B,)."""
        target = ((self._columns(batches, rows) - self.mean) / self.std)[:, None]  # (B, 1, D)
        return self.denoiser.loss(target, self._nothing(target), torch.ones_like(target), generator)

    @torch.no_grad()
    def draw(self, count: int, seed: int, rows: int = 4096) -> Transitions:
        """Draw ``count`` transitions, ``rows`` a network call."""
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for begin in range(0, count, rows):
            shape = (min(rows, count - begin), 1, len(self.mean))
            condition = self._nothing(torch.empty(shape, device=self.mean.device))
            parts.append(
                sample(
                    partial(self.denoiser, condition=condition),
                    shape,
                    self.config.sampler,
                    generator,
                    self.mean.device,
                )
            )
        drawn = torch.cat(parts)[:, 0] * self.std + self.mean
        states, actions, rewards, following, terminal = drawn.split(self.sizes, -1)
        inside = actions.clamp(self.low, self.high)
        clipped = int(((actions - inside).abs() > 1e-5).any(-1).sum())
        return Transitions(states, inside, rewards[:, 0], following, terminal[:, 0] > 0.5, clipped)

    def _columns(self, batches: Batches, rows: Tensor) -> Tensor:
        """(B, D), environment units; ``batches`` leaves the states as they are."""
        step = batches.steps(rows)
        return torch.cat(
            [step.states, step.actions, step.rewards[:, None], step.next_states, step.terminal[:, None]], -1
        )

    def _nothing(self, target: Tensor) -> Condition:
        empty = target.new_zeros(len(target), 1, 0)
        return Condition(empty[:, 0], empty, target.new_ones(len(target), 1))
