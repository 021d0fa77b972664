"""When dreams end: behind a border where states tell, and otherwise as often as logged episodes did."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from dydiff_env import World
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.evaluation.members import returns_by_member
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.policies import as_policy
from dydiff_env.world.presets import FAST, PAPER, QUICK, TINY
from dydiff_env.world.termination import TerminationConfig, TerminationModel

BLOW, HAZARD = -20.0, 0.1


def walk(hidden: bool) -> Dataset:
    """A walker pushed to and fro, paid 1 a step. It dies beyond 1, or, where that is hidden, one step in ten beyond 0; a death costs 20."""
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        states, actions, rewards, dead = [rng.uniform(-0.5, 0.5, 2)], [], [], False
        while len(actions) < 40 and not dead:
            actions.append(rng.uniform(-1, 1, 1))
            states.append(np.array([0.5 * states[-1][0] + 0.5 * actions[-1][0], rng.normal()]))
            dead = bool(rng.random() < HAZARD and states[-1][0] > 0) if hidden else states[-1][0] > 0.6
            rewards.append(BLOW if dead else 1.0)
        found.append(Episode(*(np.array(x, np.float32) for x in (states, actions, rewards)), dead))
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32)
    return Dataset.from_episodes(DatasetSpec(*box, None, "tests/walk-v0"), found)


def fit(data: Dataset) -> World:
    parts = {"termination": dataclasses.replace(TINY.termination, drawn=None), "reward": dataclasses.replace(TINY.reward, next_state=None)}
    short = {name: dataclasses.replace(getattr(TINY, name), steps=200) for name in ("denoiser_training", "behavior_training")}
    return World.fit(data, preset=dataclasses.replace(TINY, **parts, **short))


@pytest.fixture(scope="module")
def hidden() -> World:
    return fit(walk(hidden=True))


def push(world: World, value: float):
    return as_policy(lambda rows: torch.full((len(rows), 1), value), world.spec)


def test_hidden_ends_are_drawn_as_often_as_they_come_and_paid_for(hidden: World) -> None:
    assert hidden.preset.termination.drawn and hidden.preset.reward.ends
    assert "draw" in hidden.record["training"]["termination"]["drawn"]["reason"]
    returns = {}
    for value, least, most in ((0.5, 8, 16), (-0.5, 33, 40)):  # it soon is where it may die, one step in ten; or never comes there
        for iterations in (0, None):
            found = dream_returns(hidden, push(hidden, value), 400, horizon=40, iterations=iterations)
            assert least < found.lengths.mean() < most
            # A step is worth 1, and a death, where there is one, 21 less.
            died = found.returns < found.lengths - 10
            np.testing.assert_allclose(found.returns, found.lengths + (BLOW - 1) * died, atol=4)
            assert abs(float(died.mean()) - float((found.lengths < 40).mean())) < 0.05
            returns[value, iterations] = found
    each = returns_by_member(hidden, push(hidden, 0.5), 400, horizon=40)
    single = returns[0.5, 0]
    assert each.lengths.mean() == pytest.approx(single.lengths.mean(), rel=0.15)  # these are not drawn, but meant
    assert each.returns.mean() == pytest.approx(single.returns.mean(), abs=3)


def test_doubt_is_of_the_step_however_likely_the_dream_has_ended(hidden: World) -> None:
    starts = hidden.sample_starts(32)
    found = {}
    for rule in (lambda states: torch.zeros(states.shape[:-1], dtype=torch.bool), None):
        hidden.use_termination(rule)
        found[rule is None] = hidden.dream(push(hidden, 0.5), starts, iterations=0)
    taken = found[True].mask
    assert not taken.all()
    np.testing.assert_allclose(found[True].uncertainties[taken], found[False].uncertainties[taken], rtol=1e-3)


@pytest.fixture(scope="module")
def border() -> World:
    return fit(walk(hidden=False))


def test_a_death_that_is_seen_late_bears_no_correction_out(border: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members' rollouts are looked at every fourth step; how long they live is compared with an anchor that is known to the step."""
    asked = dataclasses.replace(border.preset, refinement=dataclasses.replace(border.preset.refinement, trust=None))
    world, found = dataclasses.replace(border, preset=asked), []
    for look in (1, 4):
        monkeypatch.setattr("dydiff_env.world.rollout.LOOK", look)
        found.append(float(world.trust_in(push(world, 1.0)).denoiser[-1]))
    assert found[0] == found[1]


def test_a_border_stays_one(border: World) -> None:
    world = border
    assert world.preset.termination.drawn is False and torch.isinf(world.models.termination.sharpness)
    assert "drawn" not in world.record["training"]["termination"]
    dream = world.dream(push(world, 1.0), np.zeros((64, 2), np.float32), 40, 0)
    assert dream.terminations.all() and np.ptp(dream.lengths) == 0 and 0.5 < dream.observations[0, dream.lengths[0], 0] < 0.9


def test_a_world_with_drawn_ends_is_saved(hidden: World, tmp_path) -> None:
    hidden.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    starts = hidden.sample_starts(16)
    np.testing.assert_array_equal(again.dream(push(hidden, 0.5), starts).lengths, hidden.dream(push(hidden, 0.5), starts).lengths)


@pytest.mark.parametrize("weight", [1.0, 7.0])
def test_probabilities_of_ends_are_true(weight: float) -> None:
    model = TerminationModel(1, TerminationConfig(width=4, depth=1))
    model.network = torch.nn.Identity()
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(40_000, 1, generator=generator)
    real = torch.sigmoid(1.5 * states[:, 0] - 3)
    terminal = (torch.rand(40_000, generator=generator) < real).float()
    some = (terminal > 0) | (torch.rand(40_000, generator=generator) < 1 / weight)  # one in so many ordinary states
    model.draw_ends(states[some], terminal[some], weight)
    assert float((1 - model.outlived(states) - real).abs().max()) < 0.04
    assert float((1 - model.outlived(states)).sum()) == pytest.approx(float(terminal.sum()), rel=0.05)


def test_the_paper_knows_borders_alone() -> None:
    assert PAPER.termination.drawn is False and FAST.termination.drawn is QUICK.termination.drawn is None
