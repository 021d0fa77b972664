"""What a batch of dreams has imagined ahead of the steps it has shown."""

from __future__ import annotations

import numpy as np

from dydiff_env.data.trajectories import Trajectories


class Plans:
    """One plan a row: imagined steps in a buffer, and how many of them there are.

    Args:
        rows: B.
        capacity: C, the most steps a row can hold.
        observation_size: O.
        action_size: A.

    Attributes:
        observations: (B, C+1, O); row i holds ``length[i] + 1`` of them.
        actions: (B, C, A), rewards and uncertainties: (B, C).
        length: (B,) steps planned.
        ends: (B,) bool, the state after the last planned step is terminal.
        before: (B, O + A), the step that led to where a plan was imagined from; NaN where unknown.
        short: (B,) bool, only the first steps of a window were imagined; the rest of it can be, later.
    """

    def __init__(self, rows: int, capacity: int, observation_size: int, action_size: int) -> None:
        self.observations = np.zeros((rows, capacity + 1, observation_size), np.float32)
        self.actions = np.zeros((rows, capacity, action_size), np.float32)
        self.rewards = np.zeros((rows, capacity), np.float32)
        self.uncertainties = np.zeros((rows, capacity), np.float32)
        self.length = np.zeros(rows, np.int64)
        self.ends = np.zeros(rows, bool)
        self.before = np.zeros((rows, observation_size + action_size), np.float32)
        self.short = np.zeros(rows, bool)

    def put(self, rows: np.ndarray, dream: Trajectories, before: np.ndarray, short: bool = False) -> None:
        """Replace the plans of ``rows`` (n,) by n dreams."""
        steps = dream.horizon
        self.observations[rows, : steps + 1] = dream.observations
        self.actions[rows, :steps] = dream.actions
        self.rewards[rows, :steps] = dream.rewards
        self.uncertainties[rows, :steps] = _uncertainties(dream)
        self.length[rows] = dream.lengths
        self.ends[rows], self.before[rows] = dream.terminations, before
        self.short[rows] = short & ~dream.terminations  # an imagined end leaves nothing to imagine later

    def append(self, rows: np.ndarray, shown: np.ndarray, dream: Trajectories) -> None:
        """Drop the first ``shown`` (n,) steps of ``rows`` (n,) and go on with n dreams, each from its plan's last state."""
        steps = dream.horizon
        for i, (row, begin) in enumerate(zip(rows, shown, strict=True)):
            kept = self.length[row] - begin
            self.observations[row, : kept + 1] = self.observations[row, begin : self.length[row] + 1].copy()
            self.observations[row, kept + 1 : kept + steps + 1] = dream.observations[i, 1:]
            parts = (
                (self.actions, dream.actions),
                (self.rewards, dream.rewards),
                (self.uncertainties, _uncertainties(dream)),
            )
            for own, new in parts:
                own[row, :kept] = own[row, begin : self.length[row]].copy()
                own[row, kept : kept + steps] = new[i]
            self.length[row] = kept + dream.lengths[i]
        self.ends[rows] = dream.terminations

    def take(self, rows: np.ndarray, other: Plans) -> None:
        """Replace the plans of ``rows`` by those of the same rows of ``other``."""
        for name in ("observations", "actions", "rewards", "uncertainties", "length", "ends", "before", "short"):
            getattr(self, name)[rows] = getattr(other, name)[rows]


def _uncertainties(dream: Trajectories) -> np.ndarray:
    return np.zeros_like(dream.rewards) if dream.uncertainties is None else dream.uncertainties
