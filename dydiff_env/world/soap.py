"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2024, arXiv 2409.11321)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

GRAM_EVERY = 5  # steps between two looks at the gradient's second moments, which cost as much as turning it
MEMORY = 0.95  # of the second moments, a look
BASIS_EVERY = 25  # steps between two turns of the basis; 10 were dearer and no better (ablation_hopper.md)


class SOAP(Optimizer):
    """AdamW, but a matrix's gradient is first turned into the eigenbases of its own second moments G Gᵀ and Gᵀ G.

    There its numbers are nearly uncorrelated, which is what Adam takes for granted. Small networks that have to be right to many
    digits, as a single-step model, learn in far fewer steps. Everything but the last two dimensions of a parameter are
    matrices apart: the members of an ensemble do not see each other. A step is cut where it would be longer than Adam's longest
    (Adafactor's clipping; Shazeer and Stern, 2018, arXiv 1804.04235).

    Args:
        parameters: to be trained; those that are no matrices are AdamW's.
        lr: learning rate, as of AdamW.
        betas: of the mean gradient and of its squares.
        weight_decay: AdamW's.
        largest: sides of a matrix longer than this are not turned: a turn costs their square.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        weight_decay: float = 0.0,
        largest: int = 256,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        self.largest = largest

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        sides = self._sides(parameter)
        if not state:  # the first gradient is diagonal in its own eigenbases, which says nothing of the size of the rest: it moves nothing
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            for side in sides:
                state[f"gram {side}"] = _gram(gradient, side)
                # On the CPU, for many first gradients are all zero, and some of cuSOLVER's versions fail on such a matrix.
                basis = torch.linalg.eigh(state[f"gram {side}"].cpu())[1].flip(-1).contiguous()
                state[f"basis {side}"] = basis.to(parameter.device)
            return
        state["step"] += 1
        turned = _turn(gradient, state)
        state["mean"].lerp_(turned, 1 - beta1)
        state["square"].lerp_(turned.square(), 1 - beta2)
        debias = (1 - beta1 ** state["step"]) / (1 - beta2 ** state["step"]) ** 0.5
        move = state["mean"] / state["square"].sqrt().mul_(debias).add_(1e-8)
        # A basis that has just been turned by a rare, large gradient may find a mean where it remembers no squares.
        across = tuple(range(-min(2, move.dim()), 0))
        move /= move.square().mean(across, keepdim=True).sqrt_().clamp_(min=1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(_turn(move, state, back=True), alpha=-group["lr"])
        for side in sides:
            if state["step"] % GRAM_EVERY == 0:
                state[f"gram {side}"].lerp_(_gram(gradient, side), 1 - MEMORY)
            if state["step"] % BASIS_EVERY == 0:
                _turn_basis(state, side)

    def _sides(self, parameter: Tensor) -> list[int]:
        if parameter.dim() < 2 or min(parameter.shape[-2:]) == 1:
            return []  # a bias
        return [side for side in (-2, -1) if parameter.shape[side] <= self.largest]


def _gram(gradient: Tensor, side: int) -> Tensor:
    across = gradient.transpose(-2, -1)
    return gradient @ across if side == -2 else across @ gradient


def _turn(matrix: Tensor, state: dict[str, Tensor], back: bool = False) -> Tensor:
    """The matrix in the eigenbases, or back from them."""
    left, right = state.get("basis -2"), state.get("basis -1")
    if left is not None:
        matrix = (left if back else left.transpose(-2, -1)) @ matrix
    if right is not None:
        matrix = matrix @ (right.transpose(-2, -1) if back else right)
    return matrix


def _turn_basis(state: dict[str, Tensor], side: int) -> None:
    """One step of orthogonal iteration towards the eigenvectors, which hardly move from one turn to the next."""
    gram, basis, square = state[f"gram {side}"], state[f"basis {side}"], state["square"]
    order = (basis * (gram @ basis)).sum(-2).argsort(dim=-1, descending=True)
    turned = torch.linalg.qr(gram @ basis.gather(-1, order.unsqueeze(-2).expand_as(basis)))[0]
    state[f"basis {side}"] = turned
    state["square"] = square.gather(side, order.unsqueeze(-1 if side == -2 else -2).expand_as(square))
    change = basis.transpose(-2, -1) @ turned
    state["mean"] = change.transpose(-2, -1) @ state["mean"] if side == -2 else state["mean"] @ change
