"""SOAP: what it does to a parameter, and that a stop changes nothing."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from dydiff_env.errors import DyDiffError
from dydiff_env.world.presets import TINY
from dydiff_env.world.settings import check_settings
from dydiff_env.world.soap import BASIS_EVERY, SOAP
from dydiff_env.world.training import TrainingConfig, make_optimizer


def descend(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], aim: list[torch.Tensor], steps: range) -> None:
    """Gradient steps on squares that are ill-conditioned and askew, each with a draw of its own."""
    generator = torch.Generator().manual_seed(5)
    skews = [torch.randn(p.shape[-1], p.shape[-1], generator=generator) / p.shape[-1] ** 0.5 for p in parameters]
    for step in steps:
        generator.manual_seed(step)
        draws = [torch.randn(p.shape[-2:], generator=generator) for p in parameters]
        losses = [
            ((p - y) @ a).square().sum() + (p * n).sum() for p, y, a, n in zip(parameters, aim, skews, draws, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()


def made(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_what_is_no_matrix_is_moved_as_adamw_moves_it() -> None:
    """But for the first gradient, which moves nothing."""
    ours, theirs, aim = made((7,), (3, 1, 5)), made((7,), (3, 1, 5)), made((7,), (3, 1, 5), seed=1)
    how = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    descend(SOAP(ours, **how), ours, list(aim), range(51))  # type: ignore[arg-type]
    descend(torch.optim.AdamW(theirs, **how), theirs, list(aim), range(1, 51))  # type: ignore[arg-type]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_how_the_axes_lie_makes_no_difference() -> None:
    """Turned axes give turned results: that is what AdamW, which treats every axis apart, does not do."""
    (start,), aim, skew = made((6, 6)), made((6, 6), seed=1)[0].detach(), made((6, 6), seed=2)[0].detach()
    turns = [torch.linalg.qr(made((6, 6), seed=seed)[0].detach())[0] for seed in (3, 4)]

    def reached(kind: type[torch.optim.Optimizer], left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        parameter = nn.Parameter(left @ start.detach() @ right)
        optimizer = kind([parameter], lr=0.01)
        for draw in made(*[(6, 6)] * 2 * BASIS_EVERY, seed=5):
            optimizer.zero_grad()
            at = left.T @ parameter @ right.T
            ((skew @ (at - aim)).square() + draw.detach() * at).sum().backward()
            optimizer.step()
        return left.T @ parameter.detach() @ right.T

    axes = torch.eye(6)
    torch.testing.assert_close(reached(SOAP, *turns), reached(SOAP, axes, axes), rtol=1e-3, atol=1e-3)
    assert (reached(torch.optim.AdamW, *turns) - reached(torch.optim.AdamW, axes, axes)).abs().max() > 0.01


@pytest.mark.parametrize("largest", [4, 256])
def test_members_do_not_see_each_other(largest: int) -> None:
    """And a side that is too long is left as it is."""
    together, aim = made((3, 6, 6)), list(made((3, 6, 6), seed=1))
    alone = [nn.Parameter(together[0][m].detach().clone()) for m in range(3)]
    steps = range(2 * BASIS_EVERY + 1)
    optimizer = SOAP(together, 0.01, largest=largest)
    descend(optimizer, together, aim, steps)
    assert ("basis -1" in optimizer.state[together[0]]) == (largest >= 6)
    for m, parameter in enumerate(alone):
        descend(SOAP([parameter], 0.01, largest=largest), [parameter], [aim[0][m]], steps)
        torch.testing.assert_close(parameter, together[0][m], rtol=1e-3, atol=1e-4)


def test_a_rare_large_gradient_throws_nothing_far() -> None:
    """It fell between two looks; other gradients then turn the basis, and its mean lies where no squares are remembered."""
    (parameter,) = made((4, 4))
    optimizer, generator = SOAP([parameter], lr=0.01), torch.Generator().manual_seed(0)
    one, two = torch.zeros(4, 4), torch.zeros(4, 4)
    one[0, 0], two[:2, :2] = 1, 0.5
    moves = []
    for step in range(BASIS_EVERY + 5):  # the first moves nothing, so that the basis is turned after gradient number BASIS_EVERY
        before, usual = parameter.detach().clone(), one + 1e-4 * torch.randn(4, 4, generator=generator)
        rare = {BASIS_EVERY - 2: 1e3 * one, BASIS_EVERY - 1: 10 * two, BASIS_EVERY: 10 * two}
        parameter.grad = rare.get(step, usual)
        optimizer.step()
        moves.append(float((parameter - before).detach().square().mean().sqrt()) / 0.01)
    assert max(moves) == pytest.approx(1, rel=1e-3)  # cut there, and nowhere longer


def test_a_stop_changes_nothing() -> None:
    shapes, half = ((5, 8), (2, 6, 3), (4,)), BASIS_EVERY
    through, aim = made(*shapes), list(made(*shapes, seed=1))
    descend(SOAP(through, 0.01), through, aim, range(2 * half))
    stopped = made(*shapes)
    optimizer, file = SOAP(stopped, 0.01), io.BytesIO()
    descend(optimizer, stopped, aim, range(half))
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = SOAP(stopped, 0.5)
    again.load_state_dict(torch.load(file, weights_only=True))
    descend(again, stopped, aim, range(half, 2 * half))
    assert all(torch.equal(one, other) for one, other in zip(through, stopped, strict=True))


def test_an_unknown_optimizer_is_refused() -> None:
    assert isinstance(make_optimizer(nn.Linear(3, 2), TrainingConfig(optimizer="soap")), SOAP)
    check_settings(TINY)
    with pytest.raises(DyDiffError, match="adamw, soap"):
        check_settings(TrainingConfig(optimizer="sgd"))
