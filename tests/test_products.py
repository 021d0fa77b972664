"""Matrix products: exact where they have to be, in half precision only where that is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dydiff_env import World, embedded
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.products import fast_products, half_products


def factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 96, generator=generator), torch.randn(96, 32, generator=generator)


def test_fast_products_keep_all_digits_and_give_the_setting_back() -> None:
    a, b = factors()
    before = torch.get_float32_matmul_precision()
    with fast_products():
        found = a @ b
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_dreams_in_threads_are_those_of_one_and_leave_no_trace() -> None:
    world, before, state = World.load(embedded.WORLD), torch.get_float32_matmul_precision(), torch.get_rng_state()

    def dreamt(name: str) -> float:
        return float(dream_returns(world, name, 8, horizon=12, iterations=0).returns.mean())

    names = ["random", "demo"] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(dreamt, names)) == pytest.approx([dreamt(name) for name in names], rel=1e-4)
    assert torch.get_float32_matmul_precision() == before and torch.equal(torch.get_rng_state(), state)


def test_half_products_round_the_factors_and_nothing_after_them() -> None:
    a, b = factors()
    exact = a.double() @ b.double()
    with half_products("cpu"):
        within = a @ b
    assert within.dtype in (torch.bfloat16, torch.float32)  # as the processor has it
    assert float((within.double() - exact).abs().max()) < 0.02 * float(exact.abs().max())
    torch.testing.assert_close((a @ b).double(), exact, rtol=1e-5, atol=1e-5)


def test_a_gradient_through_half_products_is_of_full_width() -> None:
    a, _ = factors()
    layer = torch.nn.Linear(96, 32)
    with half_products("cpu"):
        loss = layer(a).float().square().mean()
    loss.backward()
    half, layer.weight.grad = layer.weight.grad, None
    layer(a).square().mean().backward()
    assert half is not None and layer.weight.grad is not None and half.dtype == torch.float32
    assert float((half - layer.weight.grad).norm() / layer.weight.grad.norm()) < 0.02
