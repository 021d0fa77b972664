"""Digests that tell worlds apart: two with the same one dream alike."""

from __future__ import annotations

import json

import numpy as np
from torch import nn

from dydiff_env.data.dataset import fingerprint
from dydiff_env.policies import function
from dydiff_env.world.world import World


def world_fingerprint(world: World) -> str:
    """A digest of what a world dreams by."""
    settings = json.dumps(world.preset.to_dict(), sort_keys=True).encode()
    if world.models.termination.rule is not None:
        settings += function.fingerprint(world.models.termination.rule).encode()
    tensors = (value.cpu().numpy() for value in world.tensors().values())
    return fingerprint(*tensors, np.frombuffer(settings, np.uint8))


def weights_fingerprint(module: nn.Module) -> str:
    """A digest of a module's parameters and buffers."""
    return fingerprint(*(value.cpu().numpy() for value in module.state_dict().values()))
