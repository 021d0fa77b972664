"""A plain perceptron, which reward, termination and behaviour models share."""

from __future__ import annotations

from torch import nn


def perceptron(inputs: int, outputs: int, width: int = 256, depth: int = 2) -> nn.Sequential:
    """``depth`` hidden layers of ``width`` units: (…, inputs) -> (…, outputs)."""
    layers: list[nn.Module] = []
    for size in [inputs] + [width] * (depth - 1):
        layers += [nn.Linear(size, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))
