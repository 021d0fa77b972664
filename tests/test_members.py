"""What the ensemble's members make of policies tells, without a simulator, how far a dreamt ranking can be believed."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from dydiff_env import World
from dydiff_env.cli.app import app
from dydiff_env.cli.evaluate import _show as show
from dydiff_env.evaluation.members import AGREED, NEAR, consensus, returns_by_member, spread
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.evaluation.scores import evaluate_returns
from dydiff_env.policies import as_policy, load_policy
from dydiff_env.policies.draws import stream
from dydiff_env.world.presets import TINY


def policy(world, value: float = 0.1):
    return as_policy(lambda observations: torch.full((len(observations), 3), value), world.spec)


def alone(world: World, member: int) -> World:
    """The same world with one member for its whole single-step model."""
    models = copy.copy(world.models)
    models._modules = {**models._modules, "dynamics": world.models.dynamics.only([member])}
    return replace(world, models=models)


@pytest.mark.parametrize("ends", [True, False])
def test_members_are_asked_side_by_side_as_each_would_be_alone(tiny_world_path, ends) -> None:
    world = World.load(tiny_world_path)
    middle = float(np.median(world.start_bank[:, 0]))
    world.use_termination(lambda after: after[..., 0] < middle if ends else torch.zeros_like(after[..., 0], dtype=torch.bool))
    found = returns_by_member(world, policy(world), 5, horizon=20, seed=3)
    each = [dream_returns(alone(world, m), policy(world), 5, horizon=20, iterations=0, seed=3) for m in range(3)]
    np.testing.assert_allclose(found.returns, [one.returns for one in each], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.lengths, [one.lengths for one in each])
    assert len(np.unique(found.returns)) == 15 and (found.lengths.min() < 20) == ends


def test_members_meet_the_same_draws(tiny_world) -> None:
    models = copy.deepcopy(tiny_world.models)
    for part in models.dynamics.parameters():
        if part.dim() == 3:
            part.data[:] = part.data[:1].clone()  # now all members are one
    world = replace(tiny_world, models=models)
    for options in ({}, {"noise": 0.5}, {"deterministic": False}):
        found = returns_by_member(world, load_policy("random", world.spec), 4, horizon=20, **options)
        np.testing.assert_allclose(found.returns, found.returns[:1].repeat(3, 0), rtol=1e-4, atol=1e-4)
        again = returns_by_member(world, load_policy("random", world.spec), 4, horizon=20, **options)
        np.testing.assert_array_equal(found.returns, again.returns)
    plain, disturbed = (returns_by_member(tiny_world, policy(tiny_world), 4, horizon=20, noise=noise).returns for noise in (0.0, 0.5))
    assert np.abs(plain - disturbed).min() > 0


def test_a_death_changes_nobody_elses_noise(tiny_world_path) -> None:
    world = World.load(tiny_world_path)

    def lengths(first: int) -> np.ndarray:  # of dreams whose first so many starts end at once
        ended = []

        def rule(states: torch.Tensor) -> torch.Tensor:
            dead = torch.zeros(states.shape[:-1], dtype=torch.bool)
            if not ended:
                ended.append(dead[:, :first].fill_(True))
            return dead

        world.use_termination(rule)
        return returns_by_member(world, policy(world), 8, horizon=12, noise=0.3)

    whole, cut = lengths(0), lengths(3)
    assert (cut.lengths[:, :3] == 1).all() and (cut.lengths[:, 3:] == 12).all()
    np.testing.assert_allclose(cut.returns[:, 3:], whole.returns[:, 3:], rtol=1e-4)


def test_returns_can_be_discounted(tiny_world) -> None:
    acting, how = policy(tiny_world), {"horizon": 30}
    steps = tiny_world.dream(acting, tiny_world.sample_starts(6, kind="initial"), 30, 0, trust=None, seed=stream(0, 0))
    wanted = (np.where(steps.mask, steps.rewards, 0) * 0.9 ** np.arange(30)).sum(1)
    found = dream_returns(tiny_world, acting, 6, iterations=0, discount=0.9, **how)
    np.testing.assert_allclose(found.returns, wanted, rtol=1e-4)
    first = dream_returns(tiny_world, acting, 6, iterations=0, discount=0.0, **how).returns
    np.testing.assert_allclose(first, steps.rewards[:, 0], rtol=1e-4)
    each = returns_by_member(tiny_world, acting, 6, discount=0.0, **how).returns
    np.testing.assert_allclose(each, returns_by_member(tiny_world, acting, 6, horizon=1).returns, rtol=1e-4)
    real = evaluate_returns(acting, "Hopper-v5", 3, discount=0.0, horizon=20).returns
    np.testing.assert_allclose(real, evaluate_returns(acting, "Hopper-v5", 3, horizon=1).returns, rtol=1e-5)


@given(arrays(float, (4, 5), elements=st.integers(-5, 5)))
def test_consensus_is_of_orders_not_of_numbers(returns: np.ndarray) -> None:
    policies = {str(i): row for i, row in enumerate(returns)}
    found = consensus(policies)
    assert -1 <= found <= 1 + 1e-12
    assert consensus({name: np.exp(row) for name, row in policies.items()}) == pytest.approx(found)


def test_consensus_of_known_orders() -> None:
    assert consensus({"a": np.array([0.0, 1, 2]), "b": np.array([5.0, 6, 7])}) == pytest.approx(1)
    assert consensus({"a": np.array([0.0, 9]), "b": np.array([5.0, 6])}) == pytest.approx(-1)


def test_members_that_order_alike_can_promise_wildly_different_returns() -> None:
    returns = {"falls": np.array([-9e4, -20.0, -10.0]), "walks": np.array([100.0, 110.0, 120.0])}
    assert consensus(returns) == pytest.approx(1) and spread(returns) > NEAR
    assert spread({name: 0.0 * row + row[1] for name, row in returns.items()}) == 0
    assert spread({"a": np.array([1.0, 3.0]), "b": np.array([10.0, 14.0])}) == pytest.approx(1.5 / 10)


@given(arrays(float, (4, 5), elements=st.integers(-5, 5)), st.floats(0.1, 10), st.floats(-5, 5))
def test_spread_is_free_of_a_returns_unit(returns: np.ndarray, scale: float, shift: float) -> None:
    returns = np.concatenate([returns, np.array([np.full(5, -6.0), np.full(5, 6.0)])])  # there is a range
    plain, other = ({str(i): row for i, row in enumerate(found)} for found in (returns, scale * returns + shift))
    assert spread(other) == pytest.approx(spread(plain))


def test_the_command_says_what_members_make_of_it(tiny_world_path, tmp_path, monkeypatch) -> None:
    (tmp_path / "acts.py").write_text("def still(observations):\n    return 0 * observations[:, :3]\n")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, ["evaluate", *map(str, words), "--horizon", "20", "--episodes", "3", "--device", "cpu"])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    world = ["--world", tiny_world_path]
    several = json.loads(run("--policy", "random", "--policy", "acts:still", *world, "--json"))
    by_member = {row["policy"]: np.array(row["dream_by_member"]) for row in several["policies"]}
    assert several["consensus"] == pytest.approx(consensus(by_member)) and several["spread"] == pytest.approx(spread(by_member))
    assert all(len(each) == 3 for each in by_member.values())
    told = " ".join(run("--policy", "random", "--policy", "acts:still", *world).split())
    trusted = several["consensus"] >= AGREED and several["spread"] <= NEAR
    assert "rank the policies" in told and ("do not go by this order" not in told) == trusted
    one = json.loads(run("--policy", "acts:still", *world, "--json"))
    less = json.loads(run("--policy", "acts:still", *world, "--json", "--discount", "0.5"))
    assert less["discount"] == 0.5 and abs(less["return_mean"]) < abs(one["return_mean"]) and "discount" not in one
    assert "normalized_score" not in one and "normalized_score" not in less  # its ends are of whole episodes
    assert "discounted by 0.5" in run("--policy", "random", "--policy", "acts:still", *world, "--discount", "0.5")
    np.testing.assert_array_equal(one["return_by_member"], by_member["acts:still"])


@pytest.mark.parametrize(("agreed", "apart", "believed"), [(0.9, 0.05, True), (0.7, 0.05, False), (0.9, 14.0, False)])
def test_an_order_is_to_go_by_only_where_members_agree_on_order_and_returns(capsys, agreed, apart, believed) -> None:
    row = {"policy": "a", "dream_return": 1.0, "dream_ci": (0.0, 2.0), "dream_length": 5.0, "dream_by_member": [0.0, 2.0]}
    show({"policies": [row], "in": "world w", "episodes": 5, "consensus": agreed, "spread": apart})
    told = " ".join("".join(capsys.readouterr()).split())
    assert f"{apart:.1%} of the range" in told and ("do not go by this order" in told) != believed


def test_a_world_of_one_member_has_nothing_to_compare(hopper_dataset, tmp_path) -> None:
    short = {name: replace(getattr(TINY, name), steps=2, evaluate_every=1) for name in vars(TINY) if name.endswith("_training")}
    preset = replace(TINY, dynamics=replace(TINY.dynamics, members=1, elites=1), **short)
    World.fit(hopper_dataset, preset=preset, out=tmp_path / "world")
    words = ["evaluate", "--policy", "random", "--world", str(tmp_path / "world"), "--horizon", "5", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "return_by_member" not in json.loads(result.stdout)
