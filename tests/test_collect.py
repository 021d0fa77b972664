"""Behaviour data from real simulators: what is recorded is what happened."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.data.collect import CollectConfig, collect_maze, collect_policy, collect_tier
from dydiff_env.data.d4rl import _scores, import_d4rl
from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.flattening import unflatten_batch
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.recorder import EpisodeRecorder, record
from dydiff_env.data.registry import Destination
from dydiff_env.data.simulator import describe, make_env, warnings_once
from dydiff_env.data.training_run import TrainingRun, TrainingRunConfig
from dydiff_env.data.waypoint import WaypointConfig, WaypointController, next_cells
from dydiff_env.errors import DyDiffError

FEW = CollectConfig(steps=600, num_envs=4, score_episodes=4)


def still(observations: np.ndarray) -> np.ndarray:
    return np.zeros((len(observations), 3))


class Mute(gym.Env):
    """Its package does not fit another's version, and says nothing."""

    def __init__(self) -> None:
        raise AssertionError


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    return lambda observations: rng.uniform(-2, 2, (len(observations), 3))


def mujoco_transition(env: gym.Env, observation, action):
    """What the simulator makes of a state that a Hopper observation determines."""
    base = env.unwrapped
    base.set_state(np.concatenate([[0.0], observation[:5]]), observation[5:])
    return base.step(action)


def test_recorded_transitions_are_the_simulators_own_and_none_crosses_a_reset():
    episodes = list(record("Hopper-v5", drawn(0), steps=400, num_envs=3, seed=0))
    assert sum(len(episode.rewards) for episode in episodes) == 400
    assert sum(not episode.terminated for episode in episodes) <= 3  # those cut off at the end
    with make_env("Hopper-v5") as env:
        env.reset()
        for episode in episodes[:6]:
            assert (np.abs(episode.actions) <= 1).all()
            for t in range(len(episode.rewards)):
                observation, reward, terminated, _, _ = mujoco_transition(
                    env, episode.observations[t].astype(np.float64), episode.actions[t])
                np.testing.assert_allclose(observation, episode.observations[t + 1], atol=1e-2)
                np.testing.assert_allclose(reward, episode.rewards[t], atol=1e-2)
                assert terminated == (episode.terminated and t == len(episode.rewards) - 1)


def test_time_outs_are_told_from_terminals():
    cut = list(record("Hopper-v5", still, episodes=5, num_envs=2, max_episode_steps=6))
    assert [len(episode.rewards) for episode in cut] == [6] * 5
    assert not any(episode.terminated for episode in cut)
    assert all(episode.terminated for episode in record("Hopper-v5", drawn(1), episodes=5, num_envs=2))


def test_the_same_seed_records_the_same():
    one, other = (list(record("Hopper-v5", drawn(3), steps=100, num_envs=2, seed=7)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)


def test_the_shortest_way_through_a_maze():
    cells = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1), (5, 5)]
    table = next_cells(cells)
    at, steps = cells.index((1, 1)), 0
    while at != cells.index((3, 1)):
        at, steps = table[at, cells.index((3, 1))], steps + 1
    assert steps == 6
    assert table[cells.index((1, 1)), cells.index((5, 5))] == cells.index((1, 1))  # no way there


def test_a_maze_is_walked_from_goal_to_goal(tmp_path):
    told = collect_maze("PointMaze_UMaze-v3", Destination("demo/umaze-v0", tmp_path / "maze"),
                        CollectConfig(steps=1500, num_envs=3, score_episodes=3))
    assert told["ref_max_score"] > 2 > told["ref_min_score"]
    theirs = minari.MinariDataset(tmp_path / "maze")
    assert theirs.total_steps == 1500 and isinstance(theirs.observation_space, gym.spaces.Dict)
    with theirs.recover_environment() as env:
        assert env.unwrapped.reset_target and env.unwrapped.continuing_task
    data = load_dataset(tmp_path / "maze")
    assert set(np.unique(data.rewards)) == {0, 1} and not data.terminations.any()
    goals_of_an_episode = len(np.unique(data.episode(0).observations[:, 2:4], axis=0))
    assert goals_of_an_episode > 1  # it goes on after a goal is reached
    assert np.abs(np.asarray(data.actions)).max() <= 1


