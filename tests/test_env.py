"""DyDiffDream-v0 keeps Gymnasium's promises and its own: the plan is followed, left, and re-imagined as documented."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import dydiff_env.envs
from dydiff_env.envs.dreams import _fate
from dydiff_env.envs.interface import flat_actions, structured
from dydiff_env.envs.rendering import NumbersRenderer
from dydiff_env.envs.sb3 import DreamVecEnv
from dydiff_env.envs.worlds import find_world
from dydiff_env.envs.wrappers import UncertaintyPenalty, UncertaintyStop, VectorUncertaintyPenalty
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import as_policy, load_policy
from dydiff_env.world.trust import Trust
from dydiff_env.world.world import World

dydiff_env.envs.register()


class Push:
    """A policy with feedback that needs no file."""

    def act(self, observations: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        actions = 0.4 * torch.tanh(observations[:, 1:4] * 3 - observations[:, 5:8])
        return actions if deterministic else actions + 0.1 * torch.randn_like(actions)


def make(world, **options) -> gym.Env:
    return gym.make("DyDiffDream-v0", world=world, **options)


def make_vec(world, count: int, **options) -> gym.vector.VectorEnv:
    return gym.make_vec("DyDiffDream-v0", num_envs=count, world=world, **options)


def act(observations: np.ndarray) -> np.ndarray:
    return Push().act(torch.as_tensor(np.float32(observations)).reshape(-1, 11)).numpy()


@pytest.mark.parametrize("policy", [None, Push()])
def test_gymnasium_and_sb3_checkers_pass_without_warnings(tiny_world_path, policy) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    env = make(tiny_world_path, policy=policy, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # the spaces are the source environment's, which has no bounds either
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity.*")
        warnings.filterwarnings("ignore", message="Drawing numbers")
        check_env(env.unwrapped)
        sb3_check_env(env)


def test_spaces_and_dtypes_are_the_sources(tiny_world, hopper_dataset) -> None:
    env = make(tiny_world)
    assert env.observation_space == hopper_dataset.spec.observation_space
    assert env.action_space == hopper_dataset.spec.action_space
    observation, _ = env.reset(seed=0)
    assert observation.dtype == env.observation_space.dtype


@pytest.mark.parametrize("windows", [1.0, 1.6, 2.1])
def test_following_the_plan_is_the_refined_dream(tiny_world, windows: float) -> None:
    horizon = round(tiny_world.horizon * windows)  # chained windows, the last one partly, and its last patch, too
    trust = Trust(torch.tensor([1.0] * tiny_world.spec.observation_size + [0.0]), 0.7)  # when it ends is not drawn
    some = tiny_world.dream(Push(), tiny_world.sample_starts(512), horizon, 2, trust=trust)
    starts = some.observations[[some.lengths.argmax()], 0]
    dream = tiny_world.dream(as_policy(Push(), tiny_world.spec), starts, horizon, 2, trust=trust)
    assert dream.lengths[0] > 0.8 * horizon
    env = make(tiny_world, policy=Push(), horizon=horizon, iterations=2)
    env.unwrapped.dreams.trust = trust
    observation, _ = env.reset(seed=0, options={"observation": starts[0]})
    for t in range(int(dream.lengths[0])):
        np.testing.assert_allclose(observation, dream.observations[0, t], atol=1e-4)
        observation, reward, terminated, truncated, info = env.step(dream.actions[0, t])
        assert not info["replanned"] and info["window_step"] == t % tiny_world.horizon
        assert reward == pytest.approx(dream.rewards[0, t], abs=1e-4)
        assert info["uncertainty"] == pytest.approx(dream.uncertainties[0, t], abs=1e-4)
    assert terminated == dream.terminations[0] and truncated == (not terminated)


@pytest.mark.parametrize("lazy", [True, False])
def test_leaving_the_plan_reimagines_from_the_present(tiny_world, lazy: bool) -> None:
    """Short windows lengthened later and whole windows at once show the same states."""
    policy = as_policy(Push(), tiny_world.spec)
    env = make(tiny_world, policy=policy, horizon=60, iterations=2)
    assert env.unwrapped.dreams.first_steps == 4
    if not lazy:
        env.unwrapped.dreams.first_steps = 0
    observation, _ = env.reset(seed=1)
    for _ in range(3):
        before = np.concatenate([observation, act(observation)[0]])[None]  # the world remembers a step
        observation, *_ = env.step(act(observation)[0])
    wrong = np.clip(act(observation)[0] + 0.3, -1, 1)
    further = np.array([tiny_world.horizon])  # a window follows: 60 steps are longer than one
    expected = tiny_world.dream(
        policy, np.float32(observation)[None], None, 2, first_actions=wrong[None], before=before, goes_on=further
    )
    observation, reward, *_, info = env.step(wrong)
    assert info["replanned"] and info["window_step"] == 0
    assert reward == pytest.approx(expected.rewards[0, 0], abs=1e-4)
    for t in range(1, int(expected.lengths[0])):
        np.testing.assert_allclose(observation, expected.observations[0, t], atol=1e-4)
        observation, *_, info = env.step(expected.actions[0, t])
        assert not info["replanned"]


def test_without_a_policy_only_the_action_counts(tiny_world) -> None:
    env = make(tiny_world)
    observation, _ = env.reset(seed=5)
    begun = (tiny_world.start_bank == observation).all(1)  # the world remembers a step, at first that before the drawn start
    assert begun.sum() == 1
    before = tiny_world.before_bank[begun]
    for _ in range(4):
        action = env.action_space.sample()
        expected = tiny_world.dream(None, np.float32(observation)[None], 1, first_actions=action[None], before=before)
        before = np.concatenate([observation, action])[None]
        observation, _, terminated, *_ = env.step(action)
        np.testing.assert_allclose(observation, expected.observations[0, 1], atol=1e-5)
        assert terminated == expected.terminations[0]
        if terminated:
            break


def test_when_a_refined_dream_ends_is_its_own_affair(tiny_world) -> None:
    """Where an end is a matter of likelihood, neither neighbours in a batch nor a plan lengthened later decide when."""
    batch = make_vec(tiny_world, 24, policy=Push(), horizon=70, iterations=2, autoreset_mode="NextStep")
    observations, _ = batch.reset(seed=0)
    lengths, over = np.zeros(24, int), np.zeros(24, bool)
    while not over.all():
        observations, _, terminated, truncated, _ = batch.step(act(observations))
        lengths += ~over
        over |= terminated | truncated
    for i in range(24):
        env = make(tiny_world, policy=Push(), horizon=70, iterations=2)
        observation, over, steps = env.reset(seed=i)[0], False, 0
        while not over:
            observation, _, terminated, truncated, _ = env.step(act(observation[None])[0])
            over, steps = terminated or truncated, steps + 1
        assert steps == lengths[i]
    assert len(set(lengths)) > 3


def test_fate_is_uniform_and_a_windows_own() -> None:
    seeds, began = np.arange(200, dtype=np.uint64).repeat(50), np.tile(np.arange(50), 200)
    fate = _fate(seeds, began)
    assert fate.min() >= 0 and fate.max() < 1 and len(np.unique(fate)) == 10_000
    assert np.histogram(fate, 10, (0, 1))[0] == pytest.approx(1000, abs=130)
    table = fate.reshape(200, 50)
    assert np.abs(np.corrcoef(table.T) - np.eye(50)).max() < 0.35


@pytest.mark.parametrize("policy", [None, Push()])
def test_a_row_of_the_batch_is_the_single_environment_of_its_seed(tiny_world, policy) -> None:
    batch = make_vec(tiny_world, 3, policy=policy, horizon=9, autoreset_mode="NextStep")
    singles = [make(tiny_world, policy=policy, horizon=9) for _ in range(3)]
    observations, _ = batch.reset(seed=7)
    alone = [env.reset(seed=7 + i)[0] for i, env in enumerate(singles)]
    over = np.zeros(3, bool)
    rng = np.random.default_rng(0)
    for t in range(25):
        np.testing.assert_allclose(observations, alone, atol=1e-4)
        actions = act(observations) if t % 3 else rng.uniform(-1, 1, (3, 3)).astype(np.float32)
        observations, rewards, terminated, truncated, infos = batch.step(actions)
        for i, env in enumerate(singles):
            if over[i]:
                alone[i], over[i] = env.reset()[0], False
                assert not infos["_uncertainty"][i]
                continue
            alone[i], reward, *ends, info = env.step(actions[i])
            assert [terminated[i], truncated[i]] == ends
            assert rewards[i] == pytest.approx(reward, abs=1e-4)
            assert infos["uncertainty"][i] == pytest.approx(info["uncertainty"], abs=1e-4)
            over[i] = any(ends)


def test_same_step_autoreset_keeps_the_last_observation(tiny_world) -> None:
    env = make_vec(tiny_world, 4, horizon=5, autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for _ in range(30):
        observations, _, terminated, truncated, infos = env.step(np.zeros((4, 3), np.float32))
        over = terminated | truncated
        assert over.any() == ("final_obs" in infos)
        if over.any():
            np.testing.assert_array_equal(infos["_final_obs"], over)
            row = int(np.flatnonzero(over)[0])
            assert infos["final_obs"][row] in env.single_observation_space
            assert not np.array_equal(infos["final_obs"][row], observations[row])
            assert infos["final_info"]["uncertainty"][row] > 0
        assert observations in env.observation_space


def test_disabled_autoreset_and_reset_mask(tiny_world) -> None:
    env = make_vec(tiny_world, 3, horizon=2, autoreset_mode="Disabled")
    actions = np.zeros((3, 3), np.float32)
    for seed in range(100):
        env.reset(seed=seed)
        if not env.step(actions)[2].any():  # a dream may end at its first step
            break
    before, _, terminated, truncated, _ = env.step(actions)
    assert (terminated | truncated).all()
    with pytest.raises(ResetNeeded):
        env.step(actions)
    after, _ = env.reset(options={"reset_mask": np.array([True, False, True])})
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.array_equal(after[0], before[0])
    for mask, error in (
        ([True] * 3, TypeError),
        (np.ones(2, bool), ValueError),
        (np.zeros(3, bool), ValueError),
    ):
        with pytest.raises(error):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError):
        env.reset(seed=[1, 2])
    starts = tiny_world.sample_starts(3, seed=9)
    given, _ = env.reset(options={"observation": starts})
    np.testing.assert_array_equal(given, starts)


def test_bounds_of_any_size_are_kept_to_the_last_digit() -> None:
    wide = gym.spaces.Box(-1000, 1000, (1,), np.float32)
    assert flat_actions(wide, np.nextafter(np.full((1, 1), 1000, np.float32), np.float32(np.inf)), 1) == 1000
    with pytest.raises(InvalidAction):
        flat_actions(wide, np.full((1, 1), 1000.1), 1)
    angle = gym.spaces.Box(-np.pi, np.pi, (1,), np.float64)
    assert structured(angle, np.full((1, 1), 4, np.float32))[0] in angle  # float32 has no number between π and its bound


@pytest.mark.parametrize("action", [np.zeros(2), np.full(3, np.nan), np.full(3, 1.5), "up", np.zeros((1, 3))])
def test_bad_actions_are_refused(tiny_world, action) -> None:
    env = make(tiny_world).unwrapped
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3, np.float32))
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)


def test_what_is_wrong_with_actions_is_said(tiny_world) -> None:
    env = make_vec(tiny_world, 4)
    env.reset(seed=0)
    narrow, far = np.zeros((3, 3)), np.full((4, 3), -2.0)
    for actions, said in ((narrow, r"\(3, 3\), but \(4, 3\)"), (far, "holds -2 where the space goes from -1 to 1")):
        with pytest.raises(InvalidAction, match=said):
            env.step(actions)


def test_a_limit_and_a_way_to_draw_are_taken_as_gymnasium_gives_them(tiny_world) -> None:
    env = gym.make_vec("DyDiffDream-v0", num_envs=2, max_episode_steps=3, world=tiny_world)
    env.reset(seed=0)
    assert env.unwrapped.dreams.horizon == 3
    with pytest.raises(DyDiffError, match="no render mode 'human'"):
        gym.make_vec("DyDiffDream-v0", num_envs=2, render_mode="human", world=tiny_world)


def test_no_seed_for_any_row_seeds_nothing(tiny_world) -> None:
    env = make_vec(tiny_world, 2, policy="random")
    env.reset(seed=0)
    first = env.unwrapped.dreams.noise.bit_generator.state
    env.reset(seed=[None, None])
    assert env.unwrapped.dreams.noise.bit_generator.state != first


def test_a_policy_that_draws_is_not_followed_into_the_next_window(tiny_world) -> None:
    """What it would do there is not known: only the caller's action is. The same seed and actions give the same observations."""
    either = lambda rows: torch.where(torch.rand(len(rows), 3) < 0.5, 1.0, -1.0)  # noqa: E731
    traces = []
    for global_seed in range(3):
        env = make(tiny_world, policy=either, horizon=4 * tiny_world.horizon).unwrapped
        observation, _ = env.reset(seed=0)
        torch.manual_seed(global_seed)
        trace = [observation]
        for _ in range(3 * tiny_world.horizon):
            observation, _, terminated, _, info = env.step(np.ones(3, np.float32))
            trace.append(observation)
            if terminated:
                break
            if not info["replanned"]:
                np.testing.assert_array_equal(env.dreams.plans.actions[0, env.dreams.position[0] - 1], 1.0)
        traces.append(np.array(trace))
    np.testing.assert_array_equal(traces[0], traces[1])
    np.testing.assert_array_equal(traces[0], traces[2])


