"""The paper's denoiser network: a temporal U-Net over (state, action) sequences (after Diffuser, Janner et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dydiff_env.world.denoiser import Condition, noise_features
from dydiff_env.world.networks import Units

GROUPS = 8  # of a group norm


@dataclass(frozen=True)
class UNetConfig:
    """Size of the U-Net: channels of a level are width · multiplier.

    Args:
        width: a multiple of ``GROUPS``.
        multipliers: one a level.
        kernel: odd, so that a convolution keeps the length.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 4, 8)
    kernel: int = 5


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution, group norm, Mish."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, outputs), nn.Mish()
    )


class Residual(nn.Module):
    """Two convolutions with the noise embedding added between them, and a skip."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = (
            _convolution(inputs, outputs, kernel),
            _convolution(outputs, outputs, kernel),
        )
        self.embed = nn.Sequential(nn.Mish(), nn.Linear(embedding, outputs))
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, T) and (B, embedding) to (B, outputs, T)."""
        return self.second(self.first(x) + self.embed(embedding)[..., None]) + self.skip(x)


class Level(nn.Module):
    """Two residual blocks, and a change of resolution after them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: int, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second = (
            Residual(inputs, outputs, embedding, kernel),
            Residual(outputs, outputs, embedding, kernel),
        )
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs, T) to (B, outputs, T), before and after the change of resolution."""
        x = self.second(self.first(x, embedding), embedding)
        return x, self.resample(x)


class TemporalUNet(nn.Module):
    """F_θ over the whole window τ = (s_0, a_0, …, s_L), conditions replaced before the scaling by c_in as in Eq. 3."""

    def __init__(self, observation_size: int, action_size: int, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.units = config, Units(action_size)
        width, kernel = config.width, config.kernel
        channels = [observation_size + action_size] + [width * m for m in config.multipliers]
        pairs = list(pairwise(channels))
        self.embed = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.down = nn.ModuleList()
        for i, (inputs, outputs) in enumerate(pairs):
            last = i == len(pairs) - 1
            shrink = nn.Identity() if last else nn.Conv1d(outputs, outputs, 3, stride=2, padding=1)
            self.down.append(Level(inputs, outputs, width, kernel, shrink))
        top = channels[-1]
        self.middle = nn.ModuleList([Residual(top, top, width, kernel), Residual(top, top, width, kernel)])
        self.up = nn.ModuleList()
        for inputs, outputs in reversed(pairs[1:]):
            grow = nn.ConvTranspose1d(inputs, inputs, 4, stride=2, padding=1)
            self.up.append(Level(2 * outputs, inputs, width, kernel, grow))
        self.output = nn.Sequential(_convolution(channels[1], channels[1], kernel), nn.Conv1d(channels[1], channels[0], 1))

    def forward(self, x: Tensor, c_in: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        """F_θ (B, L, O) for scaled noisy states (B, L, O); only the states are returned (Eq. 4 asks for no more)."""
        length = x.shape[1]
        states = torch.cat([c_in * condition.starts[:, None], x], 1)  # (B, L+1, O)
        actions = F.pad(c_in * self.units(condition.actions), (0, 0, 0, 1))  # (B, L+1, A), no action follows s_L
        h = torch.cat([states, actions], -1).transpose(1, 2)
        h = F.pad(h, (0, -(length + 1) % 2 ** (len(self.config.multipliers) - 1)))
        embedding = self.embed(noise_features(c_noise, self.config.width))
        skips = []
        for level in self.down:
            skip, h = level(h, embedding)
            skips.append(skip)
        for block in self.middle:
            h = block(h, embedding)
        for level in self.up:
            _, h = level(torch.cat([h, skips.pop()], 1), embedding)
        return self.output(h).transpose(1, 2)[:, 1 : length + 1, : x.shape[-1]]