def test_a_training_run_is_recorded_whole_with_scores_and_policies(tmp_path):
    told = collect_tier("Hopper-v5", Destination("demo/mr-v0", tmp_path / "mr"),
                        CollectConfig(steps=2048, tier="medium-replay", algorithm="ppo", score_episodes=4))
    data = load_dataset(tmp_path / "mr")
    assert data.transitions == 2048 == told["transitions"]
    assert data.spec.ref_max_score > data.spec.ref_min_score
    assert data.terminations.mean() > 0.9
    names = {file.name for file in (tmp_path / "mr-policies").iterdir()}
    assert names == {f"{level}{end}" for level in ("medium", "expert")
                     for end in (".pt", ".sb3.zip", ".vecnormalize.pkl")}
    module = torch.jit.load(tmp_path / "mr-policies" / "expert.pt")
    actions = module(torch.from_numpy(np.array(data.observations[:5]))).detach()
    assert actions.shape == (5, 3) and (actions.abs() <= 1).all()


def test_the_saved_policy_acts_as_stable_baselines_does(tmp_path):
    from sb3_contrib import TRPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    run = TrainingRun("Pendulum-v1", TrainingRunConfig("trpo", 2048), lambda episode: None)
    run.train()
    run.save(run.best(), tmp_path, "best")
    normalize = VecNormalize.load(str(tmp_path / "best.vecnormalize.pkl"),
                                  DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    observations = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)
    theirs, _ = TRPO.load(tmp_path / "best.sb3.zip").predict(normalize.normalize_obs(observations), deterministic=True)
    ours = torch.jit.load(tmp_path / "best.pt")(torch.from_numpy(observations)).detach()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["sac", "td3", "tqc", "crossq"])
def test_every_algorithm_trains_and_its_policy_is_in_environment_units(algorithm, tmp_path):
    episodes = []
    steps = 4
    run = TrainingRun("Pendulum-v1", TrainingRunConfig(algorithm, steps, snapshots=2), episodes.append)
    run.train()
    run.save(run.medium(-2000.0), tmp_path, "medium")
    recorded = sum(len(episode.rewards) for episode in episodes)
    assert recorded >= steps
    actions = torch.jit.load(tmp_path / "medium.pt")(torch.randn(64, 3)).detach()
    assert actions.shape == (64, 1) and (actions.abs() <= 2).all()


def test_medium_expert_is_half_of_each(tmp_path):
    told = collect_tier("Hopper-v5", Destination("demo/me-v0", tmp_path / "me"),
                        CollectConfig(steps=600, tier="medium-expert", algorithm="trpo", train_steps=2048,
                                      num_envs=4, score_episodes=2))
    assert told["transitions"] == 600 and len(told["policies"]) == 2
    assert json.loads(minari.MinariDataset(tmp_path / "me").storage.metadata["dydiff_env"])["train_steps"] == 2048


def test_a_maze_pays_as_its_id_says(tmp_path):
    collect_maze("PointMaze_UMazeDense-v3", Destination(out=tmp_path / "dense"), CollectConfig(steps=100, num_envs=2, score_episodes=1))
    assert len(np.unique(load_dataset(tmp_path / "dense").rewards)) > 50


class Cart(gym.Env):
    """Its space is made of keywords, which Gymnasium does not sort."""

    observation_space = gym.spaces.Dict(
        velocity=gym.spaces.Box(-np.inf, np.inf, (1,)), position=gym.spaces.Box(-np.inf, np.inf, (2,))
    )
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        return self._seen(), 0.0, False, self.t == 4, {}

    def _seen(self):
        return {"velocity": np.array([100.0 + self.t], np.float32), "position": np.array([self.t, -self.t], np.float32)}


def test_parts_of_an_observation_are_recorded_in_the_datasets_order():
    episodes = []
    env = EpisodeRecorder(Cart(), episodes.append)
    env.reset()
    for _ in range(4):
        env.step(env.action_space.sample())
    data = Dataset.from_episodes(DatasetSpec(Cart.observation_space, Cart.action_space), episodes)
    seen = unflatten_batch(data.spec.observation_space, data.observations)
    np.testing.assert_array_equal(seen["velocity"][:, 0], 100 + np.arange(5))
    np.testing.assert_array_equal(seen["position"], np.stack([np.arange(5), -np.arange(5)], 1))


def test_what_a_log_was_recorded_inside_is_not_left_out():
    inside = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0).spec.to_json()
    with pytest.raises(DyDiffError, match="Pendulum-v1 inside RescaleAction"):
        make_env(inside)
    watched = gym.wrappers.RecordEpisodeStatistics(gym.make("Pendulum-v1")).spec.to_json()
    make_env(watched).close()


