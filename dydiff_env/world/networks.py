"""A plain perceptron, which reward, termination and behaviour models share, and what keeps networks small in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def perceptron(inputs: int, outputs: int, width: int = 256, depth: int = 2) -> nn.Sequential:
    """``depth`` hidden layers of ``width`` units: (…, inputs) -> (…, outputs)."""
    layers: list[nn.Module] = []
    for size in [inputs] + [width] * (depth - 1):
        layers += [nn.Linear(size, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


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
