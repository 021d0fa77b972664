"""A policy in a dream: normalised states in, actions within the bounds out, each step's draws seeded where it draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.policies.draws import draws_always, follows_seeds, seed_draws, stream
from dydiff_env.policies.policy import Policy
from dydiff_env.world.networks import in_blocks
from dydiff_env.world.world import World

ASKED = 64  # logged states on which a policy is asked whether it draws


@dataclass(frozen=True)
class Acting:
    """A policy as it acts in a dream: at step t, in normalised states, the same draws however often it is asked.

    Args:
        world: says what states and actions mean.
        policy: whose actions they are; None where ``first`` is all that is asked for.
        deterministic: the policy's mode.
        seed: of its draws; None for one that draws nothing.
        first: (B, A), taken at step 0 whatever the policy says.
    """

    world: World
    policy: Policy | None
    deterministic: bool = True
    seed: int | None = None
    first: Tensor | None = None

    def __call__(self, t: int, at: Tensor) -> Tensor:
        """Actions (B, A) in states (B, O)."""
        if t == 0 and self.first is not None:
            return self.first
        assert self.policy is not None
        return acts(self.world, self.policy, at, self.deterministic, None if self.seed is None else stream(self.seed, t))

    def each(self, t: int, at: Tensor) -> Tensor:
        """For states (members, B, O); a policy that draws draws alike for each member, and so is asked for one at a time."""
        if self.seed is None and self.first is None:
            return self(t, at.flatten(0, 1)).reshape(*at.shape[:2], -1)
        return torch.stack([self(t, own) for own in at])

    def along(self, states: Tensor) -> Tensor:
        """Actions (B, L, A) on states s_0 … s_{L−1} (B, L, O)."""
        if self.seed is not None:  # step by step, so that each step's draw is the same in every iteration
            return torch.stack([self(t, states[:, t]) for t in range(states.shape[1])], 1)
        actions = in_blocks(lambda rows: self(1, rows), states.reshape(-1, states.shape[-1]), rows=8192)
        actions = actions.reshape(*states.shape[:2], -1)
        if self.first is not None:
            actions[:, 0] = self.first
        return actions


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


def _asked(world: World, policy: Policy, question: Callable[[Policy, Tensor], bool]) -> bool:
    observations = torch.from_numpy(world.start_bank[:ASKED]).to(world.device)
    with policy.uncounted() if isinstance(policy, BoundedPolicy) else nullcontext():
        return question(policy, observations)