def test_a_given_policy_is_recorded(tmp_path):
    told = collect_policy("Hopper-v5", Destination(out=tmp_path / "own-v2"), FEW, lambda spec: still, "still")
    data = load_dataset(tmp_path / "own-v2")
    assert told["transitions"] == 600 and (np.asarray(data.actions) == 0).all()
    assert data.spec.dataset_id == "local/own-v2"


def test_failures_leave_nothing_behind(tmp_path):
    def breaks(spec):
        def act(observations):
            raise DyDiffError("no action")

        return act

    with pytest.raises(DyDiffError, match="no action"):
        collect_policy("Hopper-v5", Destination(out=tmp_path / "x"), FEW, breaks, "broken")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DyDiffError, match="Discrete"):
        describe("CartPole-v1")
    with pytest.raises(DyDiffError, match="cannot be made"):
        describe("Hoper-v5")
    gym.register("Mute-v0", Mute)
    with pytest.raises(DyDiffError, match=r"Mute-v0 cannot be made: AssertionError at .*test_collect.py:\d+"):
        describe("Mute-v0")


def test_native_warnings_are_shown_once(capfd):
    for _ in range(3):
        with warnings_once():
            make_env("HalfCheetah-v5").close()
    assert capfd.readouterr().err.count("settotalmass") <= 1
    with warnings_once():
        os.write(2, b"a line\nanother\na line\n")  # a vector of environments says the same many times at once
    assert capfd.readouterr().err.splitlines() == ["a line", "another"]


@pytest.mark.parametrize("arguments, code, words", [
    (["Hopper-v5"], 2, "--dataset-id"),
    (["Hopper-v5", "--dataset-id", "unversioned"], 2, "NAMESPACE/NAME-vK"),
    (["Hopper-v5", "--dataset-id", "tests/wrong-v0", "--tier", "best"], 2, "medium-replay"),
    (["Hopper-v5", "--dataset-id", "tests/wrong-v0", "--algorithm", "dqn"], 2, "sac"),
    (["PointMaze_UMaze-v3", "--dataset-id", "tests/wrong-v0", "--tier", "expert"], 2, "no tiers"),
    (["Hopper-v5", "--dataset-id", "tests/wrong-v0", "--policy", "nothing.pt"], 1, "no policy file"),
    (["CartPole-v1", "--dataset-id", "tests/wrong-v0"], 1, "Discrete"),
])
def test_wrong_usage_ends_in_one_line_and_its_fix(arguments, code, words):
    result = CliRunner().invoke(app, ["collect", *arguments])
    assert result.exit_code == code and words in result.output and "Traceback" not in result.output
    with pytest.raises(DyDiffError):
        load_dataset("tests/wrong-v0")


