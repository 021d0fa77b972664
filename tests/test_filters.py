"""Filters keep exactly the share asked for, prefer good rollouts as they promise, and repeat with a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis import filters


def rollouts(returns: np.ndarray, horizon: int = 3) -> Trajectories:
    n = len(returns)
    rewards = np.repeat(np.asarray(returns, np.float32)[:, None] / horizon, horizon, 1)
    return Trajectories(
        np.zeros((n, horizon + 1, 2), np.float32),
        np.zeros((n, horizon, 1), np.float32),
        rewards,
        np.zeros(n, bool),
        np.full(n, horizon),
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.sampled_from(sorted(filters.FILTERS)),
    st.integers(0, 2**31),
)
def test_every_filter_keeps_the_floor_of_the_share(
    returns: list[float], keep: float, name: str, seed: int
) -> None:
    batch = rollouts(np.array(returns))
    kept = filters.select(name, batch, keep, seed=seed)
    assert len(kept) == len(set(kept)) == filters.kept_count(keep, len(batch))
    assert np.array_equal(kept, filters.select(name, batch, keep, seed=seed))


def test_the_share_is_free_of_float_dust() -> None:
    assert filters.kept_count(0.29, 100) == 29
    assert filters.kept_count(0.8, 2048) == 1638


def test_hardmax_keeps_the_best() -> None:
    returns = np.random.default_rng(0).permutation(100).astype(np.float32)
    assert set(returns[filters.select("hardmax", rollouts(returns), 0.25)]) == set(range(75, 100))


def test_softmax_favours_high_returns_and_cools_to_hardmax() -> None:
    returns = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    batch = rollouts(returns)
    soft, hot, cold = (
        returns[filters.select("softmax", batch, 0.5, temperature=t)].mean() for t in (0.5, 100.0, 1e-6)
    )
    hard = returns[filters.select("hardmax", batch, 0.5)].mean()
    assert abs(hot - returns.mean()) < 0.05 < soft - returns.mean()
    assert cold == pytest.approx(hard, abs=1e-3)


def test_softmax_first_draw_follows_the_softmax() -> None:
    returns = np.array([0.0, 1.0, 2.0])
    z = (returns - returns.mean()) / returns.std()
    expected = np.exp(z) / np.exp(z).sum()
    batch = rollouts(returns)
    drawn = [int(filters.select("softmax", batch, 0.34, temperature=1.0, seed=s)[0]) for s in range(3000)]
    assert np.allclose(np.bincount(drawn, minlength=3) / 3000, expected, atol=0.03)


def test_equal_returns_are_no_problem() -> None:
    assert len(filters.select("softmax", rollouts(np.ones(10)), 0.5)) == 5


def test_a_diverged_rollout_is_never_kept() -> None:
    batch = rollouts(np.arange(10.0))
    batch.rewards[9] = np.nan
    batch.observations[8, 2] = np.inf
    assert filters.select("hardmax", batch, 0.2).tolist() == [6, 7]
    assert len(filters.select("none", batch, 1.0)) == 8


def test_mistakes_are_named() -> None:
    with pytest.raises(DyDiffError, match=r"no filter 'hardmx'.*hardmax, softmax, none"):
        filters.select("hardmx", rollouts(np.ones(3)))
    with pytest.raises(DyDiffError, match="share to keep is 0"):
        filters.select("none", rollouts(np.ones(3)), 0)
    with pytest.raises(DyDiffError, match="temperature is 0"):
        filters.select("softmax", rollouts(np.ones(3)), temperature=0)
