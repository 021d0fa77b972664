"""The networks of a world, together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.world.behavior import Behavior
from dydiff_env.world.denoiser import Denoiser
from dydiff_env.world.dynamics import Dynamics
from dydiff_env.world.presets import Preset
from dydiff_env.world.reward import RewardModel
from dydiff_env.world.termination import TerminationModel
from dydiff_env.world.transformer import CausalTransformer, TransformerConfig
from dydiff_env.world.unet import TemporalUNet


def action_bounds(spec: DatasetSpec) -> tuple[Tensor, Tensor]:
    """Lowest and highest actions, (A,) each."""
    low, high = (torch.from_numpy(bound) for bound in spec.action_bounds)
    return low, high


class Models(nn.Module):
    """The networks of a world, as one module so that they are saved and moved together."""

    def __init__(self, spec: DatasetSpec, preset: Preset) -> None:
        super().__init__()
        o, a = spec.observation_size, spec.action_size
        self.dynamics = Dynamics(o, a, preset.dynamics)
        self.reward = RewardModel(o, a, preset.reward)
        self.termination = TerminationModel(o, preset.termination)
        self.behavior = Behavior(o, a, preset.behavior) if preset.behavior is not None else None
        network = (
            CausalTransformer(o, a, preset.horizon, preset.network)
            if isinstance(preset.network, TransformerConfig)
            else TemporalUNet(o, a, preset.network)
        )
        self.denoiser = Denoiser(network, preset.denoiser)