def test_the_command_records_a_saved_policy(tmp_path, tiny_policy):
    result = CliRunner().invoke(app, ["collect", "Hopper-v5", "--policy", str(tiny_policy), "--steps", "200",
                                      "--dataset-id", "tests/given-v0", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["transitions"] == 200
    episode = minari.load_dataset("tests/given-v0")[0]
    actions = torch.jit.load(tiny_policy)(torch.from_numpy(episode.observations[:-1]).float()).detach()
    np.testing.assert_allclose(episode.actions, actions, atol=1e-5)
    report = json.loads(CliRunner().invoke(app, ["inspect", "tests/given-v0", "--json"]).stdout)
    assert (report["kind"], report["transitions"], report["env"]) == ("dataset", 200, "Hopper-v5")


@pytest.fixture
def tiny_policy(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(11, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3), torch.nn.Tanh())
    path = tmp_path / "policy.pt"
    torch.jit.trace(network, torch.zeros(1, 11)).save(str(path))
    return path


@pytest.mark.parametrize(("tier", "steps"), [("medium", 0), ("medium-replay", 299)])
def test_a_tier_needs_a_policy_that_was_trained_long_enough(tmp_path, tier, steps):
    config = CollectConfig(steps=300, tier=tier, algorithm="trpo", train_steps=steps)
    with pytest.raises(DyDiffError, match="trained for at least"):
        collect_tier("Hopper-v5", Destination(out=tmp_path / "data"), config)
    assert not list(tmp_path.iterdir())


def test_only_policies_take_the_place_of_policies(tmp_path):
    """Those of a dataset that is replaced may be what the new one records."""
    out = Destination(out=tmp_path / "data-0.5", overwrite=True)
    sizes = {"steps": 40, "algorithm": "trpo", "num_envs": 2, "score_episodes": 1}
    first = collect_tier("Hopper-v5", out, CollectConfig(tier="medium", train_steps=2048, **sizes))
    assert all(Path(file).exists() for file in first["policies"]) and first["policies"]
    assert {Path(file).parent.name for file in first["policies"]} == {"data-0.5-policies"}
    still = collect_policy("Hopper-v5", out, CollectConfig(**sizes), lambda spec: lambda o: np.zeros((len(o), 3)), "still")
    assert still["policies"] == [] and all(Path(file).exists() for file in first["policies"])
    second = collect_tier("Hopper-v5", out, CollectConfig(tier="random", **sizes))
    assert len(second["policies"]) == 1 and not any(Path(file).exists() for file in first["policies"])
    (tmp_path / "data-0.5-policies" / "mine.txt").write_text("precious")
    with pytest.raises(DyDiffError, match=r"holds mine\.txt: it stays"):
        collect_tier("Hopper-v5", out, CollectConfig(tier="random", **sizes))


def d4rl_file(path, *, successors: bool, timeouts: bool = True):
    """Three episodes of 4, 3 and 2 steps: terminal, out of time, and cut by the file's end. States count upwards."""
    terminals, ends = np.zeros(9, bool), np.zeros(9, bool)
    terminals[3], ends[6] = True, True
    states = np.concatenate([np.arange(4), 10 + np.arange(3), 20 + np.arange(2)])[:, None].astype(np.float32)
    with h5py.File(path, "w") as file:
        file["observations"] = states.repeat(11, 1)
        file["actions"] = np.linspace(-1, 1, 27, dtype=np.float32).reshape(9, 3)
        file["rewards"] = np.ones(9, np.float32)
        file["terminals"] = terminals
        if timeouts:
            file["timeouts"] = ends
        if successors:
            file["next_observations"] = states.repeat(11, 1) + 1
    return path


def test_a_d4rl_file_with_successors_keeps_every_transition(tmp_path):
    file = d4rl_file(tmp_path / "hopper-medium-v2.hdf5", successors=True)
    done = import_d4rl(file, tmp_path / "out", "d4rl/hopper-v0", env="Hopper-v5")
    assert (done.episodes, done.transitions, done.terminated, done.dropped, done.repeated) == (3, 9, 1, 0, 0)
    data = load_dataset(tmp_path / "out")
    assert [data.episode(i).observations[-1, 0] for i in range(3)] == [4, 13, 22]
    assert data.terminations.tolist() == [True, False, False]
    assert data.spec.ref_max_score == 3234.3
    minari.MinariDataset(tmp_path / "out").recover_environment().close()


def test_a_d4rl_file_without_successors_invents_no_transition_across_episodes(tmp_path):
    file = d4rl_file(tmp_path / "mine.hdf5", successors=False)
    done = import_d4rl(file, tmp_path / "out", "d4rl/mine-v0", scores=(1.0, 2.0))
    assert (done.transitions, done.terminated, done.dropped, done.repeated) == (7, 1, 2, 1)
    data = load_dataset(tmp_path / "out")
    assert data.episode(0).observations[:, 0].tolist() == [0, 1, 2, 3, 3]
    assert data.episode(1).observations[:, 0].tolist() == [10, 11, 12]
    assert (data.spec.env_spec, data.spec.ref_min_score) == (None, 1.0)


def test_what_is_no_d4rl_file_is_refused(tmp_path):
    with pytest.raises(DyDiffError, match="no file"):
        import_d4rl(tmp_path / "x.hdf5", tmp_path / "out", "d4rl/x-v0")
    (tmp_path / "bad.hdf5").write_bytes(b"not hdf5")
    with pytest.raises(DyDiffError, match="cannot be read"):
        import_d4rl(tmp_path / "bad.hdf5", tmp_path / "out", "d4rl/x-v0")
    file = d4rl_file(tmp_path / "a.hdf5", successors=True)
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileExistsError, match="taken"):  # not the file's fault
        import_d4rl(file, tmp_path / "taken" / "out", "d4rl/x-v0")
    with pytest.raises(DyDiffError, match="has 11 observations and 3 actions"):
        import_d4rl(file, tmp_path / "out", "d4rl/x-v0", env="Pendulum-v1")
    with h5py.File(file, "r+") as data:
        data["rewards"][7] = np.nan
    with pytest.raises(DyDiffError, match=r"episode 2 .*rewards"):
        import_d4rl(file, tmp_path / "out", "d4rl/x-v0")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


def test_import_d4rl_from_the_command_line(tmp_path):
    file = d4rl_file(tmp_path / "hopper.hdf5", successors=True, timeouts=False)
    result = CliRunner().invoke(app, ["import-d4rl", str(file), "--dataset-id", "tests/d4rl-v0", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["episodes"] == 3  # a break that next_observations shows is a time-out
    assert minari.load_dataset("tests/d4rl-v0").total_steps == 9


def test_noise_on_a_given_policy_stays_in_the_space_and_is_decided_by_the_seed(tmp_path):
    def noisy(name: str, seed: int) -> np.ndarray:
        config = replace(FEW, noise=0.5, seed=seed)
        collect_policy("Hopper-v5", Destination(out=tmp_path / name), config, lambda spec: still, "still")
        return np.asarray(load_dataset(tmp_path / name).actions)

    one, same, other = noisy("a", 1), noisy("b", 1), noisy("c", 2)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.abs(one).max() <= 1 and 0.4 < one.std() < 0.55
    result = CliRunner().invoke(app, ["collect", "Hopper-v5", "--noise", "0.1", "--dataset-id", "tests/wrong-v0"])
    assert result.exit_code == 2 and "--noise" in result.output


def test_odd_numbers_of_steps_are_recorded_too(tmp_path):
    config = CollectConfig(steps=301, tier="medium-expert", algorithm="trpo", train_steps=2048, num_envs=4, score_episodes=2)
    assert collect_tier("Hopper-v5", Destination(out=tmp_path / "odd"), config)["transitions"] == 301


@pytest.mark.parametrize("name, expected", [
    ("antmaze-umaze-v0.hdf5", (0.0, 1.0)),
    ("Ant_maze_u-maze_noisy_multistart_False.hdf5", (0.0, 1.0)),
    ("ant_medium-v2.hdf5", (-325.6, 3879.7)),
    ("maze2d-umaze-dense-v1.hdf5", (68.537689, 193.66285642381482)),
    ("maze2d-umaze-sparse-v1.hdf5", (23.85, 161.86)),
    ("mine.hdf5", None),
    ("pendulum-replay-v0.hdf5", None),
    ("anthill.hdf5", None),
])
def test_reference_scores_are_those_of_the_files_own_task(name, expected):
    assert _scores(Path(name)) == expected


def test_walkers_are_clumsy_by_degrees_and_their_noise_lasts():
    with make_env("PointMaze_UMaze-v3") as env:
        space, maze = env.observation_space, env.unwrapped.maze
    at_goal = np.zeros((5, 8), np.float32)  # at the goal and still: what they do is noise alone
    at_goal[:, :2] = at_goal[:, 2:4] = at_goal[:, 4:6] = maze.cell_rowcol_to_xy(np.array([1, 1]))
    walk = WaypointController(maze, space, WaypointConfig(noise=0.1, memory=0.9), seed=0)
    actions = np.stack([walk(at_goal) for _ in range(8000)])  # (T, B, 2)
    np.testing.assert_allclose(actions.std((0, 2)), [0, 0.05, 0.1, 0.15, 0.2], atol=0.02)
    lag = (actions[1:, 4] * actions[:-1, 4]).mean() / (actions[:, 4] ** 2).mean()
    assert abs(lag - 0.9) < 0.03
    first = np.stack([WaypointController(maze, space, walk._config, seed)(at_goal)[4] for seed in range(400)])
    assert abs(first.std() - 0.2) < 0.02  # from the first step on


class Line(gym.Env):
    """A point on a line, moved by any number."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.float32(action), 0.0, False, False, {}


@pytest.fixture
def line(monkeypatch):
    for name, entry in (("Line-v0", f"{__name__}:Line"), ("LineByClass-v0", Line)):
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, entry, max_episode_steps=5))


def test_environments_of_ones_own_are_refused_with_what_to_do(line, tmp_path):
    place, stay = Destination(out=tmp_path / "line"), lambda spec: lambda observations: 0 * observations
    assert collect_policy("Line-v0", place, FEW, stay, "stay")["transitions"] == 600
    with pytest.raises(DyDiffError, match="half an action's range"):
        collect_policy("Line-v0", place, replace(FEW, noise=0.5), stay, "stay")
    with pytest.raises(DyDiffError, match="actions without bounds"):
        collect_tier("Line-v0", place, FEW)
    with pytest.raises(DyDiffError, match='entry_point="module:Class"'):
        collect_policy("LineByClass-v0", place, FEW, stay, "stay")
