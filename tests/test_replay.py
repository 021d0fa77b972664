"""What a user relies on when real and synthetic data are mixed."""

from __future__ import annotations

import minari
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.agents import agent_class
from dydiff_env.agents.replay import Replay
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError


def rollouts(
    rows: int, horizon: int, mark: float, seed: int = 0, widths: tuple[int, int] = (11, 3)
) -> Trajectories:
    """Rollouts of random lengths; each reward is ``mark``, padding is NaN."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, horizon + 1, rows)
    observations = rng.standard_normal((rows, horizon + 1, widths[0])).astype(np.float32)
    observations[..., 0] = np.arange(horizon + 1)  # the step, to follow who succeeds whom
    actions = rng.uniform(-1, 1, (rows, horizon, widths[1])).astype(np.float32)
    rewards = np.full((rows, horizon), mark, np.float32)
    padding = np.arange(horizon) >= lengths[:, None]
    actions[padding], rewards[padding] = np.nan, np.nan
    observations[:, 1:][padding] = np.nan
    return Trajectories(observations, actions, rewards, rng.random(rows) < 0.5, lengths)


def test_a_thousand_batches_have_153_or_154_real_rows_and_reach_every_source(hopper_dataset):
    marks = (1001.0, 1002.0)
    replay = Replay(hopper_dataset, [rollouts(20, 5, mark) for mark in marks], real_ratio=0.6)
    counts, reached = [], {mark: 0 for mark in marks}
    for batch in replay.batches(1000, 256):
        drawn = {mark: int((batch.rewards == mark).sum()) for mark in marks}
        counts.append(256 - sum(drawn.values()))
        for mark, number in drawn.items():
            reached[mark] += number
    assert set(counts) == {153, 154}
    assert sum(counts) == 153600  # ⌊.6 · 256 · 1000⌋
    assert min(reached.values()) > 40_000


@settings(max_examples=30, deadline=None)
@given(ratio=st.floats(0, 1), size=st.integers(1, 64), first=st.integers(0, 500))
def test_real_rows_of_a_batch_are_the_floor_or_ceiling_of_the_ratio(hopper_dataset, ratio, size, first):
    counts = Replay(hopper_dataset, rollouts(3, 2, 1.0), real_ratio=ratio).real_counts(first, 50, size)
    assert counts.min() >= np.floor(ratio * size) and counts.max() <= np.ceil(ratio * size)
    assert abs(int(counts.sum()) - 50 * ratio * size) <= 1


def test_weights_say_how_often_each_source_is_drawn(hopper_dataset):
    sources = [rollouts(50, 5, 1.0), rollouts(2, 5, 2.0)]
    replay = Replay(hopper_dataset, sources, real_ratio=0.0, synthetic_weights=[1, 3])
    rewards = torch.cat([batch.rewards.flatten() for batch in replay.batches(100, 256)])
    assert abs(float((rewards == 2).float().mean()) - 0.75) < 0.02


def test_only_terminal_states_stop_the_bootstrap(hopper_dataset):
    flat = hopper_dataset.flat()
    replay = Replay(hopper_dataset)
    assert len(replay) == hopper_dataset.transitions
    table = replay._table
    assert table[:, -1].sum() == hopper_dataset.terminations.sum()  # time-outs are not among them
    np.testing.assert_array_equal(table[:, -1].numpy(), flat.terminated)
    np.testing.assert_array_equal(table[:, 15:26].numpy(), flat.next_observations)


def test_padding_is_never_drawn_and_each_row_holds_its_own_successor():
    source = rollouts(200, 7, 1.0)
    replay = Replay(source)
    assert len(replay) == source.lengths.sum()
    table = replay._table
    assert torch.isfinite(table).all()
    assert (table[:, 15] == table[:, 0] + 1).all()
    ends = np.cumsum(source.lengths) - 1
    np.testing.assert_array_equal(table[ends, -1].numpy(), source.terminations.astype(np.float32))
    assert table[:, -1].sum() == source.terminations.sum()


def test_an_update_sees_the_same_batch_wherever_the_run_was_resumed(hopper_dataset):
    replay = Replay(hopper_dataset, rollouts(20, 5, 1.0))
    whole = [batch.observations for batch in replay.batches(200, 8, seed=3)]
    parts = [
        batch.observations
        for start, number in ((0, 70), (70, 1), (71, 129))
        for batch in replay.batches(number, 8, start=start, seed=3)
    ]
    assert torch.equal(torch.cat(whole), torch.cat(parts))
    grouped = [batch.observations for batch in replay.batches(129, 8, start=71, seed=3, group=2)]
    assert [len(part) for part in grouped[:2]] == [1, 2]  # groups keep to multiples of their size
    other = next(iter(replay.batches(1, 8, seed=4)))
    assert not torch.equal(other.observations, whole[0])


def test_logged_data_are_taken_as_a_world_takes_them(hopper_folder, hopper_dataset):
    expected = next(Replay(hopper_dataset).batches(1))
    for source in (hopper_folder, str(hopper_folder), [minari.MinariDataset(hopper_folder)]):
        assert torch.equal(next(Replay(source).batches(1)).observations, expected.observations)
    agent = agent_class("bc")(hopper_dataset.spec)
    assert agent.fit(hopper_folder, 2).updates == 2


def test_what_cannot_be_mixed_is_refused(hopper_dataset):
    with pytest.raises(DyDiffError, match="Sources differ"):
        Replay(hopper_dataset, rollouts(3, 2, 1.0, widths=(4, 2)))
    with pytest.raises(DyDiffError, match="ratio"):
        Replay(hopper_dataset, real_ratio=1.5)
    with pytest.raises(DyDiffError, match="Weights"):
        Replay(hopper_dataset, rollouts(3, 2, 1.0), synthetic_weights=[1, 2])
    with pytest.raises(DyDiffError, match="at least one"):
        Replay([])