def test_bad_options_are_named(tiny_world, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DyDiffError, match="nowhere is not a world"):
        make("nowhere")
    for options in (
        {"horizon": 0},
        {"iterations": -1},
        {"start": "middle"},
        {"policy": 3},
        {"policy": "absent.pt"},
    ):
        with pytest.raises(DyDiffError):
            make(tiny_world, **options)
    env = make(tiny_world)
    for observation in (np.zeros(3), np.full(11, np.nan), None, {"a": 1}):
        with pytest.raises(DyDiffError):
            env.reset(options={"observation": observation})


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_of_a_batch_go_on_alike(tiny_world, copier) -> None:
    env = make_vec(tiny_world, 3, policy=Push(), horizon=6)
    observations, _ = env.reset(seed=0)
    env.step(act(observations))
    twin = copier(env)
    for actions in np.random.default_rng(0).uniform(-1, 1, (9, 3, 3)).astype(np.float32):
        for one, other in zip(env.step(actions)[:4], twin.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_and_apart(tiny_world, copier) -> None:
    env = make(tiny_world, policy=Push(), render_mode="rgb_array").unwrapped
    observation, _ = env.reset(seed=0)
    while env.step(act(observation)[0])[2]:  # a dream may end at its first step
        observation, _ = env.reset()
    twin = copier(env)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32):
        one, other = env.step(action), twin.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]
        if one[2]:
            break


