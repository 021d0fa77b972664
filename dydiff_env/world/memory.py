"""One step of memory: what the log says of the steps that led to its states.

An observation seldom is the whole state. Velocities are cut off at a bound, an actuator answers late, a contact is not measured; of all
this the step before tells something. So the single-step model is shown it, where there is one: in a rollout its own last step, at the
start of a dream what came before in the log, or nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dydiff_env.world.batches import Batches
from dydiff_env.world.dynamics import Dynamics

FORGOTTEN = 0.1  # share of the training without memory: dreams that are given a state alone begin so


def remembered(dynamics: Dynamics, batches: Batches, rows: np.ndarray, generator: torch.Generator | None = None) -> Tensor:
    """What is recalled (B, P) of the steps before the logged transitions ``rows`` (B,); nothing at an episode's first one.

    Args:
        dynamics: T_φ.
        batches: the log.
        rows: (B,) transitions.
        generator: in training, decides where nothing is recalled although there is something.
    """
    if not dynamics.memory_size:
        return torch.zeros(len(rows), 0, device=batches.device)
    step, known = batches.before(rows)
    if generator is not None:
        known = known & (torch.rand(len(rows), generator=generator) >= FORGOTTEN).to(known.device)
    return dynamics.recall(step.states, step.actions, step.next_states, known)
