"""Fine-tuning a policy in dreams alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_cli import assert_same_agents, run

from dydiff_env import embedded
from dydiff_env.agents import Judge, Schedule, load_agent
from dydiff_env.agents.checkpoint import best_path
from dydiff_env.agents.improve import improve
from dydiff_env.agents.judge import Sceptic
from dydiff_env.agents.svg import SVG, SVGConfig, discounted
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.envs.worlds import world_folder
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.loader import as_policy, load_policy
from dydiff_env.world.imagine import imagine
from dydiff_env.world.world import World

SMALL = SVGConfig(rounds=4, warm_up=2, rollouts=10, length=12, lookahead=4, actor_steps=2, batch_size=16, epochs=1, hidden=(16, 16))
SOON = Schedule(1, 2, 2, 1)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Copies that are made in a second."""
    monkeypatch.setattr("dydiff_env.agents.svg.COPY_STEPS", 200)


def swing(observations: torch.Tensor) -> torch.Tensor:
    """A policy with a slope."""
    return 0.5 * torch.tanh(observations[:, :3])


def unknown(world: World, rows: int) -> torch.Tensor:
    return torch.full((rows, world.spec.observation_size + world.spec.action_size), torch.nan)


def test_imagining_is_a_single_step_dream(tiny_world):
    starts = tiny_world.sample_starts(16, seed=3)
    dream = tiny_world.dream(as_policy(swing, tiny_world.spec), starts, 5, 0)
    found = imagine(tiny_world, swing, torch.from_numpy(starts), unknown(tiny_world, 16), 5)
    alive = dream.lengths == 5
    assert alive.any()
    np.testing.assert_allclose(found.last[alive], dream.observations[alive, 5], atol=2e-4)
    np.testing.assert_allclose(found.rewards[alive], dream.rewards[alive], atol=2e-4)
    np.testing.assert_allclose(found.uncertainties[alive], dream.uncertainties[alive], atol=1e-5)


def test_each_rollout_may_be_a_members(tiny_world):
    starts, members = torch.from_numpy(tiny_world.sample_starts(3, seed=4)), torch.tensor([1, -1, 0])
    found = imagine(tiny_world, swing, starts, unknown(tiny_world, 3), 4, members)
    dynamics = tiny_world.models.dynamics
    for row, member in enumerate(members.tolist()):
        model = dynamics if member < 0 else dynamics.only([member])
        now, memory = tiny_world.normalizer.normalize(starts[row : row + 1]), torch.zeros(1, dynamics.memory_size)
        for _ in range(4):
            action = swing(tiny_world.normalizer.denormalize(now))
            following = model.predict(now, action, memory).mean
            memory, now = dynamics.recall(now, action, following), following
        torch.testing.assert_close(found.last[row : row + 1], tiny_world.normalizer.denormalize(now), atol=1e-4, rtol=1e-4)


def test_gradients_flow_through_imagined_steps(tiny_world):
    starts, before = torch.from_numpy(tiny_world.sample_starts(8, seed=5)), unknown(tiny_world, 8)

    def earned(gain: torch.Tensor) -> torch.Tensor:
        found = imagine(tiny_world, lambda at: gain * swing(at), starts, before, 4)
        return (found.lives.cumprod(1) * (found.rewards - found.uncertainties)).sum()

    gain = torch.tensor(1.0, requires_grad=True)
    (slope,) = torch.autograd.grad(earned(gain), gain)
    with torch.no_grad():
        measured = (earned(torch.tensor(1.02)) - earned(torch.tensor(0.98))) / 0.04
    assert slope.isfinite() and slope.abs() > 1e-3
    torch.testing.assert_close(slope, measured, rtol=0.05, atol=1e-2)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 8), st.floats(0, 1), st.integers(0, 99))
def test_discounted_sums(rows, steps, discount, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, steps, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, steps + 1, (rows,), generator=generator)
    found = discounted(values, torch.arange(steps) < lengths[:, None], discount)
    for row, length in enumerate(lengths.tolist()):
        for t in range(steps):
            wanted = sum(discount**k * float(values[row, t + k]) for k in range(length - t)) if t < length else 0.0
            assert float(found[row, t]) == pytest.approx(wanted)


