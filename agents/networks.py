"""The few networks the agents are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Mish(torch.autograd.Function):
    """x tanh(softplus(x)), through one exponential: with n = eˣ(eˣ + 2) it is x n / (n + 2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # Beyond 20 the activation is the identity in float32; the bound keeps e²ˣ finite.
        e = x.clamp(max=20).exp_()
        n = (e + 2).mul_(e)
        tanh = n.div_(n + 2)
        ctx.save_for_backward(x, e, tanh)
        return x * tanh

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, e, tanh = ctx.saved_tensors
        # d/dx: tanh + x (1 − tanh²) sigmoid(x), and sigmoid(x) = eˣ / (1 + eˣ)
        slope = (1 - tanh * tanh).mul_(x).mul_(e).div_(e + 1).add_(tanh)
        return slope.mul_(gradient)


class Mish(nn.Module):
    """Mish (Misra 2019), several times faster on a CPU than torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """The activation, elementwise."""
        return F.mish(x) if torch.jit.is_tracing() or x.is_cuda else _Mish.apply(x)


def relu() -> nn.Module:
    """A ReLU that overwrites its input, which saves a trip through memory."""
    return nn.ReLU(inplace=True)


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = relu) -> nn.Sequential:
    """Linear layers of ``sizes`` with an activation between every two."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class QNetwork(nn.Module):
    """Q(s, a) for one action a state, or for K actions a state.

    Args:
        observation_size: O.
        action_size: A.
        hidden: width of each hidden layer.
        activation: makes the activation between layers.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = relu,
    ) -> None:
        super().__init__()
        self.observation_size = observation_size
        self.layers = mlp((observation_size + action_size, *hidden, 1), activation)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (B,) for actions (B, A), or (B, K) for actions (B, K, A)."""
        if actions.ndim == 2:
            return self.layers(torch.cat([observations, actions], 1)).squeeze(1)
        # The state's part of the first layer is the same for all K actions: computed once.
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        state, action = first.weight.split([self.observation_size, actions.shape[2]], 1)
        hidden = F.linear(actions, action) + F.linear(observations, state, first.bias)[:, None]  # (B, K, H)
        return self.layers[1:](hidden.flatten(0, 1)).view(actions.shape[:2])


class frozen:
    """Within this block the modules' parameters gather no gradients; gradients still flow through them."""

    def __init__(self, *modules: nn.Module) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *exception: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """θ' ← (1 − rate) θ' + rate θ, in one fused pass."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def timestep_embedding(steps: int, size: int) -> Tensor:
    """Sinusoidal embeddings (steps, size) of 0 … steps − 1 (Vaswani et al. 2017)."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
    angles = torch.arange(steps)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
