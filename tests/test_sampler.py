"""The sampler against closed forms: for Gaussian data the exact denoiser and the exact answer are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from dydiff_env.world.sampler import SamplerConfig, noise_levels, sample

DATA = 0.5  # standard deviation of the data, mean 1


def exact(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_0 + σ n = x] for x_0 ~ N(1, DATA²)."""
    s = sigma.view(-1, *[1] * (x.dim() - 1)) ** 2
    return (DATA**2 * x + s) / (DATA**2 + s)


# Table 3's S_noise = 1.002 and coarse steps widen a sample on purpose, by some per cent; without them the moments are exact.
@pytest.mark.parametrize(("config", "slack"), [
    (SamplerConfig(), 0.04), (SamplerConfig(steps=150, churn_noise=1.0), 0.015), (SamplerConfig(churn=0.0), 0.015),
    (SamplerConfig(steps=300, heun=False, churn=0.0), 0.015)])
def test_moments_of_gaussian_data(config, slack):
    x = sample(exact, (20_000, 2), config, torch.Generator().manual_seed(0))
    assert torch.allclose(x.mean(0), torch.ones(2), atol=0.02)
    assert torch.allclose(x.std(0), torch.full((2,), DATA), atol=slack)


def test_levels_are_those_of_table_3():
    levels = noise_levels(SamplerConfig())
    assert len(levels) == 35 and levels[-1] == 0.0
    assert levels[0] == pytest.approx(80) and levels[-2] == pytest.approx(0.002)
    assert all(a > b for a, b in pairwise(levels))


def test_paper_sampler_takes_67_calls():
    calls = 0

    def counted(x, sigma):
        nonlocal calls
        calls += 1
        return exact(x, sigma)

    sample(counted, (2, 3), SamplerConfig(), torch.Generator().manual_seed(0))
    assert calls == 67


def test_heun_converges_with_order_two():
    # Without churn the sample is a deterministic map of the first noise, known in closed form for Gaussian data.
    def error(steps: int) -> float:
        config = SamplerConfig(steps=steps, churn=0.0, sigma_max=10.0)
        noise = 10.0 * torch.randn(512, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
        got = sample(lambda x, s: exact(x.double(), s.double()), (512, 1), config, torch.Generator().manual_seed(1))
        # dx/dσ = σ (x − 1) / (DATA² + σ²): (x − 1) scales with sqrt(DATA² + σ²)
        want = 1 + (noise.double() - 1) * math.sqrt(DATA**2 / (DATA**2 + 100.0))
        return float((got - want).abs().mean())

    coarse, fine = error(24), error(48)
    assert 1.8 < math.log2(coarse / fine) < 2.4


def test_one_call_draws_nothing():
    config = SamplerConfig(steps=1)
    assert torch.equal(sample(exact, (4, 2), config), sample(exact, (4, 2), config))
