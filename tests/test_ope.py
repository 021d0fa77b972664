"""Off-policy evaluation ranks policies by their dreams and says how well that agrees with reality."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from typer.testing import CliRunner

from dydiff_env.agents import BC
from dydiff_env.cli.app import app
from dydiff_env.data.simulator import describe
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.ope import (
    agreement,
    dream_returns,
    rank,
    rank_correlation,
    table,
)
from dydiff_env.evaluation.scores import Episodes, evaluate_returns
from dydiff_env.policies import as_policy


def constant(value: float):
    return lambda observations: torch.full((len(observations), 3), value)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, float).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert rank_correlation(first, second) == 0
    else:
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_policies_are_ranked_in_dream_and_reality(tiny_world) -> None:
    policies = {f"{v}": as_policy(constant(v), tiny_world.spec) for v in (-0.9, 0.0, 0.1)}
    dreamt = rank(tiny_world, policies, episodes=6, horizon=40)
    means = [found.returns.mean() for found in dreamt.values()]
    assert means == sorted(means, reverse=True)
    real = {name: evaluate_returns(policy, "Hopper-v5", 2) for name, policy in policies.items()}
    found = agreement(dreamt, real)
    assert -1 <= found.spearman <= 1 and 0 <= found.regret <= 1 and found.real_range > 0
    rows = table(dreamt, real)
    assert [row["policy"] for row in rows] == list(dreamt)
    assert all(row["dream_ci"][0] <= row["dream_return"] <= row["dream_ci"][1] for row in rows)
    with pytest.raises(DyDiffError, match="same policies"):
        agreement(dreamt, dict(list(real.items())[:2]))


def with_limit(env_spec: str, steps: int) -> str:
    return json.dumps(json.loads(env_spec) | {"max_episode_steps": steps})


def test_all_policies_dream_from_the_same_starts_for_the_source_limit(tiny_world) -> None:
    assert tiny_world.episode_limit == 1000
    logged = replace(tiny_world, spec=replace(tiny_world.spec, env_spec=None))
    assert logged.episode_limit == tiny_world.record["dataset"]["longest"] < 1000
    endless = replace(tiny_world, spec=replace(tiny_world.spec, env_spec=with_limit(str(tiny_world.spec.env_spec), 10**6)))
    assert endless.episode_limit == 1000
    policy = as_policy(constant(0.0), tiny_world.spec)
    one, again = (dream_returns(tiny_world, policy, 5, horizon=8, seed=3).returns for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_an_interval_counts_starts_not_copies(tiny_world) -> None:
    few = replace(tiny_world, initial_bank=tiny_world.initial_bank[:4])
    found = dream_returns(few, as_policy(constant(0.0), few.spec), 60, horizon=8)
    assert found.starts is not None and found.starts.max() == 3 and len(found.starts) == 60
    values = np.random.default_rng(0).normal(size=20)
    low, high = Episodes(values, np.ones(20)).interval()
    copies = Episodes(values.repeat(30), np.ones(600), np.arange(20).repeat(30))
    assert copies.interval() == pytest.approx((low, high))
    assert copies.document()["return_ci"] == table({"a": copies})[0]["dream_ci"] == list(copies.interval())


def test_agreement_of_known_numbers() -> None:
    def episodes(value: float) -> Episodes:
        return Episodes(np.array([value, value]), np.array([1, 1]))

    real = {name: episodes(value) for name, value in {"a": 0, "b": 50, "c": 100}.items()}
    dreamt = {name: episodes(value) for name, value in {"a": 10, "b": 90, "c": 80}.items()}
    found = agreement(dreamt, real)
    assert found.spearman == pytest.approx(0.5) and found.regret == pytest.approx(0.5)
    assert found.mean_absolute_error == pytest.approx((10 + 40 + 20) / 300)
    alike = agreement(dreamt, dict.fromkeys(real, episodes(7)))
    assert alike.real_range == 0 and np.isnan([alike.regret, alike.mean_absolute_error]).all()  # shares of nothing


def test_the_command_ranks_policies_and_compares_with_reality(tiny_world_path, tmp_path, monkeypatch) -> None:
    def run(*words: object) -> dict:
        result = CliRunner().invoke(app, ["evaluate", *map(str, words), "--device", "cpu", "--json"])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    (tmp_path / "still.py").write_text("def act(observations):\n    return 0 * observations[:, :3]\n")
    monkeypatch.chdir(tmp_path)
    several = ["--policy", "random", "--policy", "still:act", "--episodes", 2]
    dreamt = run(*several, "--world", tiny_world_path, "--horizon", 20)
    returns = [row["dream_return"] for row in dreamt["policies"]]
    assert returns == sorted(returns, reverse=True) and len(returns) == 2 and "agreement" not in dreamt
    both = run(*several, "--world", tiny_world_path, "--env", "Hopper-v5", "--horizon", 20, "--plot", tmp_path / "ope.png")
    assert {row["policy"] for row in both["policies"]} == {"random", "still:act"}
    assert all(row["real_length"] <= 20 and row["dream_length"] <= 20 for row in both["policies"])
    assert set(both["agreement"]) == {"spearman", "regret", "mean_absolute_error", "real_range"}
    assert (tmp_path / "ope.png").stat().st_size > 1000
    real = run(*several, "--env", "Hopper-v5")
    assert all("real_length" in row and "dream_return" not in row for row in real["policies"])


def test_an_interval_knows_that_one_start_can_end_in_many_ways() -> None:
    values = np.random.default_rng(0).normal(size=100)
    low, high = Episodes(values, np.ones(100), np.zeros(100, int)).interval()
    free = Episodes(values, np.ones(100)).interval()
    assert low < values.mean() < high and high - low == pytest.approx(free[1] - free[0], rel=0.2)


@pytest.mark.parametrize("name, said", [("x.abc", "picture of no known kind"), ("nowhere/x.png", "no folder")])
def test_a_plot_that_cannot_be_drawn_is_refused_before_the_work(tiny_world_path, tmp_path, name: str, said: str) -> None:
    words = ["evaluate", "--policy", "random", "--world", tiny_world_path, "--env", "Hopper-v5", "--plot", tmp_path / name]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2 and said in result.stderr


def test_an_environment_without_a_limit_is_evaluated_for_a_horizon(tmp_path) -> None:
    gym.register("Endless-v0", entry_point="gymnasium.envs.classic_control:PendulumEnv")
    words = ["evaluate", "--policy", "random", "--env", "Endless-v0", "--episodes", "2", "--json"]
    assert CliRunner().invoke(app, words).exit_code == 1
    spec = replace(describe("Pendulum-v1"), ref_min_score=-9.0, ref_max_score=0.0)
    BC(spec).save(tmp_path / "bc.pt")
    part = CliRunner().invoke(app, ["evaluate", "--policy", str(tmp_path / "bc.pt"), "--episodes", "1", "--horizon", "5", "--json"])
    assert part.exit_code == 0 and "normalized_score" not in json.loads(part.stdout)  # which is of whole episodes
    result = CliRunner().invoke(app, [*words, "--horizon", "5"])
    assert result.exit_code == 0 and json.loads(result.stdout)["length_mean"] == 5
