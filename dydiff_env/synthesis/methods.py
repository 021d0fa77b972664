"""The ways to make rollouts: DyDiff and what it is compared with, behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch

from dydiff_env.baselines.mtdiff import MTDiff
from dydiff_env.baselines.synther import SynthER
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import unknown
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.policies.draws import stream
from dydiff_env.world.trust import Trust
from dydiff_env.world.world import World

if TYPE_CHECKING:
    from dydiff_env.synthesis.rounds import RoundOptions


@dataclass(frozen=True)
class Method:
    """What a method needs and how it is run unless the caller says otherwise.

    Args:
        algorithm: its name in Minari's metadata.
        model: the baseline it draws from, trained by ``fit --models``; None for a policy's rollouts in the world.
        horizon: steps of a rollout; 1 where it makes single transitions.
        filter: which filter; "none" for a method whose paper has none.
    """

    algorithm: str
    model: Literal["synther", "mtdiff-s"] | None = None
    horizon: int = 100
    filter: str = "softmax"

    @property
    def follows_policy(self) -> bool:
        """Whether the rollouts are a given policy's, or the logged behaviour's."""
        return self.model is None


METHODS = {
    "dydiff": Method("DyDiff"),
    "single-step": Method("single-step rollout"),
    "synther": Method("SynthER", "synther", horizon=1, filter="none"),
    "synther-filtered": Method("SynthER, filtered", "synther", horizon=1),
    "mtdiff-s": Method("MTDiff-s", "mtdiff-s", filter="none"),
}


def get_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        DyDiffError: for an unknown name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


class Draft(NamedTuple):
    """Rollouts before the filter, and how many of their actions lay outside the action space."""

    rollouts: Trajectories
    proposed: int
    clipped: int


class Synthesizer(Protocol):
    """Makes the rollouts of a round."""

    def synthesize(self, count: int, options: RoundOptions, seeds: tuple[int, int]) -> Draft:
        """``count`` rollouts; the first seed is of the starts, the second of everything else."""
        ...


@dataclass
class Dreamer:
    """A policy's rollouts in a world, refined ``options.iterations`` times (Eqs. 6–9); 0 is the single-step model's."""

    world: World
    policy: BoundedPolicy

    @cached_property
    def trust(self) -> Trust:
        """How far corrections of this policy's rollouts are believed; asked for once, when a round first refines."""
        return self.world.trust_in(self.policy)

    def synthesize(self, count: int, options: RoundOptions, seeds: tuple[int, int]) -> Draft:
        """As the protocol says."""
        starts = self.world.sample_starts(count, seed=seeds[0], kind=options.start)
        trust = self.trust if options.iterations else None
        proposed, clipped = self.policy.proposed, self.policy.clipped
        rollouts = self.world.dream(
            self.policy,
            starts,
            options.horizon,
            options.iterations,
            deterministic=options.deterministic,
            seed=seeds[1],
            trust=trust,
            before=self.world.sample_before(count, seed=seeds[0], kind=options.start),
        )
        return Draft(rollouts, self.policy.proposed - proposed, self.policy.clipped - clipped)


@dataclass
class TransitionSampler:
    """SynthER: every rollout is one drawn transition, with its own reward and terminal flag."""

    world: World
    model: SynthER

    def synthesize(self, count: int, options: RoundOptions, seeds: tuple[int, int]) -> Draft:
        """As the protocol says; there are no starts to draw."""
        drawn, normalizer = self.model.draw(count, seeds[1]), self.world.normalizer
        seen = torch.stack([drawn.observations, drawn.next_observations], 1).clamp(normalizer.low, normalizer.high)  # where they can be
        rollouts = Trajectories(
            seen.cpu().numpy(),
            drawn.actions[:, None].cpu().numpy(),
            drawn.rewards[:, None].cpu().numpy(),
            drawn.terminated.cpu().numpy(),
            np.ones(count, np.int64),
        )
        return Draft(rollouts, count, drawn.clipped)


@dataclass
class TrajectorySampler:
    """MTDiff-s: states and actions from the diffusion model, rewards and terminations from the world's models."""

    world: World
    model: MTDiff

    def synthesize(self, count: int, options: RoundOptions, seeds: tuple[int, int]) -> Draft:
        """As the protocol says."""
        world, horizon = self.world, options.horizon
        starts = world.sample_starts(count, seed=seeds[0], kind=options.start)
        begin = world.normalizer.normalize(torch.from_numpy(starts).to(world.device))
        states, actions, clipped = self.model.draw(begin, horizon, seeds[1])
        fate = torch.rand(count, 1, generator=torch.Generator().manual_seed(stream(seeds[1], 1))).to(states.device)
        over = world.models.termination.outlived(states[:, 1:]).cumprod(1) <= fate  # (B, L); where a border tells ends, 0 or 1 is outlived
        shown = world.normalizer.within(states)
        rewards = world.models.reward(shown[:, :-1], actions, shown[:, 1:], over)
        ended = over.any(1)
        lengths = torch.where(ended, over.float().argmax(1) + 1, horizon)
        observations = world.normalizer.denormalize(states)
        rollouts = Trajectories(*(x.cpu().numpy() for x in (observations, actions, rewards, ended, lengths)))
        return Draft(rollouts, count * horizon, clipped)
