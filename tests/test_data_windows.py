"""S(τ): which windows there are, and what is in them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.data.windows import gather, window_starts
from dydiff_env.world.batches import Batches
from dydiff_env.world.rollout import BOUND

SPEC = DatasetSpec(gym.spaces.Box(-1e9, 1e9, (2,), np.float32), gym.spaces.Box(-1e9, 1e9, (1,), np.float32))


def counted(lengths: list[int]) -> Dataset:
    """Episodes whose numbers tell where they come from: (episode, step), never zero."""
    episodes = []
    for i, length in enumerate(lengths, 1):
        steps = np.arange(1, length + 2, dtype=np.float32)
        observations = np.stack([np.full_like(steps, i), steps], axis=1)
        episodes.append(Episode(observations, 100 * i + steps[:-1, None], steps[:-1], i % 2 == 0))
    return Dataset.from_episodes(SPEC, episodes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 8))
def test_windows_stay_in_their_episode(lengths, horizon):
    data = counted(lengths)
    starts = np.arange(data.transitions)
    observations, actions, mask = gather(data, starts, horizon)
    assert observations.shape == (len(starts), horizon + 1, 2) and actions.shape == (len(starts), horizon, 1)
    for row, start in enumerate(starts):
        i = int(data.episode_of(start))
        episode, begin = data.episode(i), start - data.offsets[i]
        real = min(horizon, lengths[i] - begin)
        assert mask[row].tolist() == [True] * real + [False] * (horizon - real)
        np.testing.assert_array_equal(observations[row, :real + 1], episode.observations[begin:begin + real + 1])
        assert (observations[row, real:] == episode.observations[-1 if real < horizon else begin + real]).all()
        np.testing.assert_array_equal(actions[row, :real], episode.actions[begin:begin + real])
        assert (actions[row, real:] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 8))
def test_the_papers_windows_are_slices_or_whole_padded_episodes(lengths, horizon):
    data = counted(lengths)
    starts = window_starts(data, horizon)
    expected = [int(data.offsets[i]) + t for i, n in enumerate(lengths) for t in range(max(n - horizon, 0) + 1)]
    assert starts.tolist() == expected
    states, _, real, _ = Batches(data, Normalizer(torch.zeros(2), torch.ones(2))).windows(starts, horizon, zeros=True)
    mask = real.bool()
    assert (states[:, 1:][~mask] == 0).all() and (states[:, 1:][mask] != 0).all()
    full = mask.all(1).numpy()
    assert all(data.lengths[data.episode_of(start)] < horizon for start in starts[~full])


def test_windows_of_a_memory_mapped_dataset_are_copies(hopper_dataset):
    before = np.array(hopper_dataset.actions)
    gather(hopper_dataset, np.arange(50), 20).actions[...] = 7
    np.testing.assert_array_equal(hopper_dataset.actions, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-1000, 1000))
def test_normalising_is_undone_and_standardises(seed, scale, shift):
    rows = (np.random.default_rng(seed).standard_normal((200, 3)) * scale + shift).astype(np.float32)
    rows[:, 2] = shift  # a constant dimension stays finite
    normalizer = Normalizer.fit(rows)
    values = normalizer.normalize(torch.from_numpy(rows))
    assert torch.isfinite(values).all()
    assert values[:, :2].mean().abs() < 0.05 and (values[:, :2].std(0) - 1).abs().max() < 0.05
    torch.testing.assert_close(normalizer.denormalize(values), torch.from_numpy(rows), rtol=1e-4, atol=1e-4 * scale)


def test_statistics_do_not_depend_on_the_block(monkeypatch):
    rows = np.random.default_rng(0).normal(1e4, 1.0, (150_000, 2)).astype(np.float32)
    normalizer = Normalizer.fit(rows)
    np.testing.assert_allclose(normalizer.mean, rows.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, rows.std(0, dtype=np.float64), rtol=1e-3)


def test_what_a_rare_sensor_says_lies_within_what_rollouts_can_show() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    values[:, 1] = 0
    values[[17, 3000], 1] = 1  # 50 deviations away
    normalized = Normalizer.fit(values).normalize(torch.from_numpy(values))
    assert normalized.abs().amax(0)[1] == pytest.approx(BOUND, rel=1e-4) and normalized[:, 0].std() == pytest.approx(1, rel=1e-3)
