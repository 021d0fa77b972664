"""A stream of draws for each use; torch's global generators, which policies draw from, are seeded here and left as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from dydiff_env.policies.policy import Policy

BITS = 2**64 - 1
_drawing = RLock()


def _free() -> None:
    global _drawing
    _drawing = RLock()


if hasattr(os, "register_at_fork"):  # a fork copies a lock that another thread holds, but not that thread
    os.register_at_fork(after_in_child=_free)


def stream(seed: int, *path: int) -> int:
    """The seed of the stream at ``path`` below ``seed``; a sum would give seed 0 at step 1 the draws of seed 1 at step 0 (SplitMix64)."""
    state = int(seed)
    for number in path:
        state = (state + (number + 1) * 0x9E3779B97F4A7C15) & BITS
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = ((state ^ (state >> shift)) * factor) & BITS
        state ^= state >> 31
    return state


@contextmanager
def own_draws(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Whatever is drawn inside, on the CPU or the device, changes nothing outside; it begins at ``seed`` where one is given.

    Torch has these generators once for all threads: one that would draw waits until another has.
    """
    with _drawing, torch.random.fork_rng(devices=_gpus(device)):
        if seed is not None:
            seed_draws(device, seed)
        yield


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed the CPU's generator and the device's."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace each time
    for gpu in _gpus(device):
        with torch.cuda.device(gpu):
            torch.cuda.manual_seed(seed)


def _gpus(device: torch.device) -> list[torch.device]:
    """The GPU that draws may come from; a policy may act on one though its world is on the CPU."""
    if device.type == "cuda":
        return [device]
    return [torch.device("cuda", torch.cuda.current_device())] if torch.cuda.is_initialized() else []


def draws_always(policy: Policy, observations: Tensor) -> bool:
    """Whether a policy draws its actions though it is told to be deterministic; ``observations`` (B, O) to ask it on."""
    with own_draws(observations.device):
        first, second = (torch.as_tensor(policy.act(observations)) for _ in range(2))
    return not torch.equal(first, second)


def follows_seeds(policy: Policy, observations: Tensor, deterministic: bool) -> bool:
    """Whether torch's seed decides what a policy draws, so that a rollout can be gone over again; ``observations`` as above."""
    actions = []
    with own_draws(observations.device):
        for _ in range(2):
            seed_draws(observations.device, 0)
            actions.append(torch.as_tensor(policy.act(observations, deterministic)))
    return torch.equal(*actions)
