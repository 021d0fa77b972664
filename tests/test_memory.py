"""One step of memory: what it recalls, who is told, and where a fit chooses it."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env import load_policy
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import as_policy
from dydiff_env.synthesis.methods import Dreamer
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.world.batches import Batches
from dydiff_env.world.dynamics import FAR, Dynamics, DynamicsConfig
from dydiff_env.world.fit_single_step import fit_dynamics
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.memory import remembered
from dydiff_env.world.presets import TINY
from dydiff_env.world.sight import choose_sight
from dydiff_env.world.world import World


def sliders(seen: int, episodes: int = 40, steps: int = 60) -> Dataset:
    """Masses that are pushed along a line: position and velocity, of which the first ``seen`` are observed."""
    rng, found = np.random.default_rng(0), []
    for _ in range(episodes):
        state, states = rng.normal(size=2), []
        actions = rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
        for action in [*actions[:, 0], 0.0]:
            states.append(state)
            position, velocity = state
            state = np.array([0.95 * position + 0.3 * velocity, 0.9 * velocity - 0.1 * position + 0.2 * action])
        observations = np.array(states, np.float32)[:, :seen]
        found.append(Episode(observations, actions, np.zeros(steps, np.float32), False))
    box = gym.spaces.Box(-np.inf, np.inf, (seen,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32)
    return Dataset.from_episodes(DatasetSpec(*box, None, f"tests/sliders-{seen}-v0"), found)


@pytest.mark.parametrize("seen, wanted", [(1, True), (2, False)])
def test_memory_is_kept_where_observations_leave_something_out(seen, wanted, tmp_path):
    preset = replace(TINY, dynamics=replace(TINY.dynamics, memory=None))
    fitting = Fitting(sliders(seen), preset, 0, tmp_path, torch.device("cpu"))
    tried = choose_sight(fitting, fit_dynamics)["memory"]
    assert fitting.preset.dynamics.memory is tried["kept"] is wanted
    assert (fitting.models.dynamics.memory_size > 0) == ("has memory" in tried["reason"]) == wanted
    assert (tried["with"] < 0.6 * tried["without"]) == wanted
    found = tmp_path / "sight.json"  # a fit that goes on does not try again
    found.write_text(found.read_text().replace(str(tried["with"]), "-1.0"))
    again = Fitting(sliders(seen), preset, 0, tmp_path, torch.device("cpu"))
    assert choose_sight(again, fit_dynamics)["memory"] == tried | {"with": -1.0}


def test_a_saved_world_keeps_the_steps_before_its_starts(tiny_world, tiny_world_path):
    loaded = World.load(tiny_world_path)
    assert tiny_world.preset.dynamics.memory and loaded.preset == tiny_world.preset
    np.testing.assert_array_equal(loaded.before_bank, tiny_world.before_bank)


def test_exports_know_the_steps_before_their_starts(tiny_world):
    policy = as_policy(lambda observations: torch.tanh(observations[:, :3]), tiny_world.spec)
    draft = Dreamer(tiny_world, policy).synthesize(16, RoundOptions(16, horizon=8, iterations=0), (5, 6))
    starts, before = tiny_world.sample_starts(16, seed=5), tiny_world.sample_before(16, seed=5)
    wanted = tiny_world.dream(policy, starts, 8, 0, seed=6, before=before)
    np.testing.assert_allclose(draft.rollouts.observations, wanted.observations, atol=1e-6)
    assert np.abs(wanted.observations - tiny_world.dream(policy, starts, 8, 0, seed=6).observations).max() > 1e-3


@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_what_is_recalled_is_the_logs_step_before(rows):
    data = sliders(2, episodes=5, steps=20)
    batches, dynamics = Batches(data, Normalizer.fit(data.observations)), Dynamics(2, 1, DynamicsConfig(3, 2, 8, 2, memory=True))
    recalled = remembered(dynamics, batches, np.array(rows)).numpy()
    for row, said in zip(rows, recalled, strict=True):
        episode, step = data.episode(row // 20), row % 20
        if step == 0:
            assert not said.any()
            continue
        change = (episode.observations[step] - episode.observations[step - 1]) / batches.normalizer.std.numpy()
        np.testing.assert_allclose(said, [*change, *episode.actions[step - 1], 1], atol=1e-5)


def test_what_is_recalled_is_bounded_and_without_memory_nothing():
    far, actions, known = torch.tensor([[1e9, -1e9], [torch.nan, 0.0]]), torch.zeros(2, 1), torch.tensor([True, False])
    recalled = Dynamics(2, 1, DynamicsConfig(3, 2, 8, 2, memory=True)).recall(far, actions, torch.zeros(2, 2), known)
    assert recalled.tolist() == [[-FAR, FAR, 0, 1], [0, 0, 0, 0]]
    still = Dynamics(2, 1, DynamicsConfig(3, 2, 8, 2, memory=True))
    still.delta_std[0] = 1e-6  # a goal, which a correction moves by next to nothing
    assert still.recall(torch.zeros(1, 2), actions[:1], torch.tensor([[1e-4, 0.0]])).abs().max() == 1
    assert Dynamics(2, 1, DynamicsConfig(3, 2, 8, 2)).recall(far, actions, torch.zeros(2, 2), known).shape == (2, 0)


def test_starts_come_with_the_steps_that_led_to_them(tiny_world, hopper_dataset):
    starts, before = tiny_world.sample_starts(200, seed=3), tiny_world.sample_before(200, seed=3)
    found = 0
    for start, step in zip(starts, before, strict=True):
        (row,) = np.flatnonzero((hopper_dataset.observations == start).all(1))
        episode = int(np.searchsorted(hopper_dataset.offsets + np.arange(len(hopper_dataset) + 1), row, side="right")) - 1
        if row == hopper_dataset.offsets[episode] + episode:  # its first state
            assert np.isnan(step).all()
            continue
        found += 1
        np.testing.assert_array_equal(step, [*hopper_dataset.observations[row - 1], *hopper_dataset.actions[row - episode - 1]])
    assert found > 150
    assert np.isnan(tiny_world.sample_before(5, kind="initial")).all()


def test_a_world_asks_for_steps_of_its_own_width(tiny_world):
    starts = tiny_world.sample_starts(4)
    with pytest.raises(DyDiffError, match="14 numbers wide"):
        tiny_world.dream(load_policy("random", tiny_world.spec), starts, before=starts)


def test_a_start_that_nothing_is_known_of_is_dreamt_as_if_nothing_were_given(tiny_world):
    policy, starts = load_policy("random", tiny_world.spec), tiny_world.sample_starts(6)
    before = tiny_world.sample_before(6)
    before[:3] = np.nan
    before[3, 0] = np.nan  # half a step tells nothing either
    given, alone = (tiny_world.dream(policy, starts, 4, 0, before=b) for b in (before, None))
    np.testing.assert_array_equal(given.observations[:4], alone.observations[:4])
    assert (np.abs(given.observations[4:, 1] - alone.observations[4:, 1]).max(1) > 1e-4).all()
