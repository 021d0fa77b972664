"""The trajectory denoiser D_θ(τ; σ): EDM preconditioning and loss (Eqs. 3 and 4; Karras et al., 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Condition(NamedTuple):
    """What a sample is conditioned on, in normalised units. B windows of L steps.

    The last three are None for a network that works free of a rollout (the paper's). With them, a step has D = O + 1 numbers: its
    state, and whether the episode goes on after it, which is denoised like one more dimension of the state.
    """

    starts: Tensor  # (B, O), the clean s_0
    actions: Tensor  # (B, L, A), the actions whose states are asked for
    valid: Tensor  # (B, L), 1 where the step exists
    anchor: Tensor | None = None  # (B, L, D), the single-step rollout's s_1 … s_L and whether it lives
    anchor_actions: Tensor | None = None  # (B, L, A), the actions of that rollout
    scale: Tensor | None = None  # (B, L, D), the rollout's expected error

    def rows(self, rows: Tensor | slice) -> Condition:
        """Some of the windows."""
        fields: Any = {name: None if field is None else field[rows] for name, field in self._asdict().items()}
        return Condition(**fields)


class Coefficients(NamedTuple):
    """c_in, c_out, c_skip, c_noise of EDM, Table 1; each (B, 1, 1) but c_noise (B,)."""

    c_in: Tensor
    c_out: Tensor
    c_skip: Tensor
    c_noise: Tensor


@dataclass(frozen=True)
class DenoiserConfig:
    """Noise levels and their weights.

    Args:
        sigma_data: standard deviation of what is denoised (the released code: .5 on standardised states).
        log_sigma_mean: mean of ln σ in training.
        log_sigma_std: its standard deviation.
        mean_share: share of the training windows denoised from *no* information at all (σ = ``sigma_max``, input 0), which
            trains the conditional mean that one network call then gives.
        sigma_max: the largest noise level.
    """

    sigma_data: float = 0.5
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    mean_share: float = 0.0
    sigma_max: float = 80.0


class Denoiser(nn.Module):
    """D_θ over x (B, L, D): the states s_1 … s_L, or their scaled distance from the single-step rollout.

    With a rollout in the condition, x = (s − anchor) / scale: the denoiser models what the single-step model gets wrong, in units
    of how wrong it expects itself to be. Where the ensemble agrees, the correction is therefore small by construction.
    Without one, x = s (the paper). s_0 and the actions are never noised, which is the hard replacement of Eq. 3.

    Args:
        network: maps (c_in · x, c_in, c_noise, condition) to (B, L, D).
        config: noise levels and weights.
    """

    def __init__(self, network: nn.Module, config: DenoiserConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The preconditioning for noise levels (B,)."""
        data = self.config.sigma_data
        total = (sigma.square() + data**2).sqrt()
        return Coefficients(
            (1 / total)[:, None, None],
            (sigma * data / total)[:, None, None],
            (data**2 / total.square())[:, None, None],
            sigma.log() / 4,
        )

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """D_θ(x; σ), (B, L, D), for noisy x (B, L, D) and σ (B,)."""
        c = self.coefficients(sigma)
        return c.c_skip * x + c.c_out * self.network(c.c_in * x, c.c_in, c.c_noise, condition)

    def loss(
        self, target: Tensor, condition: Condition, weight: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Eq. 4: E λ(σ) ‖D_θ(x + n; σ) − x‖² over s_1 … s_L.

        Args:
            target: (B, L, D), clean.
            condition: of the same windows.
            weight: (B, L, 1 or D), 0 for padding.
            generator: of σ and n, on the CPU.
        """
        config, rows = self.config, len(target)
        log_sigma = config.log_sigma_mean + config.log_sigma_std * torch.randn(rows, generator=generator)
        sigma = log_sigma.exp().to(target.device)
        noise = torch.randn(target.shape, generator=generator).to(target.device)
        blind = (torch.rand(rows, generator=generator) < config.mean_share).to(target.device)
        sigma = torch.where(blind, torch.full_like(sigma, config.sigma_max), sigma)
        x = torch.where(blind[:, None, None], torch.zeros_like(target), target + sigma[:, None, None] * noise)
        lambda_ = ((sigma.square() + config.sigma_data**2) / (sigma * config.sigma_data).square())[
            :, None, None
        ]
        error = (self(x, sigma, condition) - target).square()
        weight = weight.expand_as(error)
        return (lambda_ * weight * error).sum() / weight.sum().clamp(min=1)


def noise_features(c_noise: Tensor, size: int) -> Tensor:
    """Sines and cosines (B, size) of the noise level (B,)."""
    frequencies = torch.exp(
        torch.arange(size // 2, device=c_noise.device) * (-math.log(1e4) / (size // 2 - 1))
    )
    angles = 1000 * c_noise[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)
