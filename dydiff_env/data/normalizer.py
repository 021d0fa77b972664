"""Standardisation by mean and standard deviation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dydiff_env.errors import Note

FARTHEST = 30.0  # standard deviations within which every logged value lies


@dataclass(frozen=True)
class Normalizer:
    """x ↦ (x − mean) / std along the last axis, and back.

    Args:
        mean: (D,) float32.
        std: (D,) float32, positive.
        low: (D,) float32, what standardised values stand for is no lower (−∞: has no end); by default nothing has an end.
        high: (D,) float32, nor any higher.
    """

    mean: Tensor
    std: Tensor
    low: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))
    high: Tensor = field(default_factory=lambda: torch.tensor(torch.inf))

    @staticmethod
    def fit(array: np.ndarray, floor: float = 1e-6) -> Normalizer:
        """Mean and standard deviation of rows, in blocks, so that a memory-mapped array stays on disk.

        A sensor that hardly ever answers has a deviation far smaller than what it then says, and rollouts are cut off at ``FARTHEST``
        deviations: its deviation counts as so much larger that every logged value stays within.

        Args:
            array: (rows, D).
            floor: a dimension with a smaller standard deviation is constant; it is centred and left unscaled.
        """
        # Summing around a first guess keeps small deviations from drowning in large means.
        centre = np.asarray(array[:65536], np.float64).mean(0)
        total, squares, least, most = np.zeros((4, *centre.shape))
        for i in range(0, len(array), 65536):
            block = np.asarray(array[i:i + 65536], np.float64) - centre
            total += block.sum(0)
            squares += (block**2).sum(0)
            least, most = np.minimum(least, block.min(0)), np.maximum(most, block.max(0))
        shift = total / len(array)
        std = np.sqrt(np.maximum(squares / len(array) - shift**2, 0))
        for slight in np.flatnonzero((std < floor) & (std > np.maximum(1e-12, 1e-6 * np.abs(centre + shift)))):
            warnings.warn(f"Number {slight} (of 0 to {len(std) - 1}) varies by {std[slight]:.1g} only, and counts as constant. "
                          "If that is a matter of its unit, give it in a smaller one.", Note, stacklevel=2)
        for coarse in np.flatnonzero((std >= max(floor, 1e-12)) & (np.spacing(np.abs(centre + shift).astype(np.float32)) > 0.01 * std)):
            mean = (centre + shift)[coarse]
            warnings.warn(f"Number {coarse} (of 0 to {len(std) - 1}) varies by {std[coarse]:.1g} around {mean:.6g}: single precision tells "
                          "few such values apart. Subtract an offset first.", Note, stacklevel=2)
        std = np.where((std < floor) | (std == 0), 1.0, np.maximum(std, np.maximum(most - shift, shift - least) / FARTHEST))
        return Normalizer(torch.from_numpy(centre + shift).float(), torch.from_numpy(std).float())

    def normalize(self, values: Tensor) -> Tensor:
        """Environment units (…, D) to standardised ones."""
        return (values - self.mean) / self.std

    def denormalize(self, values: Tensor) -> Tensor:
        """Standardised values (…, D) to environment units."""
        return (values * self.std + self.mean).clamp(self.low, self.high)

    def within(self, values: Tensor) -> Tensor:
        """Standardised values (…, D), no lower than ``low`` and no higher than ``high``."""
        return values.clamp(self.normalize(self.low), self.normalize(self.high))

    def to(self, device: torch.device | str) -> Normalizer:
        """The same on another device."""
        return Normalizer(*(part.to(device) for part in (self.mean, self.std, self.low, self.high)))