def test_an_exact_rule_ends_what_is_imagined(tiny_world_path):
    world = World.load(tiny_world_path)
    world.use_termination(lambda after: torch.from_numpy(after.numpy()[..., 0] < 10.0))  # no gradients there; here all is terminal
    starts = torch.from_numpy(world.sample_starts(4, seed=6))
    gain = torch.tensor(1.0, requires_grad=True)
    found = imagine(world, lambda at: gain * swing(at), starts, unknown(world, 4), 2)
    assert (found.lives == 0).all() and found.rewards.requires_grad


def test_the_sceptic_believes_the_member_that_gains_least_and_says_the_same_again(tiny_world):
    better = as_policy(lambda at: 0.3 * swing(at), tiny_world.spec)
    sceptic = Sceptic(tiny_world, 15, as_policy(swing, tiny_world.spec), episodes=4, noise=0.0)
    starts = torch.from_numpy(tiny_world.sample_starts(4, kind="initial"))
    earned = []
    for gain in (1.0, 0.3):
        each = []
        for member in range(tiny_world.models.dynamics.config.members):
            of = torch.full((4,), member)
            dreamt = imagine(tiny_world, lambda at, gain=gain: gain * swing(at), starts, unknown(tiny_world, 4), 15, of)
            paid = torch.cat([torch.ones(4, 1), (dreamt.lives > 0.5).float().cumprod(1)[:, :-1]], 1)
            each.append(float((dreamt.rewards * paid).sum(1).mean()))
        earned.append(np.array(each))
    before, after = earned
    assert sceptic(better)["dream_return"] == pytest.approx(before.mean() + (after - before).min(), abs=2e-3)
    assert sceptic(sceptic.than)["dream_return"] == pytest.approx(before.mean(), abs=1e-3)
    chance = load_policy("random", tiny_world.spec)
    assert sceptic(chance) == sceptic(chance)


def test_it_begins_as_a_copy(tiny_world):
    agent = SVG(tiny_world.spec, replace(SMALL, hidden=(64, 64)))
    error = agent.begin(tiny_world, as_policy(swing, tiny_world.spec), steps=1500)
    seen = torch.from_numpy(tiny_world.sample_starts(200, seed=9))
    assert error < 0.03 and float((agent.act(seen) - swing(seen)).square().mean().sqrt()) < 0.03


def test_a_copy_is_as_good_where_observations_are_small(tiny_world):
    unit = 1e-4
    mean, std = tiny_world.normalizer.mean, tiny_world.normalizer.std
    banks = {name: unit * getattr(tiny_world, name) for name in ("start_bank", "initial_bank")}
    errors = []
    for world, scale in ((replace(tiny_world, normalizer=Normalizer(mean, std)), 1.0),
                         (replace(tiny_world, normalizer=Normalizer(unit * mean, unit * std), **banks), unit)):  # fmt: skip
        policy = as_policy(lambda rows, scale=scale: swing(rows / scale), tiny_world.spec)
        errors.append(SVG(tiny_world.spec, SMALL).begin(world, policy, steps=200))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def test_the_best_copy_is_kept_and_knows_its_world(tiny_world_path, tmp_path):
    world, out = World.load(tiny_world_path), tmp_path / "better.pt"
    policy = as_policy(swing, world.spec)
    document = improve(policy, world, out, SMALL, episode=20, named=str(tiny_world_path), schedule=SOON)
    returns = dict(map(tuple, document["dream_returns"]))
    assert list(returns) == [2, 4] and document["best_return"] == max(returns.values())
    assert document["dream_return_before"] == pytest.approx(Sceptic(world, 20, policy)(policy)["dream_return"])
    best = document["best_checkpoint"]
    assert load_agent(best).updates == document["best_updates"] and load_policy(best).kind == "svg"
    assert world_folder(best) == tiny_world_path