@pytest.fixture(scope="module")
def both(tiny_world) -> dict[bool, gym.Env]:
    """Without a policy and with one, made once for all of hypothesis' examples."""
    return {free: make(tiny_world, policy=None if free else Push(), horizon=8).unwrapped for free in (True, False)}


MOVES = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), moves=MOVES, free=st.booleans())
def test_random_resets_and_steps(both, seed: int, moves: list[float], free: bool) -> None:
    """Well over 1 000 steps: observations in their space, finite, and the same again under the same seed."""
    env, trace = both[free], []
    for _ in range(2):
        observation, _ = env.reset(seed=seed)
        rows = [observation]
        for move in moves:
            action = np.full(3, move, np.float32) if move < 0.5 else act(observation)[0]
            observation, reward, terminated, truncated, info = env.step(action)
            assert observation in env.observation_space and np.isfinite(observation).all()
            assert np.isfinite(reward) and np.isfinite(info["uncertainty"]) and info["uncertainty"] >= 0
            assert info["window_step"] < env.world.horizon
            rows.append(observation)
            if terminated or truncated:
                break
        trace.append(np.stack(rows))
    np.testing.assert_array_equal(*trace)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    where=st.integers(0, 2),
    value=st.one_of(st.floats(1.001, 1e30), st.floats(-1e30, -1.001), st.sampled_from([np.nan, np.inf, -np.inf])),
    shape=st.sampled_from([(3,), (3,), (2,), (4,), (1, 3), ()]),
)
def test_random_bad_actions_are_refused_and_cost_nothing(both, seed: int, where: int, value: float, shape) -> None:
    env = both[False]
    env.reset(seed=seed)
    bad = np.zeros(shape)
    if shape == (3,):
        bad[where] = value
    with pytest.raises(InvalidAction):
        env.step(bad)
    untouched = env.step(np.zeros(3, np.float32))
    env.reset(seed=seed)
    np.testing.assert_array_equal(untouched[0], env.step(np.zeros(3, np.float32))[0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_gymnasiums_vector_wrappers_see_whole_episodes(tiny_world, mode) -> None:
    if mode is AutoresetMode.SAME_STEP and tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4):
        pytest.skip("RecordEpisodeStatistics counts wrongly in this mode before Gymnasium 1.4")
    env = make_vec(tiny_world, 3, horizon=4, autoreset_mode=mode)
    assert env.metadata["autoreset_mode"] is mode and env.observation_space.shape == (3, 11)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    observations, _ = env.reset(seed=0)
    over, totals, found = np.zeros(3, bool), np.zeros(3), 0
    for _ in range(14):
        if mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
            totals[over] = 0
        again = over.copy()
        observations, rewards, terminated, truncated, infos = env.step(np.zeros((3, 3), np.float32))
        assert observations in env.observation_space and rewards.dtype == np.float64
        over = terminated | truncated
        totals = np.where(again & (mode is AutoresetMode.NEXT_STEP), 0.0, totals + rewards)
        for row in np.flatnonzero(over):
            episode = infos["episode"]
            assert episode["r"][row] == pytest.approx(totals[row], abs=1e-4) and episode["l"][row] <= 4
            found += 1
            if mode is AutoresetMode.SAME_STEP:
                totals[row] = 0
    assert found >= 6


def test_a_row_can_have_its_own_info(tiny_world) -> None:
    env = gym.wrappers.vector.DictInfoToList(make_vec(tiny_world, 3, horizon=4))
    env.reset(seed=0)
    infos = env.step(np.zeros((3, 3), np.float32))[4]
    assert len(infos) == 3 and all(info["uncertainty"] > 0 for info in infos)


@pytest.mark.parametrize("batched", [False, True])
def test_a_closed_environment_frees_its_world_and_says_so(tiny_world_path, batched: bool) -> None:
    env = make_vec(tiny_world_path, 2, policy=Push()) if batched else make(tiny_world_path, policy=Push()).unwrapped
    env.reset(seed=0)
    world, dreams = weakref.ref(env.world), weakref.ref(env.dreams)
    env.close()
    gc.collect()
    assert world() is None and dreams() is None
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.reset()
    with pytest.raises(ClosedEnvironmentError):
        env.step(env.action_space.sample())


def test_a_random_policy_dreams_under_the_seed(tiny_world) -> None:
    env = make(tiny_world, policy="random").unwrapped
    assert (
        env.dreams.first_steps == 0
    )  # its plans cannot be lengthened later: they would not be the same plans
    traces = []
    for _ in range(2):
        env.reset(seed=4)
        traces.append([env.step(np.zeros(3, np.float32))[0] for _ in range(3)])
    np.testing.assert_array_equal(*traces)


def test_pessimism_wrappers(tiny_world) -> None:
    plain, penal = make(tiny_world), UncertaintyPenalty(make(tiny_world), weight=2.0)
    plain.reset(seed=0), penal.reset(seed=0)
    action = np.full(3, 0.9, np.float32)
    _, reward, _, _, info = plain.step(action)
    _, less, _, _, with_reward = penal.step(action)
    assert less == pytest.approx(reward - 2 * info["uncertainty"]) and with_reward["model_reward"] == reward
    stop = UncertaintyStop(UncertaintyPenalty(make(tiny_world), weight=2.0), threshold=0.0, penalty=10.0)
    stop.reset(seed=0)
    _, halted_reward, terminated, _, info = stop.step(action)
    assert terminated and info["halted"] and halted_reward == pytest.approx(less - 10)
    batch = VectorUncertaintyPenalty(
        make_vec(tiny_world, 2, horizon=1, autoreset_mode="SameStep"), weight=2.0
    )
    batch.reset(seed=0)
    _, rewards, *_ = batch.step(np.stack([action, action]))
    assert rewards[0] == pytest.approx(less, abs=1e-4)


def test_rendering(tiny_world) -> None:
    env = make(tiny_world, render_mode="rgb_array", policy=Push())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Drawing numbers")
        observation, _ = env.reset(seed=0)
        first = env.render()
        assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3
        assert (first[0, 0] == [196, 64, 196]).all()  # the frame that marks a dream
        env.step(act(observation)[0])
        assert not np.array_equal(first, env.render())
        env.close()
        env.close()


@pytest.mark.parametrize("batched", [False, True])
def test_a_picture_begins_where_the_dream_began(tiny_world, monkeypatch, batched: bool) -> None:
    monkeypatch.setattr(f"dydiff_env.envs.{'vector' if batched else 'dream'}.make_renderer", NumbersRenderer)
    env = make_vec(tiny_world, 2, render_mode="rgb_array") if batched else make(tiny_world, render_mode="rgb_array")
    first = env.reset(seed=0)[0].reshape(-1, 11)[0].copy()
    env.render()
    second = env.step(env.action_space.sample())[0].reshape(-1, 11)[0]
    drawn = env.unwrapped._renderers[0] if batched else env.unwrapped._renderer
    np.testing.assert_allclose(drawn.path, [first, second], rtol=1e-6)
    env.close()


def test_each_environment_has_spaces_of_its_own(tiny_world) -> None:
    one, other = make(tiny_world), make(tiny_world)
    one.action_space.seed(0)
    other.action_space.seed(0)
    drawn = one.action_space.sample()
    one.action_space.seed(0)
    other.action_space.sample()
    assert np.array_equal(one.action_space.sample(), drawn)
    batch = make_vec(tiny_world, 2)
    assert batch.single_action_space is not tiny_world.spec.action_space == batch.single_action_space


def test_a_loaded_checkpoint_brings_its_world(tiny_world, tiny_world_path, tmp_path, monkeypatch) -> None:
    from dydiff_env.agents import agent_class, load_agent

    elsewhere = tmp_path / "elsewhere"
    tiny_world.save(elsewhere)
    agent_class("bc")(tiny_world.spec, world=str(elsewhere)).save(tmp_path / "ckpt.pt")
    monkeypatch.setenv("DYDIFF_ENV_WORLD", str(tiny_world_path))
    monkeypatch.setattr(World, "load", staticmethod(lambda path, device="cpu": path))
    for policy in (tmp_path / "ckpt.pt", load_policy(tmp_path / "ckpt.pt"), load_agent(tmp_path / "ckpt.pt")):
        assert find_world(None, policy=policy) == elsewhere
    assert find_world(None, policy=Push()) == tiny_world_path


def test_sb3_trains_in_it(tiny_world) -> None:
    from stable_baselines3 import PPO

    model = PPO("MlpPolicy", make(tiny_world), n_steps=128, batch_size=64, n_epochs=2, device="cpu", seed=0)
    model.learn(256)
    assert model.num_timesteps == 256


@pytest.mark.parametrize("name", ["SAC", "TQC"])
def test_off_policy_algorithms_train_in_it(tiny_world, name: str) -> None:
    import sb3_contrib
    import stable_baselines3

    algorithm = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    env = UncertaintyPenalty(make(tiny_world, policy=Push(), horizon=10))
    model = algorithm("MlpPolicy", env, learning_starts=40, batch_size=32, policy_kwargs={"net_arch": [32]}, device="cpu", seed=0)
    model.learn(60)
    assert model.num_timesteps == 60 and model._n_updates == 20


def test_sb3_trains_in_batched_dreams(tiny_world) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    env = DreamVecEnv(8, world=tiny_world, policy=Push(), horizon=10, penalty=0.5)
    model = PPO("MlpPolicy", VecMonitor(env), n_steps=16, batch_size=64, n_epochs=1, device="cpu", seed=0)
    model.learn(256)
    assert len(model.ep_info_buffer) >= 20 and all(episode["l"] <= 10 for episode in model.ep_info_buffer)
    env.seed(3)
    first = env.reset()
    batch = make_vec(tiny_world, 8, policy=Push(), horizon=10)
    np.testing.assert_array_equal(first, batch.reset(seed=3)[0])
    for _ in range(10):
        _, rewards, over, infos = env.step(np.zeros((8, 3), np.float32))
        _, plain, *_, vector_infos = batch.step(np.zeros((8, 3), np.float32))
        if over.any():
            row = int(np.flatnonzero(over)[0])
            assert infos[row]["terminal_observation"] in env.observation_space
            break
        np.testing.assert_allclose(rewards, plain - 0.5 * vector_infos["uncertainty"], atol=1e-4)


def test_sb3s_options_reach_the_dreams(tiny_world) -> None:
    start = tiny_world.sample_starts(1, seed=9)[0]
    env = DreamVecEnv(3, world=tiny_world)
    env.set_options({"observation": start.astype(env.observation_space.dtype)})
    assert np.allclose(env.reset(), start) and not np.allclose(env.reset()[0], start)
    env.close()


@pytest.mark.parametrize("batched", [False, True])
def test_a_closed_environment_is_not_drawn(tiny_world, batched: bool) -> None:
    make = gym.make_vec if batched else gym.make
    options = {"num_envs": 2} if batched else {"disable_env_checker": True}
    env = make("DyDiffDream-v0", world=tiny_world, render_mode="rgb_array", **options).unwrapped
    env.reset(seed=0)
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.render()


def test_a_start_of_ones_own_keeps_a_row_its_single_environment(tiny_world) -> None:
    batch, singles = make_vec(tiny_world, 2, policy=Push(), horizon=6), [make(tiny_world, policy=Push(), horizon=6) for _ in range(2)]
    batch.reset(seed=7)
    for i, one in enumerate(singles):
        one.reset(seed=7 + i)
    batch.reset(options={"reset_mask": np.array([True, False])})  # imagines the other row's next dream ahead
    singles[0].reset()
    start = tiny_world.sample_starts(1)[0]
    batch.reset(options={"observation": np.stack([start, start])})
    for one in singles:
        one.reset(options={"observation": start})
    np.testing.assert_array_equal(batch.reset()[0], np.stack([one.reset()[0] for one in singles]))
