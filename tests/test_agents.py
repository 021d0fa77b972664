"""What a user relies on from every agent, and what each algorithm's mathematics promises."""

from __future__ import annotations

import pickle
import warnings
from copy import deepcopy
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dydiff_env.agents import ALGORITHMS, Replay, load_agent
from dydiff_env.agents.cql import CQL, CQLConfig
from dydiff_env.agents.diffql import DiffQL, DiffQLConfig, DiffusionPolicy
from dydiff_env.agents.networks import BLOCK, MLP, QNetwork, frozen, timestep_embedding
from dydiff_env.agents.optimizer import FlatAdam
from dydiff_env.agents.td3bc import TD3BC, TD3BCConfig
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import load_policy
from dydiff_env.synthesis.export import export

SMALL = {
    "td3bc": {"hidden": (32, 32), "learning_rate": 3e-3},
    "cql": {"hidden": (32, 32), "actions": 4, "policy_rate": 3e-3, "critic_rate": 3e-3, "alpha": 0.5},
    "diffql": {"hidden": (32, 32), "learning_rate": 3e-3, "ema_start": 50},
    "bc": {"hidden": (32, 32)},
}


def small(algorithm: str, spec: DatasetSpec, seed: int = 0, **changes):
    cls = ALGORITHMS[algorithm]
    config = replace(cls.config_class(batch_size=64), **{**SMALL[algorithm], **changes})
    return cls(spec, config, seed=seed)


@pytest.fixture(params=sorted(ALGORITHMS))
def agent(request, hopper_dataset):
    return small(request.param, hopper_dataset.spec).fit(Replay(hopper_dataset), 3)


