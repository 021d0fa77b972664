"""A plain perceptron, which reward, termination and behaviour models share; an ensemble's layer; units of actions; memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ORDER_ONE = (0.1, 10.0)


def perceptron(inputs: int, outputs: int, width: int = 256, depth: int = 2) -> nn.Sequential:
    """``depth`` hidden layers of ``width`` units: (…, inputs) -> (…, outputs)."""
    layers: list[nn.Module] = []
    for size in [inputs] + [width] * (depth - 1):
        layers += [nn.Linear(size, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class EnsembleLinear(nn.Module):
    """One linear layer a member, as one batched matrix product: (E, B, in) -> (E, B, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))
        nn.init.trunc_normal_(self.weight, std=1 / (2 * math.sqrt(inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer to its rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class Units(nn.Module):
    """In which units a network sees actions, and gives them: x ↦ (x − centre) / scale, along the last axis (A,).

    Actions are of order one in most logs, and then left as they are. A log may have them in any unit, though, and a network cannot see
    what is a thousand times smaller or larger than its other inputs.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, actions: Tensor) -> Tensor:
        """Environment units (…, A) to those of the network."""
        return (actions - self.centre) / self.scale

    def back(self, seen: Tensor) -> Tensor:
        """And back."""
        return seen * self.scale + self.centre

    @staticmethod
    def set_in(module: nn.Module, mean: Tensor, std: Tensor) -> None:
        """Have all of a module's parts see actions of this mean and deviation (A,) standardised, where they are not of order one."""
        fine = (std >= ORDER_ONE[0]) & (std <= ORDER_ONE[1]) & (mean.abs() <= ORDER_ONE[1])
        for part in module.modules():
            if isinstance(part, Units):
                part.centre.copy_(torch.where(fine, 0.0, mean))
                part.scale.copy_(torch.where(fine, 1.0, std))


def waves(x: Tensor, frequencies: Sequence[float]) -> list[Tensor]:
    """sin(π f x) and cos(π f x) for each frequency f, shaped as x each: Fourier features.

    A plain network learns what is smooth first, and walls and contacts are not (Tancik et al., 2020, arXiv 2006.10739).
    """
    found: list[Tensor] = []
    zero, one = x.new_zeros(()), x.new_ones(())
    before = 0.0
    for f in frequencies:
        if found and f == 2 * before:  # two products take a third of the time of a sine and a cosine
            sine, cosine = found[-2:]
            found += [torch.addcmul(zero, sine, cosine, value=2), torch.addcmul(one, sine, sine, value=-2)]
        else:
            found += [(math.pi * f * x).sin(), (math.pi * f * x).cos()]
        before = f
    return found


def in_blocks(function: Callable[..., Tensor], *inputs: Tensor, rows: int) -> Tensor:
    """``function`` of ``rows`` rows of the inputs at a time, joined: memory does not grow with the layers' width times B."""
    if len(inputs[0]) <= rows:
        return function(*inputs)
    return torch.cat([function(*part) for part in zip(*(x.split(rows) for x in inputs), strict=True)])


def initial(shape: tuple[int, ...], make: Callable[[], Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor that ``make`` makes, or an empty one on the "meta" device, where its values would not be kept.

    Ranges and normal draws on that device import the whole of PyTorch's compiler: 100 MB and a second.
    """
    empty = torch.empty(shape, dtype=dtype)
    return empty if empty.is_meta else make()
