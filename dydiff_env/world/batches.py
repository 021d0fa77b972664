"""Batches of transitions and windows for training, drawn from arrays that may lie on disk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.data.windows import gather

MANY = 20  # episodes, of which some can be spared


class Split(NamedTuple):
    """Transitions for training and for measuring, which share no window (but for one or two short episodes, which leave no choice)."""

    train: np.ndarray  # (K,) int64, also the window starts
    held_out: np.ndarray  # (K',) int64


def split(dataset: Dataset, horizon: int, share: float = 0.05, seed: int = 0) -> Split:
    """Hold out whole episodes; where these are so few that it costs less, the last part of each that is long enough, one horizon apart."""
    index = np.arange(dataset.transitions)
    episode = np.repeat(np.arange(len(dataset)), dataset.lengths)
    cut = dataset.offsets[1:] - np.ceil(share * dataset.lengths).astype(np.int64)
    middle = dataset.offsets[:-1] + dataset.lengths // 2
    long = cut - horizon >= middle
    spared = 1 / len(dataset) <= share + horizon / dataset.lengths.mean()  # an episode, against the last part of each and what leads there
    if len(dataset) >= MANY or (len(dataset) > 2 and dataset.lengths.max() > 1 and (spared or not long.any())):
        order = np.random.default_rng(seed).permutation(len(dataset))
        held = np.zeros(len(dataset), bool)
        held[order[: max(1, round(share * len(dataset)))]] = True
        return Split(index[~held[episode]], index[held[episode]])
    if not long.any():
        return Split(index[index < middle[episode]], index[index >= cut[episode]])
    cut = np.where(long, cut, dataset.offsets[1:])  # the short ones are learned from whole
    end = np.where(long, cut - horizon, cut)
    return Split(index[index < end[episode]], index[index >= cut[episode]])


class Step(NamedTuple):
    """Transitions, normalised but for rewards."""

    states: Tensor  # (…, O)
    actions: Tensor  # (…, A)
    rewards: Tensor  # (…,)
    next_states: Tensor  # (…, O)
    terminal: Tensor  # (…,) float


class Batches:
    """Draws batches from a dataset.

    Args:
        dataset: the episodes.
        normalizer: of the observations.
        device: where the batches go.
    """

    def __init__(self, dataset: Dataset, normalizer: Normalizer, device: torch.device | str = "cpu") -> None:
        self.dataset, self.normalizer, self.device = dataset, normalizer, torch.device(device)

    @property
    def terminal_steps(self) -> np.ndarray:
        """Transitions that end in a terminal state."""
        return self.dataset.offsets[1:][self.dataset.terminations] - 1

    def steps(self, indices: np.ndarray | Tensor) -> Step:
        """The transitions at ``indices``, of any shape."""
        indices = np.asarray(indices)
        data, flat = self.dataset, indices.reshape(-1)
        episode = data.episode_of(flat)
        rows = flat + episode
        last = (flat == data.offsets[episode + 1] - 1) & data.terminations[episode]

        def tensor(array: np.ndarray) -> Tensor:
            return (
                torch.from_numpy(np.ascontiguousarray(array))
                .reshape(*indices.shape, *array.shape[1:])
                .to(self.device)
            )

        return Step(
            self.normalizer.normalize(tensor(data.observations[rows])),
            tensor(data.actions[flat]),
            tensor(data.rewards[flat]),
            self.normalizer.normalize(tensor(data.observations[rows + 1])),
            tensor(last.astype(np.float32)),
        )

    def before(self, indices: np.ndarray) -> tuple[Step, Tensor]:
        """The transitions before those at ``indices``, of any shape, and (…,) bool, where there was one; elsewhere any."""
        indices = np.asarray(indices)
        first = self.dataset.offsets[self.dataset.episode_of(indices.reshape(-1))].reshape(indices.shape)
        known = indices > first
        return self.steps(indices - known), torch.from_numpy(known).to(self.device)

    def windows(
        self, starts: np.ndarray | Tensor, horizon: int, zeros: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Windows of ``horizon`` steps.

        Args:
            starts: (B,) transitions.
            horizon: L.
            zeros: pad the states with zeros after the end, as Eq. 2 does, here in standardised units; else with the last one.

        Returns:
            states (B, L+1, O) normalised, actions (B, L, A), real (B, L), 1 where a step was taken, and alive (B, L), 0 where
            the step led to a terminal state or lies behind one; there the state is known to stand still.
        """
        starts = np.asarray(starts)
        window = gather(self.dataset, starts, horizon)
        states = self.normalizer.normalize(torch.from_numpy(window.observations).to(self.device))
        real = torch.from_numpy(window.mask).float().to(self.device)
        if zeros:
            states[:, 1:] *= real[..., None]
        episode = self.dataset.episode_of(starts)
        last = np.where(
            self.dataset.terminations[episode], self.dataset.offsets[episode + 1] - 1 - starts, horizon
        )
        alive = torch.from_numpy((np.arange(horizon) < last[:, None]).astype(np.float32)).to(self.device)
        return states, torch.from_numpy(window.actions).to(self.device), real, alive
