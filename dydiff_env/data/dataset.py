"""Logged episodes as flat arrays, and the spaces and scores that say what they mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import NoneType
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces.utils import flatdim
from minari.serialization import deserialize_space, serialize_space

from dydiff_env.data.environment import environment_spec
from dydiff_env.data.flattening import canonical, check_spaces, same_but_for_precision
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, said


class Transitions(NamedTuple):
    """T one-step transitions, flattened, in environment units.

    ``terminated`` is 1 only where the episode reached a terminal state; the last transition of an episode
    that ran out of time has 0 there and True in ``ends``: its value bootstraps, but the data end there.
    """

    observations: np.ndarray  # (T, O) float32
    actions: np.ndarray  # (T, A) float32
    rewards: np.ndarray  # (T,) float32
    next_observations: np.ndarray  # (T, O) float32
    terminated: np.ndarray  # (T,) float32
    ends: np.ndarray  # (T,) bool


class Episode(NamedTuple):
    """One episode of L steps: every step has an action and a reward, and the last one too has led to a state."""

    observations: np.ndarray  # (L+1, O) float32
    actions: np.ndarray  # (L, A) float32
    rewards: np.ndarray  # (L,) float32
    terminated: bool


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset's numbers mean, without the numbers.

    Args:
        observation_space: the source's, a Box or a Dict of Boxes; a Dict's keys are put in alphabetical order.
        action_space: the source's, a Box.
        env_spec: the environment's specification as JSON, as Minari stores it; None where it is unknown.
        dataset_id: the Minari id.
        fingerprint: sha256 of the arrays.
        ref_min_score: mean return of a random policy, None where it is unknown.
        ref_max_score: mean return of an expert, None where it is unknown.
    """

    observation_space: gym.Space
    action_space: gym.Space
    env_spec: str | None = None
    dataset_id: str = "local/dataset-v0"
    fingerprint: str = ""
    ref_min_score: float | None = None
    ref_max_score: float | None = None

    def __post_init__(self) -> None:
        for name in ("env_spec", "dataset_id", "fingerprint"):
            if not isinstance(getattr(self, name), str | (NoneType if name == "env_spec" else str)):
                raise TypeError(f"{name} is {getattr(self, name)!r}, not text")
        for name in ("ref_min_score", "ref_max_score"):
            if getattr(self, name) is not None:  # a NumPy number, maybe, which no JSON takes
                object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("observation_space", "action_space"):
            object.__setattr__(self, name, canonical(getattr(self, name)))

    @property
    def environment(self) -> EnvSpec | None:
        """The environment of ``env_spec``, not made; None where it is unknown.

        Raises:
            DyDiffError: where ``env_spec`` is no specification.
        """
        return environment_spec(self.env_spec) if self.env_spec else None

    @property
    def observation_size(self) -> int:
        """O, numbers in a flattened observation."""
        return flatdim(self.observation_space)

    @property
    def action_size(self) -> int:
        """A, numbers in a flattened action."""
        return flatdim(self.action_space)

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest flattened actions, (A,) float32 each."""
        assert isinstance(self.action_space, gym.spaces.Box)
        low, high = (np.ravel(bound).astype(np.float32) for bound in (self.action_space.low, self.action_space.high))
        return low, high

    def to_json(self) -> str:
        """The specification as one JSON string; ``from_json`` reads it back."""
        return json.dumps({
            "observation_space": serialize_space(self.observation_space),
            "action_space": serialize_space(self.action_space),
            "env_spec": self.env_spec, "dataset_id": self.dataset_id, "fingerprint": self.fingerprint,
            "ref_min_score": self.ref_min_score, "ref_max_score": self.ref_max_score})

    @staticmethod
    def from_json(text: str) -> DatasetSpec:
        """The specification that ``to_json`` wrote.

        Raises:
            DyDiffError: where it is damaged.
        """
        try:
            fields = json.loads(text)
            spaces = {name: deserialize_space(fields.pop(name)) for name in ("observation_space", "action_space")}
            spec = DatasetSpec(**spaces, **fields)
            check_spaces(spec.observation_space, spec.action_space, "the file")
            return spec
        except DyDiffError:
            raise
        except Exception as error:
            reason = said(error, 120)
            raise DyDiffError(f"The description of the data cannot be read: {reason}.",
                              "The file is damaged; make or copy it again.") from error


def check_same_spaces(first: DatasetSpec, other: DatasetSpec) -> None:
    """Make sure that two logs are of one environment, in whatever precision.

    Raises:
        DyDiffError: naming the space that differs.
    """
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if not same_but_for_precision(theirs, ours):
            raise DyDiffError(f"{other.dataset_id} has the {name.replace('_', ' ')} {theirs}, but {first.dataset_id} has {ours}.",
                              "Use data of one environment.", usage=True)


def check_episode(spec: DatasetSpec, episode: Episode, index: int, name: str) -> None:
    """Refuse numbers no model can learn from.

    Args:
        spec: what they should be.
        episode: of the dataset.
        index: its number.
        name: of the dataset.

    Raises:
        DyDiffError: naming the episode and the field.
    """
    steps = len(episode.rewards)
    wanted = {"observations": (steps + 1, spec.observation_size), "actions": (steps, spec.action_size), "rewards": (steps,)}
    shapes = {field: np.shape(getattr(episode, field)) for field in wanted}
    if shapes != wanted or np.ndim(episode.terminated):
        found = ", ".join(f"{field} {shape}" for field, shape in {**shapes, "terminated": np.shape(episode.terminated)}.items())
        raise DyDiffError(f"{name}: episode {index} has {found}.",
                          f"An episode of L steps has observations (L+1, {spec.observation_size}), actions (L, {spec.action_size}), "
                          "rewards (L,) and one bool, terminated.")
    if not steps:
        raise DyDiffError(f"{name}: episode {index} has no steps.", "Leave it out.")
    for field in wanted:
        values = np.asarray(getattr(episode, field))
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DyDiffError(f"{name}: episode {index} has a NaN or infinite number in {field}, row {row}.",
                              "Collect it again, or leave it out; World.fit takes what MinariDataset.filter_episodes leaves.")


ARRAYS = ("observations", "actions", "rewards", "terminations", "offsets")
"""The arrays of a Dataset, in the order it takes them."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """N logged episodes of T transitions in all, episodes one after another; the arrays may be memory-mapped.

    Args:
        spec: what the numbers mean.
        observations: (T+N, O) float32, each episode with its final observation.
        actions: (T, A) float32.
        rewards: (T,) float32.
        terminations: (N,) bool, True where the episode ended in a terminal state; any other is a time-out.
        offsets: (N+1,) int64; episode i has transitions ``offsets[i]`` to ``offsets[i+1]`` and observation
            rows ``offsets[i] + i`` to ``offsets[i+1] + i`` inclusive.
    """

    spec: DatasetSpec
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def from_episodes(spec: DatasetSpec, episodes: Sequence[Episode]) -> Dataset:
        """Episodes, each of at least one step, put one after another.

        Raises:
            DyDiffError: where there are none, one has a wrong shape or a number that is not finite, or the spaces are not of floats.
        """
        check_spaces(spec.observation_space, spec.action_space, spec.dataset_id)
        if not len(episodes):
            raise DyDiffError(f"{spec.dataset_id} has no episodes.", "Give at least one.")
        for index, episode in enumerate(episodes):
            check_episode(spec, episode, index, spec.dataset_id)
        offsets = np.zeros(len(episodes) + 1, np.int64)
        np.cumsum([len(episode.rewards) for episode in episodes], out=offsets[1:])
        arrays = (
            np.concatenate([episode.observations for episode in episodes], dtype=np.float32),
            np.concatenate([episode.actions for episode in episodes], dtype=np.float32),
            np.concatenate([episode.rewards for episode in episodes], dtype=np.float32),
            np.array([episode.terminated for episode in episodes], bool), offsets)
        return Dataset(replace(spec, fingerprint=fingerprint(*arrays)), *arrays)

    def outside(self, rows: int = 100_000) -> float:
        """The share of logged actions, of at most ``rows`` that are looked at, that lie outside the action space."""
        low, high = self.spec.action_bounds
        some = np.asarray(self.actions[:: max(1, len(self.actions) // rows)])
        margin = 1e-3 * np.where(np.isfinite(high - low), high - low, 1.0)
        return float(((some < low - margin) | (some > high + margin)).any(1).mean())

    @staticmethod
    def from_trajectories(spec: DatasetSpec, trajectories: Trajectories) -> Dataset:
        """Rollouts without their padding."""
        rows, steps = trajectories.state_mask, trajectories.mask
        offsets = np.zeros(len(trajectories) + 1, np.int64)
        np.cumsum(trajectories.lengths, out=offsets[1:])
        arrays = (trajectories.observations[rows].astype(np.float32, copy=False),
                  trajectories.actions[steps].astype(np.float32, copy=False),
                  trajectories.rewards[steps].astype(np.float32, copy=False),
                  np.asarray(trajectories.terminations, bool), offsets)
        return Dataset(replace(spec, fingerprint=fingerprint(*arrays)), *arrays)

    def __len__(self) -> int:
        return len(self.terminations)

    def __repr__(self) -> str:
        return f"Dataset({self.spec.dataset_id!r}, {len(self)} episodes, {self.transitions} transitions)"

    @property
    def transitions(self) -> int:
        """T, transitions in all episodes."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64 steps of each episode."""
        return np.diff(self.offsets)

    @property
    def returns(self) -> np.ndarray:
        """(N,) float64 undiscounted return of each episode."""
        return np.add.reduceat(np.asarray(self.rewards, np.float64), self.offsets[:-1])

    def episode(self, index: int) -> Episode:
        """Episode ``index`` (negative counts from the end), as views of the arrays."""
        index = range(len(self))[index]
        start, stop = self.offsets[index], self.offsets[index + 1]
        return Episode(self.observations[start + index:stop + index + 1], self.actions[start:stop],
                       self.rewards[start:stop], bool(self.terminations[index]))

    def blocks(self, transitions: int = 50_000) -> Iterator[Dataset]:
        """All episodes in order, some at a time: together about so many transitions, one at least."""
        begins = np.searchsorted(self.offsets, np.arange(0, self.transitions, transitions))
        for first, last in pairwise(np.unique(np.append(begins, len(self)))):
            start, stop = self.offsets[first], self.offsets[last]
            yield replace(self, observations=self.observations[start + first : stop + last], actions=self.actions[start:stop],
                          rewards=self.rewards[start:stop], terminations=self.terminations[first:last],
                          offsets=self.offsets[first : last + 1] - start)  # fmt: skip

    def episode_of(self, transitions: np.ndarray) -> np.ndarray:
        """The episode each of these transition indices lies in, same shape."""
        return np.searchsorted(self.offsets, transitions, side="right") - 1

    def flat(self) -> Transitions:
        """All transitions with their successors, copied into memory."""
        rows = np.arange(self.transitions) + np.repeat(np.arange(len(self)), self.lengths)
        ends = np.zeros(self.transitions, bool)
        ends[self.offsets[1:] - 1] = True
        terminated = np.zeros(self.transitions, np.float32)
        terminated[self.offsets[1:] - 1] = self.terminations
        return Transitions(self.observations[rows], np.array(self.actions), np.array(self.rewards),
                           self.observations[rows + 1], terminated, ends)


def fingerprint(*arrays: np.ndarray) -> str:
    """sha256 of arrays' shapes and bytes, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
