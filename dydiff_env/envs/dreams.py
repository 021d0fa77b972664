"""A batch of dreams, stepped by anyone's actions: the engine of the single and of the vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.envs.plans import Plans
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.world.acting import draws
from dydiff_env.world.transformer import TransformerConfig
from dydiff_env.world.world import World

TOLERANCE = (
    1e-4  # an action this near to the planned one, in units of the action space's width, follows the plan
)
STREAK = 2  # steps followed in a row before a plan is lengthened ahead of need


class Steps(NamedTuple):
    """One step of n dreams."""

    observations: np.ndarray  # (n, O) float32
    rewards: np.ndarray  # (n,) float32
    terminated: np.ndarray  # (n,) bool
    truncated: np.ndarray  # (n,) bool
    uncertainties: np.ndarray  # (n,) float32
    replanned: np.ndarray  # (n,) bool, the dream was imagined anew for this action
    window_steps: np.ndarray  # (n,) int64, which step of its window this was


class Dreams:
    """B dreams of at most ``horizon`` steps.

    With a policy, each dream is planned a window ahead: the refined rollout of that policy. An action that is the
    planned one shows the planned next state; another has the window imagined anew from the present state, with
    that action fixed and the policy's proposals after it. What was shown stays. Without a policy, each step
    imagines that step alone.

    A window is imagined anew only as far as its first patch of steps; the rest follows once the caller is found to
    follow. A causal denoiser gives the same states either way. It is done whole where that does not hold:
    a denoiser that is not causal, a sampler that draws noise, a policy that draws its actions whatever it is told.

    Args:
        world: what is dreamt in.
        policy: proposes the actions; None for none.
        rows: B.
        horizon: steps until truncation; windows are chained where it exceeds the world's.
        iterations: refinements M; None for the world's own.
    """

    def __init__(
        self, world: World, policy: BoundedPolicy | None, rows: int, horizon: int, iterations: int | None
    ) -> None:
        self.world, self.policy = world, policy
        self.horizon, self.iterations = horizon, iterations
        self.window = min(world.horizon, horizon)
        o, a = world.spec.observation_size, world.spec.action_size
        self.current = np.zeros((rows, o), np.float32)  # the states the caller sees
        self.next_starts = np.zeros((rows, o), np.float32)
        self.before, self.next_before = np.full((2, rows, o + a), np.nan, np.float32)  # the steps that led there
        self.seeds, self.next_seeds = np.zeros((2, rows), np.uint64)
        self.steps = np.zeros(rows, np.int64)
        low, high = world.spec.action_bounds
        width = high - low
        self.tolerance = TOLERANCE * np.where(np.isfinite(width), width, 2.0)
        self.noise = np.random.default_rng(0)
        self.position = np.zeros(rows, np.int64)  # steps of the plan already shown
        self.window_steps = np.zeros(rows, np.int64)
        self.streak = np.zeros(rows, np.int64)
        self.followed = True  # whether most callers followed at the last step
        self.prepared = np.zeros(rows, bool)
        refined = policy is not None and (world.iterations if iterations is None else iterations) > 0
        self.trust = world.trust_in(policy) if refined and policy is not None else None
        self.drawn = policy is not None and draws(world, policy, deterministic=True)
        if policy is not None:
            self.plans = Plans(rows, 2 * self.window, o, a)
            self.next_plans = Plans(rows, 2 * self.window, o, a)  # of the episodes to come
            self.first_steps = self._first_steps()

    def reseed(self, seed: int) -> None:
        """Start the draws of stochastic samplers and policies again from ``seed``."""
        self.noise = np.random.default_rng(seed)
        self.followed = True

    def begin(
        self, rows: np.ndarray, starts: np.ndarray, seeds: Sequence[int], before: np.ndarray | float = np.nan
    ) -> None:
        """Start the dreams of ``rows`` (n,) at ``starts`` (n, O), whatever was prepared for them.

        Of the ``seeds``, n integers, follows when a dream ends; whoever shares a batch has no part in that. ``before`` (n, O + A) are the
        steps that led to the starts, where they are known.
        """
        self.prepare(rows, starts, seeds, before)
        self.begin_prepared(rows)

    def prepare(
        self, rows: np.ndarray, starts: np.ndarray, seeds: Sequence[int], before: np.ndarray | float = np.nan
    ) -> None:
        """Imagine the next episodes of ``rows`` ahead of time: many at once cost little more than one."""
        self.next_seeds[rows], self.next_before[rows] = seeds, before
        if self.policy is not None:
            whole = self.followed or not self.first_steps
            steps = self.window if whole else self.first_steps
            dream = self._dream(starts, self.next_before[rows], steps, self.next_seeds[rows], np.zeros_like(rows))
            self.next_plans.put(rows, dream, self.next_before[rows], short=steps < self.window)
        self.next_starts[rows] = starts
        self.prepared[rows] = True

    def begin_prepared(self, rows: np.ndarray) -> None:
        """Start the prepared dreams of ``rows``."""
        if self.policy is not None:
            self.plans.take(rows, self.next_plans)
        self.current[rows], self.seeds[rows] = self.next_starts[rows], self.next_seeds[rows]
        self.before[rows] = self.next_before[rows]
        for counter in (self.steps, self.position, self.window_steps, self.streak):
            counter[rows] = 0
        self.prepared[rows] = False

    def step(self, rows: np.ndarray, actions: np.ndarray) -> Steps:
        """Answer ``actions`` (n, A) in the dreams of ``rows`` (n,)."""
        if self.policy is None:
            dream = self._dream(self.current[rows], self.before[rows], 1, self.seeds[rows], self.steps[rows], actions)
            observations, rewards, terminated = (
                dream.observations[:, 1],
                dream.rewards[:, 0],
                dream.terminations,
            )
            assert dream.uncertainties is not None
            uncertainties = dream.uncertainties[:, 0]
            replanned, window_steps = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
        else:
            replanned = (np.abs(actions - self._planned(rows)) > self.tolerance).any(1)
            self._replan(rows[replanned], actions[replanned])
            self._extend(rows[~replanned])
            at = self.position[rows]
            observations = self.plans.observations[rows, at + 1]
            rewards, uncertainties = self.plans.rewards[rows, at], self.plans.uncertainties[rows, at]
            terminated = self.plans.ends[rows] & (at + 1 == self.plans.length[rows])
            window_steps = self.window_steps[rows].copy()
            self.position[rows] += 1
            self.window_steps[rows] = (window_steps + 1) % self.window
            self.streak[rows] = np.where(replanned, 0, self.streak[rows] + 1)
            self.followed = bool(replanned.mean() < 0.5)
        self.before[rows] = np.concatenate([self.current[rows], actions], 1)
        self.current[rows] = observations
        self.steps[rows] += 1
        truncated = ~terminated & (self.steps[rows] >= self.horizon)
        return Steps(
            observations.copy(), rewards, terminated, truncated, uncertainties, replanned, window_steps
        )

    def _planned(self, rows: np.ndarray) -> np.ndarray:
        """The actions (n, A) that follow the plan; at a plan's end the policy's own, which its next window starts with.

        A policy that draws whatever it is told would draw another then: there no action follows.
        """
        at = np.minimum(self.position[rows], self.plans.actions.shape[1] - 1)
        planned = self.plans.actions[rows, at]
        if (over := self.position[rows] >= self.plans.length[rows]).any():
            assert self.policy is not None
            present = torch.as_tensor(self.current[rows[over]], device=self.world.device)
            planned[over] = np.inf if self.drawn else self.policy.act(present).cpu().numpy()
        return planned

    def _replan(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """Imagine the window of ``rows`` anew from the present, their ``actions`` (n, A) fixed."""
        if len(rows):
            steps = self.first_steps or self.window
            dream = self._dream(self.current[rows], self.before[rows], steps, self.seeds[rows], self.steps[rows], actions)
            self.plans.put(rows, dream, self.before[rows], short=steps < self.window)
            self.position[rows] = self.window_steps[rows] = 0

    def _extend(self, rows: np.ndarray) -> None:
        """Lengthen the plans that are used up, and with them those that soon will be: one large batch, not many small."""
        plans = self.plans
        if not (plans.length[rows] <= self.position[rows]).any():
            return
        left = plans.length - self.position
        wanted = (
            ~plans.ends
            & (left <= self.window // 2)
            & (self.steps + left < self.horizon)
            & (self.streak >= STREAK)
        )
        wanted[rows] |= left[rows] <= 0
        if (short := np.flatnonzero(wanted & plans.short)).size:
            begun, starts, before = self.steps[short] - self.position[short], plans.observations[short, 0], plans.before[short]
            dream = self._dream(starts, before, self.window, self.seeds[short], begun, plans.actions[short, 0])
            plans.put(short, dream, before)
            # the end of a dream may fall a step earlier by a rounding error: what was shown stays, and goes on
            if (past := short[plans.length[short] <= self.position[short]]).size:
                before = self.before[past]
                plans.put(past, self._dream(self.current[past], before, self.window, self.seeds[past], self.steps[past]), before)
                self.position[past] = self.window_steps[past] = 0
        left = plans.length - self.position
        wanted &= ~plans.ends & (left <= self.window // 2)
        if (chained := np.flatnonzero(wanted)).size:
            last = plans.length[chained]
            before = np.concatenate([plans.observations[chained, last - 1], plans.actions[chained, last - 1]], 1)
            ends, begun = plans.observations[chained, last], self.steps[chained] + left[chained]
            dream = self._dream(ends, before, self.window, self.seeds[chained], begun)
            plans.append(chained, self.position[chained], dream)
            self.position[chained] = 0

    def _dream(
        self,
        starts: np.ndarray,
        before: np.ndarray,
        steps: int,
        seeds: np.ndarray,
        begun: np.ndarray,
        first: np.ndarray | None = None,
    ) -> Trajectories:
        """Imagine ``steps`` steps of windows that start there (n, O), after ``begun`` steps (n,) of the episodes of those seeds (n,)."""
        return self.world.dream(
            self.policy, starts, steps, self.iterations, seed=int(self.noise.integers(2**31)), first_actions=first,
            trust=self.trust, before=before, goes_on=np.where(begun + self.window < self.horizon, self.window, np.inf),
            fate=_fate(seeds, begun),
        )  # fmt: skip

    def _first_steps(self) -> int:
        """How many steps a deviation imagines at first: one patch, or 0 for the whole window."""
        preset = self.world.preset
        if self.drawn or not isinstance(preset.network, TransformerConfig) or preset.sampler.steps > 1:
            return 0
        return min(preset.network.patch, self.window)


def _fate(seeds: np.ndarray, began: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each episode's seed (n,) and the step (n,) at which a window of it begins, always the same (SplitMix64)."""
    x = seeds * np.uint64(0x9E3779B97F4A7C15) + began.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