def test_a_run_that_was_stopped_ends_as_the_whole_one(tiny_world, tmp_path, monkeypatch):
    policy = as_policy(swing, tiny_world.spec)
    improve(policy, tiny_world, tmp_path / "whole.pt", SMALL, episode=20, schedule=SOON)

    def stopped(self: SVG, *rest: object) -> None:
        if self.updates == 2:
            raise KeyboardInterrupt
        return fit(self, *rest)

    fit = SVG.fit
    monkeypatch.setattr(SVG, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        improve(policy, tiny_world, tmp_path / "parts.pt", SMALL, episode=20, schedule=SOON)
    monkeypatch.setattr(SVG, "fit", fit)
    improve(policy, tiny_world, tmp_path / "parts.pt", SMALL, episode=20, schedule=SOON, resume=True, named="where it is now")
    assert {load_agent(path).world for path in (tmp_path / "parts.pt", best_path(tmp_path / "parts.pt"))} == {"where it is now"}
    assert_same_agents(tmp_path / "whole.pt", tmp_path / "parts.pt", 4)
    best = best_path(tmp_path / "whole.pt")
    assert_same_agents(best, best_path(tmp_path / "parts.pt"), load_agent(best).updates)
    with pytest.raises(DyDiffError, match="another --seed"):
        improve(policy, tiny_world, tmp_path / "parts.pt", SMALL, episode=20, seed=1, resume=True)


def test_what_is_there_stays_the_policy_itself_above_all(tiny_world, tiny_world_path, tmp_path):
    policy = as_policy(swing, tiny_world.spec)
    improve(policy, tiny_world_path, tmp_path / "a.pt", SMALL, episode=np.int64(20), seed=np.int64(1), schedule=SOON)
    assert load_agent(tmp_path / "a.pt").world == str(tiny_world_path.resolve())  # numbers of NumPy's and a path can be read back
    kept = best_path(tmp_path / "a.pt").read_bytes()
    with pytest.raises(DyDiffError, match=r"a\.pt exists"):
        improve(policy, tiny_world, tmp_path / "a.pt", SMALL, episode=20, schedule=SOON)
    with pytest.raises(DyDiffError, match="the policy one begins with"):
        improve(best_path(tmp_path / "a.pt"), tiny_world, tmp_path / "a.pt", SMALL, episode=20, schedule=SOON, overwrite=True)
    assert best_path(tmp_path / "a.pt").read_bytes() == kept
    improve(policy, tiny_world, tmp_path / "a.pt", SMALL, episode=20, schedule=SOON, overwrite=True)
    assert load_agent(tmp_path / "a.pt").seed == 0


@pytest.mark.parametrize("episode", [10, 20, 50])
def test_the_critic_of_short_episodes_keeps_to_what_can_be_earned(episode):
    """States drift away until they are cut off: a critic that looks beyond that takes its own guesses for rewards, and diverges."""
    spec = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Box(-1, 1, (1,)))
    agent = SVG(spec, SVGConfig(episode=episode, hidden=(64, 64)))
    starts = np.random.default_rng(0).uniform(-1, 1, (64, 1, 1))
    observations = (starts * 1.05 ** np.arange(episode + 1)[:, None]).astype(np.float32)
    cost = -np.abs(observations[:, 1:, 0])
    still = np.zeros((64, episode, 1), np.float32)
    dreams = Trajectories(observations, still, cost, np.zeros(64, bool), np.full(64, episode), np.zeros_like(cost))
    losses = [float(agent._value(dreams)["critic_loss"]) for _ in range(20)]
    assert losses[-1] < 0.05 * float(np.square(cost).mean()) / (1 - agent.config.gamma) ** 2


def test_it_learns_in_the_embedded_maze():
    """From a policy that stands still, in the world that ships with the package."""
    world = World.load(embedded.WORLD)
    still = as_policy(lambda rows: torch.zeros(len(rows), 2), world.spec)
    config = SVGConfig(rounds=40, warm_up=5, rollouts=64, length=50, episode=100, learning_rate=1e-3, hidden=(64, 64))
    agent, judge = SVG(world.spec, config), Judge(world, 100)
    agent.begin(world, still, steps=300)
    before = judge(agent)["dream_return"]
    agent.fit(world, 25)
    assert judge(agent)["dream_return"] > before + 4


def test_from_the_command_line(tiny_world_path, tmp_path):
    out = tmp_path / "better.pt"
    common = ["improve", "--policy", "random", "--world", tiny_world_path, "--rounds", 2, "--episode", 10, "--eval-every", 1]
    code, document, _ = run(*common, "--out", out, "--json")
    assert code == 0 and document["updates"] == 2 and Path(document["best_checkpoint"]).is_file()
    code, _, said = run(*common, "--out", out)
    assert code == 2 and "--resume" in said
    code, _, said = run("improve", "--policy", document["best_checkpoint"], "--world", tiny_world_path, "--out", out, "--overwrite")
    assert code == 2 and "begins with" in said
