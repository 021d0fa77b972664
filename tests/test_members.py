"""What the ensemble's members make of policies tells, without a simulator, how far a dreamt ranking can be believed."""

from __future__ import annotations

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
from dydiff_env.evaluation.members import AGREED, alone, consensus, returns_by_member
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.policies import as_policy
from dydiff_env.world.presets import TINY


def policy(world, value: float = 0.1):
    return as_policy(lambda observations: torch.full((len(observations), 3), value), world.spec)


def test_a_member_alone_dreams_what_it_predicts(tiny_world) -> None:
    elites, starts = tiny_world.models.dynamics.elites.clone(), tiny_world.sample_starts(8)
    dreamt = [alone(tiny_world, member).dream(policy(tiny_world), starts, 1, 0) for member in range(3)]
    states, actions = tiny_world.normalizer.normalize(torch.from_numpy(starts)).expand(3, -1, -1), torch.full((3, 8, 3), 0.1)
    dynamics = tiny_world.models.dynamics
    unknown = dynamics.recall(states, actions, states, known=torch.zeros(3, 8, dtype=torch.bool))
    each = dynamics.only(range(3)).each(states, actions, unknown)
    for member in range(3):
        expected = tiny_world.normalizer.denormalize(each[member]).numpy()
        np.testing.assert_allclose(dreamt[member].observations[:, 1], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(tiny_world.models.dynamics.elites, elites)  # the world itself is as it was


def test_members_are_asked_one_by_one_from_the_same_starts(tiny_world) -> None:
    found = returns_by_member(tiny_world, policy(tiny_world), 5, horizon=20, seed=3)
    again = [dream_returns(alone(tiny_world, m), policy(tiny_world), 5, horizon=20, iterations=0, seed=3).returns.mean() for m in range(3)]
    assert found.shape == (3,) and len(set(found)) == 3
    np.testing.assert_array_equal(found, again)


@given(arrays(float, (4, 5), elements=st.integers(-5, 5)))
def test_consensus_is_of_orders_not_of_numbers(returns: np.ndarray) -> None:
    policies = {str(i): row for i, row in enumerate(returns)}
    found = consensus(policies)
    assert -1 <= found <= 1 + 1e-12
    assert consensus({name: np.exp(row) for name, row in policies.items()}) == pytest.approx(found)


def test_consensus_of_known_orders() -> None:
    assert consensus({"a": np.array([0.0, 1, 2]), "b": np.array([5.0, 6, 7])}) == pytest.approx(1)
    assert consensus({"a": np.array([0.0, 9]), "b": np.array([5.0, 6])}) == pytest.approx(-1)


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
    assert several["consensus"] == pytest.approx(consensus(by_member)) and all(len(each) == 3 for each in by_member.values())
    told = " ".join(run("--policy", "random", "--policy", "acts:still", *world).split())
    assert ("alike" if several["consensus"] >= AGREED else "do not go by this order") in told
    one = json.loads(run("--policy", "acts:still", *world, "--json"))
    np.testing.assert_array_equal(one["return_by_member"], by_member["acts:still"])


def test_a_world_of_one_member_has_nothing_to_compare(hopper_dataset, tmp_path) -> None:
    short = {name: replace(getattr(TINY, name), steps=2, evaluate_every=1) for name in vars(TINY) if name.endswith("_training")}
    preset = replace(TINY, dynamics=replace(TINY.dynamics, members=1, elites=1), **short)
    World.fit(hopper_dataset, preset=preset, out=tmp_path / "world")
    words = ["evaluate", "--policy", "random", "--world", str(tmp_path / "world"), "--horizon", "5", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "return_by_member" not in json.loads(result.stdout)