def bandit(rows: int = 4000) -> tuple[DatasetSpec, Replay]:
    """One-step episodes in which the best action is .6 everywhere and the data hold any; bounds are 0 and 2."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((rows, 2, 2)).astype(np.float32)
    actions = rng.uniform(0, 2, (rows, 1, 1)).astype(np.float32)
    rewards = -((actions[..., 0] - 0.6) ** 2)
    data = Trajectories(observations, actions, rewards, np.ones(rows, bool), np.ones(rows, np.int64))
    spec = DatasetSpec(gym.spaces.Box(-9, 9, (2,), np.float32), gym.spaces.Box(0, 2, (1,), np.float32))
    return spec, Replay(data)


def test_predict_takes_one_observation_or_many(agent):
    observations = np.random.default_rng(0).standard_normal((5, 11))
    many, state = agent.predict(observations)
    assert many.shape == (5, 3) and many.dtype == agent.spec.action_space.dtype and state is None
    one, _ = agent.predict(observations[0], state=None, episode_start=np.ones(1, bool), deterministic=True)
    assert one.shape == (3,) and agent.spec.action_space.contains(one)
    np.testing.assert_allclose(one, many[0], atol=1e-5)
    acted = agent.act(torch.from_numpy(observations))
    np.testing.assert_allclose(acted.numpy(), many, atol=1e-6)
    with pytest.raises(DyDiffError, match="expects 11"):
        agent.predict(np.zeros(7))


def test_a_checkpoint_holds_no_code_and_gives_the_same_actions(agent, tmp_path):
    path = agent.save(tmp_path / "agent.pt")
    content = torch.load(path, weights_only=True)
    assert content["format"] == "dydiff-env-agent" and content["updates"] == agent.updates == 3
    assert DatasetSpec.from_json(content["spec"]) == agent.spec
    loaded = load_agent(path)
    assert type(loaded) is type(agent) and loaded.config == agent.config
    observations = torch.randn(6, 11)
    assert torch.equal(loaded.act(observations), agent.act(observations))
    assert [file.name for file in tmp_path.iterdir()] == ["agent.pt"]


def test_training_on_after_a_load_equals_training_through(agent, hopper_dataset, tmp_path):
    replay = Replay(hopper_dataset)
    loaded = load_agent(agent.save(tmp_path / "agent.pt"))
    agent.fit(replay, 4)
    loaded.fit(replay, 3).fit(replay, 1)
    for name, value in agent.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_the_same_seed_gives_the_same_agent_and_another_does_not(hopper_dataset):
    replay = Replay(hopper_dataset)
    first, again, other = (small("td3bc", hopper_dataset.spec, seed).fit(replay, 4) for seed in (0, 0, 1))
    observations = torch.randn(6, 11)
    assert torch.equal(first.act(observations), again.act(observations))
    assert not torch.allclose(first.act(observations), other.act(observations))


@pytest.mark.parametrize("algorithm", ["td3bc", "diffql"])
def test_predicted_actions_lie_in_a_space_of_any_bounds(algorithm):
    low, high = np.array([-0.2, 0.1, -0.1]), np.array([5.0, 0.7, 0.1])
    for kind in (np.float32, np.float64):
        space = gym.spaces.Box(low.astype(kind), high.astype(kind), dtype=kind)
        made = ALGORITHMS[algorithm](DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (4,), np.float32), space))
        for row in 1e3 * np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32):
            assert space.contains(made.predict(row)[0])


def test_sb3_evaluates_an_agent_as_it_is(agent):
    from stable_baselines3.common.evaluation import evaluate_policy

    mean, _ = evaluate_policy(
        agent, gym.make("Hopper-v5", max_episode_steps=30), n_eval_episodes=2, warn=False
    )
    assert np.isfinite(mean)


@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_an_agent_leaves_as_torchscript_and_as_onnx(agent, form, tmp_path):
    path, example = tmp_path / "policy", torch.randn(2, 11)
    if form == "torchscript":
        torch.jit.trace(agent, example, check_trace=False).save(str(path))
    else:
        pytest.importorskip("onnxruntime")
        names, axes = {"input_names": ["observation"], "output_names": ["action"]}, {0: "batch"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's news of its newer exporter, which needs a further package
            torch.onnx.export(agent.eval(), (example,), str(path), dynamo=False, **names,
                              dynamic_axes={"observation": axes, "action": axes})  # fmt: skip
    loaded = load_policy(path, agent.spec)
    assert loaded.kind == form
    observations = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(loaded.act(observations), agent.act(observations), atol=1e-5)


def test_an_agents_checkpoint_is_exported_from(agent, tiny_world, tmp_path):
    path = agent.save(tmp_path / "agent.pt")
    export(tiny_world, path, tmp_path / "syn.minari", batch=6, horizon=5, filter="none", keep=1.0)
    written = load_dataset(tmp_path / "syn.minari")
    assert len(written) == 6 and written.spec.action_space == agent.spec.action_space
    first = np.stack([written.episode(i).observations[0] for i in range(6)])
    actions = np.stack([written.episode(i).actions[0] for i in range(6)])
    np.testing.assert_allclose(actions, agent.act(torch.from_numpy(first)), atol=1e-4)


def test_dict_observations_are_taken_as_the_environment_gives_them():
    env = gym.spaces.Dict(
        observation=gym.spaces.Box(-9, 9, (4,)),
        achieved_goal=gym.spaces.Box(-9, 9, (2,)),
        desired_goal=gym.spaces.Box(-9, 9, (2,)),
    )
    spec = DatasetSpec(env, gym.spaces.Box(-1, 1, (2,), np.float32))
    agent = small("td3bc", spec)
    sample = env.sample()
    one, _ = agent.predict(sample)
    flat = torch.from_numpy(gym.spaces.flatten(agent.spec.observation_space, sample))[None]
    np.testing.assert_allclose(one, agent.act(flat)[0].numpy(), atol=1e-6)
    many, _ = agent.predict({key: np.stack([value] * 3) for key, value in sample.items()})
    assert many.shape == (3, 2)


@pytest.mark.parametrize(("algorithm", "updates"), [("td3bc", 400), ("cql", 150), ("diffql", 150)])
def test_agents_find_better_actions_than_the_data_hold(algorithm, updates):
    spec, replay = bandit()
    agent = small(algorithm, spec).fit(replay, updates)
    actions = agent.act(torch.randn(64, 2))
    assert float(((actions - 0.6) ** 2).mean()) < 0.13  # the data's mean action, 1, is worse: .16
    assert ((actions >= 0) & (actions <= 2)).all()


def test_cloning_copies_the_mean_action():
    spec, replay = bandit()
    actions = small("bc", spec, learning_rate=3e-3).fit(replay, 300).act(torch.randn(64, 2))
    assert abs(float(actions.mean()) - 1.0) < 0.1


def test_td3bc_in_groups_equals_one_batch_at_a_time(hopper_dataset):
    replay = Replay(hopper_dataset)
    together = TD3BC(hopper_dataset.spec, TD3BCConfig(hidden=(32, 32), batch_size=32)).fit(replay, 6)
    apart = TD3BC(hopper_dataset.spec, TD3BCConfig(hidden=(32, 32), batch_size=32))
    for _ in range(3):
        apart.fit(replay, 1).fit(replay, 1)
    assert together.updates == apart.updates == 6
    observations = torch.randn(20, 11)
    np.testing.assert_allclose(together.act(observations), apart.act(observations), atol=1e-4)


def test_observations_are_standardised_by_the_logged_data(hopper_dataset):
    agent = small("bc", hopper_dataset.spec).fit(Replay(hopper_dataset), 1)
    flat = hopper_dataset.flat().observations
    np.testing.assert_allclose(agent.observation_mean, flat.mean(0), atol=1e-4)
    np.testing.assert_allclose(agent.observation_std, flat.std(0) + 1e-3, rtol=1e-3)
    raw = small("diffql", hopper_dataset.spec).fit(Replay(hopper_dataset), 1)  # the authors train on raw ones
    assert (raw.observation_mean == 0).all() and (raw.observation_std == 1).all()


def test_q_of_many_actions_equals_q_of_each():
    network, observations, actions = QNetwork(4, 2, (16, 16)), torch.randn(5, 4), torch.randn(5, 3, 2)
    together = network(observations, actions)
    apart = torch.stack([network(observations, actions[:, k]) for k in range(3)], 1)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("rows", [50, 2 * BLOCK + 3])
@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("mish", F.mish)])
def test_networks_and_their_gradients_are_those_of_plain_layers(activation, function, rows):
    network = MLP((4, 16, 16, 2), activation).double()  # a sum over thousands of rows, to the last digits
    x = (torch.randn(rows, 4, dtype=torch.double) * 20).requires_grad_()  # far into the tails of the activation

    def plain(value):
        for layer in network.layers[:-1]:
            value = function(layer(value))
        return network.layers[-1](value)

    torch.testing.assert_close(network(x), plain(x))
    wanted = [x, *network.parameters()]
    gradients = [torch.autograd.grad((y**2).sum(), wanted) for y in (network(x), plain(x))]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x))
    with frozen(network):
        through = [torch.autograd.grad(y.sum(), x)[0] for y in (network(x), plain(x))]
    torch.testing.assert_close(*through)
    single = torch.autograd.grad((network.float()(x.float()) ** 2).sum(), network.parameters())
    for exact, found in zip(gradients[1][1:], single, strict=True):  # nothing overflows in single precision
        torch.testing.assert_close(found.double(), exact, atol=float(exact.abs().max()) * 1e-4, rtol=1e-3)


def test_the_flat_optimiser_is_adam():
    own = MLP((4, 8, 2))
    plain = deepcopy(own)
    optimisers = FlatAdam(own.parameters(), 1e-2), torch.optim.Adam(plain.parameters(), 1e-2)
    for _ in range(5):
        x = torch.randn(16, 4)
        for network, optimiser in zip((own, plain), optimisers, strict=True):
            optimiser.zero_grad()
            (network(x) ** 2).sum().backward()
            optimiser.step()
    torch.testing.assert_close(list(own.parameters()), list(plain.parameters()))


def test_an_agent_that_was_cast_says_that_it_cannot_learn(hopper_dataset):
    agent = TD3BC(hopper_dataset.spec).double().float()
    with pytest.raises(DyDiffError, match="moved or cast"):
        agent.fit(Replay(hopper_dataset), 2)


def test_settings_of_numpy_and_paths_can_be_read_back(hopper_dataset, tmp_path):
    agent = TD3BC(hopper_dataset.spec, TD3BCConfig(alpha=np.float64(2.0)), seed=np.int64(3), world=tmp_path / "world")
    again = load_agent(agent.save(tmp_path / "agent.pt"))
    assert (again.config.alpha, again.seed, again.world) == (2.0, 3, str(tmp_path / "world"))


def test_cql_densities_are_those_of_the_squashed_gaussian(hopper_dataset):
    agent = small("cql", hopper_dataset.spec)
    mean, log_std = torch.randn(6, 3) * 0.3, torch.randn(6, 3) * 0.3 - 1
    actions, log_density = agent.sample((mean, log_std), 5)
    base = torch.distributions.Normal(mean[:, None], log_std[:, None].exp())
    squashed = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_density, squashed.log_prob(actions).sum(-1), atol=2e-3, rtol=1e-3)


def test_cql_values_unseen_actions_lower_than_logged_ones(hopper_dataset):
    agent = small("cql", hopper_dataset.spec, alpha=10.0).fit(Replay(hopper_dataset), 150)
    batch = agent._inside(next(iter(Replay(hopper_dataset).batches(1, 256)))).pick(0)
    logged = agent.critics[0](batch.observations, batch.actions).mean()
    unseen = agent.critics[0](batch.observations, torch.rand_like(batch.actions) * 2 - 1).mean()
    assert bool(logged > unseen)


def test_the_lagrange_multiplier_falls_while_the_gap_is_below_its_target(hopper_dataset):
    config = CQLConfig(hidden=(32, 32), actions=4, batch_size=64, lagrange=True, target_gap=100.0)
    agent = CQL(hopper_dataset.spec, config)
    before = float(agent.log_multiplier.detach())
    agent.fit(Replay(hopper_dataset), 5)
    assert float(agent.log_multiplier.detach()) < before


def test_diffusion_schedule_is_the_papers_and_samples_stay_in_bounds():
    policy = DiffusionPolicy(4, 2, (16,), 5)
    betas = [1 - np.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * t - 1) / 25) for t in range(1, 6)]
    kept = np.cumprod(1 - np.array(betas))
    np.testing.assert_allclose(policy.schedule[0] ** 2, kept, rtol=1e-5)
    np.testing.assert_allclose(policy.schedule[0] ** 2 + policy.schedule[1] ** 2, 1, rtol=1e-5)
    assert float(policy.schedule[4, 0]) == 0  # the last step adds no noise
    actions = policy.sample(torch.randn(9, 4), torch.randn(6, 9, 2) * 3)
    assert actions.shape == (9, 2) and bool(actions.abs().max() <= 1)
    assert timestep_embedding(5, 16).shape == (5, 16)


def test_diffql_acts_as_a_function_of_the_observation_and_can_draw(hopper_dataset):
    agent = small("diffql", hopper_dataset.spec)
    observations = torch.randn(8, 11)
    torch.testing.assert_close(agent.act(observations)[3:4], agent.act(observations[3:4]), atol=1e-5, rtol=0)
    drawn = [agent.act(observations, deterministic=False) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_the_best_of_ten_backup_is_never_below_a_single_draw(hopper_dataset):
    config = DiffQLConfig(hidden=(32, 32), batch_size=64)
    one = DiffQL(hopper_dataset.spec, config)
    ten = DiffQL(hopper_dataset.spec, replace(config, max_q_backup=True))
    observations, zeros = torch.randn(500, 11), torch.zeros(500)
    values = [agent.target_values(zeros, observations, zeros).mean() for agent in (one, ten)]
    assert values[1] > values[0]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_or_missing_checkpoint_is_one_clear_error(content, tmp_path):
    path = tmp_path / "agent.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DyDiffError, match="checkpoint"):
        load_agent(path)


def test_a_truncated_checkpoint_is_one_clear_error(agent, tmp_path):
    path = agent.save(tmp_path / "agent.pt")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DyDiffError, match="not a readable"):
        load_agent(path)


def test_data_of_another_width_and_unbounded_actions_are_refused(hopper_dataset):
    spec, _ = bandit()
    with pytest.raises(DyDiffError, match="the agent"):
        small("bc", spec).fit(Replay(hopper_dataset), 1)
    with pytest.raises(DyDiffError, match="bounds"):
        small("bc", replace(spec, action_space=gym.spaces.Box(-np.inf, np.inf, (1,))))
    with pytest.raises(DyDiffError, match="cannot change"):
        small("bc", replace(spec, action_space=gym.spaces.Box(np.array([-1, 0]), np.array([1, 0]))))


def test_loading_another_algorithms_checkpoint_names_both(hopper_dataset, tmp_path):
    path = small("bc", hopper_dataset.spec).save(tmp_path / "agent.pt")
    with pytest.raises(DyDiffError, match="holds a bc agent, not td3bc"):
        TD3BC.load(path)


def test_a_checkpoint_of_another_layout_is_one_clear_error(hopper_dataset, tmp_path):
    path = small("bc", hopper_dataset.spec).save(tmp_path / "agent.pt")
    content = torch.load(path, weights_only=True)
    del content["state"]["actor.layers.0.weight"]
    torch.save(content, path)
    with pytest.raises(DyDiffError, match="does not fit this version"):
        load_agent(path)


@pytest.mark.parametrize("algorithm", ["cql", "diffql"])
def test_whoever_rolls_a_drawing_agent_out_decides_its_seed(algorithm, hopper_dataset, tiny_world):
    agent = small(algorithm, hopper_dataset.spec).fit(Replay(hopper_dataset), 3)
    starts = tiny_world.sample_starts(6)
    one, same, other = (
        tiny_world.dream(agent, starts, 8, 1, deterministic=False, seed=seed).actions for seed in (5, 5, 6)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_copies_of_an_agent_train_on_alike(agent, hopper_dataset):
    replay = Replay(hopper_dataset)
    copies = [deepcopy(agent), pickle.loads(pickle.dumps(agent))]
    agent.fit(replay, 4)
    for copy in copies:
        copy.fit(replay, 4)
        for name, value in agent.state_dict().items():
            assert torch.equal(value, copy.state_dict()[name]), name


def test_a_checkpoint_trained_on_a_gpu_acts_on_a_cpu(agent, tmp_path):
    content = torch.load(agent.save(tmp_path / "cpu.pt"), weights_only=True)
    gpu = torch.zeros(16, dtype=torch.uint8)  # the size of a CUDA generator's state
    torch.save({**content, "generator": gpu, "generator_device": "cuda"}, tmp_path / "gpu.pt")
    rows = torch.zeros(3, 11)
    assert torch.equal(load_agent(tmp_path / "gpu.pt").act(rows), agent.act(rows))
