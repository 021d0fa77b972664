"""Sampling from the denoiser: EDM's stochastic Heun method (Algo. 2), and one call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplerConfig:
    """Table 3's sampler by default.

    Args:
        steps: N; 1 is a single denoise of nothing, D(0; sigma_max), the conditional mean.
        sigma_min: smallest noise level but 0.
        sigma_max: largest.
        rho: how the levels are spaced.
        churn: S_churn.
        churn_min: S_tmin.
        churn_max: S_tmax.
        churn_noise: S_noise.
        heun: correct each Euler step (2 N − 1 calls), or not (N calls: DDIM).
    """

    steps: int = 34
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: float = 60.0
    churn_min: float = 0.37
    churn_max: float = 52.212
    churn_noise: float = 1.002
    heun: bool = True


def noise_levels(config: SamplerConfig) -> list[float]:
    """t_0 = sigma_max > … > t_{N−1} = sigma_min > t_N = 0 (EDM, Eq. 5)."""
    low, high, n = config.sigma_min ** (1 / config.rho), config.sigma_max ** (1 / config.rho), config.steps
    return [(high + i / max(n - 1, 1) * (low - high)) ** config.rho for i in range(n)] + [0.0]


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    config: SamplerConfig,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw x (B, …) ~ p_θ.

    The conditions are part of ``denoise`` and are never noised, so "re-apply the conditions" after each half step (Algo. 2,
    lines 7 and 11) has nothing left to do.

    Args:
        denoise: D_θ(·; σ) with its conditions: x (B, …), σ (B,) to (B, …).
        shape: of the sample.
        config: the sampler; with ``steps=1`` no random number is drawn.
        generator: of the noise, on the CPU.
        device: where the denoiser is.
    """

    def levels(sigma: float) -> Tensor:
        return torch.full((shape[0],), sigma, device=device)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    if config.steps == 1:
        return denoise(torch.zeros(shape, device=device), levels(config.sigma_max))
    t = noise_levels(config)
    x = t[0] * noise()
    for now, after in pairwise(t):
        gamma = (
            min(config.churn / config.steps, math.sqrt(2) - 1)
            if config.churn_min <= now <= config.churn_max
            else 0.0
        )
        hat = now * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(hat**2 - now**2) * config.churn_noise * noise()
        slope = (x - denoise(x, levels(hat))) / hat
        ahead = x + (after - hat) * slope
        if config.heun and after > 0:
            slope = (slope + (ahead - denoise(ahead, levels(after))) / after) / 2
            ahead = x + (after - hat) * slope
        x = ahead
    return x
