"""What a policy draws is decided by torch's global generators: here they are seeded, and left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dydiff_env.policies.policy import Policy


@contextmanager
def own_draws(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Whatever is drawn inside, on the CPU or the device, changes nothing outside; it begins at ``seed`` where one is given."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            seed_draws(device, seed)
        yield


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed the CPU's generator and the device's."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace each time
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def draws_always(policy: Policy, observations: Tensor) -> bool:
    """Whether a policy draws its actions though it is told to be deterministic; ``observations`` (B, O) to ask it on."""
    with own_draws(observations.device):
        first, second = (torch.as_tensor(policy.act(observations)) for _ in range(2))
    return not torch.equal(first, second)
