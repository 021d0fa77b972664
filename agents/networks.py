"""The few networks the agents are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _relu(z: Tensor, learns: bool) -> Tensor:
    """z ← max(z, 0); what its slope needs is z itself."""
    return z.relu_()


def _relu_slope(gradient: Tensor, kept: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, kept, 0, grad_input=gradient)


def _mish(z: Tensor, learns: bool) -> Tensor:
    """z ← z tanh(softplus(z)) (Misra 2019): with p = 1 + eᶻ and r = 1 / (1 + p²) it is z − 2 z r.

    Returns:
        (slope − 1) / 4, where the slope is 1 − 2 r + 4 z r (1 − r (1 + p)).
    """
    p = z.exp().add_(1)
    if not learns:
        return z.addcdiv_(z, p.mul_(p).add_(1), value=-2)
    r = (p.clamp_(max=1e9) * p).add_(1).reciprocal_()  # the bound keeps (1 + p) r² finite
    zr = z * r
    z.sub_(zr, alpha=2)
    return zr.addcmul_(zr, p.add_(1).mul_(r), value=-1).sub_(r, alpha=0.5)


def _mish_slope(gradient: Tensor, kept: Tensor) -> None:
    gradient.addcmul_(gradient, kept, value=4)


BLOCK = 1024  # rows that go through a network at once: their activations stay in the cache

ACTIVATIONS: dict[str, tuple[Callable, Callable, Callable]] = {
    "relu": (_relu, _relu_slope, F.relu),
    "mish": (_mish, _mish_slope, F.mish),
}


class _Tail(torch.autograd.Function):
    """All of a network behind its first product, as one step of the gradient's chain.

    On a CPU a network this small spends much of its time between the products; here activations and their slopes
    overwrite what they read, a bias is added in place, and many rows go through block by block.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        learns, (activate, _, _) = any(ctx.needs_input_grad), ACTIVATIONS[activation]
        outputs, kept = [], []
        for block in z.detach().split(BLOCK):
            for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
                slope = activate(block, learns)
                kept += [block, slope]
                block = torch.mm(block, weight.t()).add_(bias)
            outputs.append(block)
        if learns:
            ctx.activation = activation
            ctx.save_for_backward(*parameters, *kept)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _, _, *wanted = ctx.needs_input_grad
        count = len(wanted)  # a weight and a bias a layer; as many tensors were kept of each block
        parameters, kept = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        found: list[Any] = [None] * count
        inputs = []
        for number, block in enumerate(gradient.split(BLOCK)):
            for layer in reversed(range(0, count, 2)):
                before, slope = kept[number * count + layer : number * count + layer + 2]
                if wanted[layer] and number == 0:
                    found[layer : layer + 2] = block.t() @ before, block.sum(0)
                elif wanted[layer]:
                    found[layer].addmm_(block.t(), before)
                    found[layer + 1].add_(block.sum(0))
                block = block @ parameters[layer]
                ACTIVATIONS[ctx.activation][1](block, slope)
            inputs.append(block)
        return (inputs[0] if len(inputs) == 1 else torch.cat(inputs)), None, *found


class MLP(nn.Module):
    """Linear layers with an activation between every two.

    Args:
        sizes: widths, input and output included; at least one hidden layer.
        activation: relu or mish.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))
        self.activation = activation

    @property
    def first(self) -> nn.Linear:
        """The first layer."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, sizes[-1]) for inputs (B, sizes[0])."""
        return self.tail(self.first(x))

    def tail(self, z: Tensor) -> Tensor:
        """What follows the first product: outputs for its values z (B, sizes[1]), which are overwritten."""
        if z.is_cuda or torch.jit.is_tracing():
            for layer in list(self.layers)[1:]:
                z = layer(ACTIVATIONS[self.activation][2](z))
            return z
        return _Tail.apply(z, self.activation, *list(self.layers.parameters())[2:])


class QNetwork(MLP):
    """Q(s, a) for one action a state, or for K actions a state.

    Args:
        observation_size: O.
        action_size: A.
        hidden: width of each hidden layer.
        activation: relu or mish.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
    ) -> None:
        super().__init__((observation_size + action_size, *hidden, 1), activation)
        self.split = [observation_size, action_size]

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:  # type: ignore[override]
        """Values (B,) for actions (B, A), or (B, K) for actions (B, K, A)."""
        if actions.ndim == 2:
            return self.tail(self.first(torch.cat([observations, actions], 1))).squeeze(1)
        # The state's part of the first product is the same for all K actions: computed once.
        state, action = self.first.weight.split(self.split, 1)
        z = F.linear(actions, action) + F.linear(observations, state, self.first.bias)[:, None]  # (B, K, H)
        return self.tail(z.flatten(0, 1)).view(actions.shape[:2])


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
