"""A policy in a dream: normalised states in, actions within the bounds out, each step's draws seeded where it draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.policies.draws import draws_always, follows_seeds, seed_draws
from dydiff_env.policies.policy import Policy
from dydiff_env.world.rollout import Act
from dydiff_env.world.world import World

ASKED = 64  # logged states on which a policy is asked whether it draws


def acts(world: World, policy: Policy, states: Tensor, deterministic: bool, seed: int | None) -> Tensor:
    """The policy's actions (B, A) in normalised states (B, O), within the bounds; its draws begin at ``seed``, or go on.

    Raises:
        DyDiffError: where they are of another width.
    """
    observations = world.normalizer.denormalize(states)
    if seed is not None:
        seed_draws(world.device, seed)
    actions = policy.act(observations, deterministic)
    actions = torch.as_tensor(actions).to(world.device, torch.float32)
    world.check_width("action", actions, world.spec.action_size)
    return actions.clamp(world.low, world.high)


def draws(world: World, policy: Policy, deterministic: bool) -> bool:
    """Whether a policy draws its actions: where it is told to, and where it does whatever it is told."""
    return not deterministic or _asked(world, policy, draws_always)


def repeats(world: World, policy: Policy, deterministic: bool) -> bool:
    """Whether torch's seed decides what a policy draws, so that a rollout can be gone over again."""
    return _asked(world, policy, lambda one, seen: follows_seeds(one, seen, deterministic))


def one_by_one(act: Act) -> Act:
    """For states (members, B, O), a call a member: a policy that draws draws alike for each."""
    return lambda t, at: torch.stack([act(t, own) for own in at])


def together(act: Act) -> Act:
    """For states (members, B, O), one call."""
    return lambda t, at: act(t, at.flatten(0, 1)).reshape(*at.shape[:2], -1)


def _asked(world: World, policy: Policy, question: Callable[[Policy, Tensor], bool]) -> bool:
    observations = torch.from_numpy(world.start_bank[:ASKED]).to(world.device)
    with policy.uncounted() if isinstance(policy, BoundedPolicy) else nullcontext():
        return question(policy, observations)
