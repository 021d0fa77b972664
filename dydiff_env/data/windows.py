"""S(τ): windows of L steps out of logged episodes (Eq. 2 of the paper)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dydiff_env.data.dataset import Dataset


class Windows(NamedTuple):
    """B windows of L steps in environment units."""

    observations: np.ndarray  # (B, L+1, O) float32
    actions: np.ndarray  # (B, L, A) float32, zero where padded
    mask: np.ndarray  # (B, L) bool, True where a step was really taken


def window_starts(dataset: Dataset, horizon: int) -> np.ndarray:
    """Transitions at which a window of ``horizon`` steps may start by Eq. 2.

    Whole slices of an episode that is long enough, one padded window from the start of each other.

    Returns:
        (K,) int64 transition indices, ascending.
    """
    counts = np.maximum(dataset.lengths - horizon, 0) + 1  # windows of each episode
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(dataset.offsets[:-1], counts) + np.arange(counts.sum()) - first


def gather(dataset: Dataset, starts: np.ndarray, horizon: int) -> Windows:
    """The windows of ``horizon`` steps at ``starts``; after an episode's end its last observation stands.

    Args:
        dataset: the episodes.
        starts: (B,) transition indices, any of the dataset's.
        horizon: L.
    """
    starts = np.asarray(starts, np.int64)
    episode = dataset.episode_of(starts)
    stop = dataset.offsets[episode + 1][:, None]  # (B, 1)
    steps = starts[:, None] + np.arange(horizon + 1)  # (B, L+1)
    mask = steps[:, :-1] < stop
    observations = dataset.observations[np.minimum(steps, stop) + episode[:, None]]  # (B, L+1, O)
    actions = dataset.actions[np.minimum(steps[:, :-1], stop - 1)]  # (B, L, A)
    actions[~mask] = 0.0
    return Windows(observations, actions, mask)
