"""The one in-memory container of rollouts: padded arrays in environment units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Trajectories:
    """N rollouts of at most L steps, padded to the same length.

    Rows beyond ``lengths`` are padding and carry no meaning.

    Args:
        observations: (N, L+1, O) float32, flattened observations, environment units.
        actions: (N, L, A) float32.
        rewards: (N, L) float32.
        terminations: (N,) bool, True where the rollout ended in a terminal state after ``lengths`` steps.
        lengths: (N,) int64, how many steps of each row are real, 1 … L.
        uncertainties: (N, L) float32, the dynamics ensemble's disagreement per transition; None when unknown.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    lengths: np.ndarray
    uncertainties: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        ends = f"{int(self.terminations.sum())} terminated, mean return {self.returns.mean():.5g}" if len(self) else "none"
        sizes = f"O={self.observations.shape[-1]}, A={self.actions.shape[-1]}"
        return f"Trajectories({len(self)} of up to {self.horizon} steps, {sizes}, {ends})"

    @property
    def horizon(self) -> int:
        """L, the padded number of steps."""
        return self.actions.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """(N, L) bool, True where a step is real."""
        return np.asarray(np.arange(self.horizon)[None] < self.lengths[:, None])

    @property
    def state_mask(self) -> np.ndarray:
        """(N, L+1) bool, True where an observation is real: one more than there are steps."""
        return np.asarray(np.arange(self.horizon + 1)[None] <= self.lengths[:, None])

    @property
    def returns(self) -> np.ndarray:
        """(N,) undiscounted sum of rewards, r_ψ(τ) of Eq. 11 when the rewards come from the reward model."""
        return self.discounted(1.0)

    def discounted(self, discount: float) -> np.ndarray:
        """(N,) sum of rewards, of which one t steps on counts γ^t."""
        weights = (discount ** np.arange(self.horizon)).astype(self.rewards.dtype)
        return np.asarray(np.where(self.mask, self.rewards * weights, 0.0).sum(1))

    def select(self, indices: np.ndarray) -> Trajectories:
        """The rows named by ``indices`` (int or bool array), in that order."""
        extra = None if self.uncertainties is None else self.uncertainties[indices]
        return Trajectories(
            self.observations[indices],
            self.actions[indices],
            self.rewards[indices],
            self.terminations[indices],
            self.lengths[indices],
            extra,
        )
