"""Every format acts as the library that wrote it; what does not fit fails before the first rollout."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.simulator import describe
from dydiff_env.errors import DyDiffError, Note
from dydiff_env.policies import as_policy, function, load_policy
from dydiff_env.policies.behavior import clone
from dydiff_env.policies.exported import ExportedPolicy, in_batches
from dydiff_env.policies.function import FunctionPolicy

WIDTH, A = 5, 2
SPEC = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (WIDTH,)), gym.spaces.Box(-1, 1, (A,), np.float32))
OBSERVATIONS = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(0)) * 2
DICT_SPACE = gym.spaces.Dict({"goal": gym.spaces.Box(-9, 9, (2,)), "state": gym.spaces.Box(-9, 9, (3,))})


class Toy(gym.Env):
    """Two steps an episode; only its spaces matter."""

    def __init__(self, observation_space: gym.Space = SPEC.observation_space) -> None:
        self.observation_space, self.action_space = observation_space, SPEC.action_space
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action):
        self.count += 1
        return self._observe(), 0.0, False, self.count == 2, {}

    def _observe(self):
        if isinstance(self.observation_space, gym.spaces.Dict):
            return {"goal": np.ones(2, np.float32), "state": 3 * np.ones(3, np.float32)}
        return self.np_random.normal(3, 2, WIDTH).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, A), nn.Tanh()).eval()


@pytest.fixture(scope="module")
def files(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in each tensor format, under names that do not give the format away."""
    folder = tmp_path_factory.mktemp("policies")
    paths = {kind: folder / f"{kind}.bin" for kind in ("torchscript", "export", "export_fixed", "onnx")}
    torch.jit.script(network).save(str(paths["torchscript"]))
    batch = {0: torch.export.Dim("batch", min=1, max=1 << 20)}
    torch.export.save(
        torch.export.export(network, (OBSERVATIONS[:4],), dynamic_shapes=(batch,)), folder / "program.pt2"
    )
    torch.export.save(torch.export.export(network, (OBSERVATIONS[:3],)), folder / "fixed.pt2")
    (folder / "program.pt2").rename(paths["export"])
    (folder / "fixed.pt2").rename(paths["export_fixed"])
    _onnx(network, paths["onnx"])
    return paths


def _onnx(network: nn.Module, path: Path) -> None:
    """Write the graph with onnx's own helpers (torch's exporter needs one more package)."""
    onnx = pytest.importorskip("onnx")
    nodes, weights, present = [], [], "observation"
    for index, layer in enumerate(network):
        following = f"x{index}"
        if isinstance(layer, nn.Linear):
            for name, value in (("w", layer.weight), ("b", layer.bias)):
                weights.append(onnx.numpy_helper.from_array(value.detach().numpy(), f"{name}{index}"))
            nodes.append(
                onnx.helper.make_node("Gemm", [present, f"w{index}", f"b{index}"], [following], transB=1)
            )
        else:
            nodes.append(onnx.helper.make_node("Tanh", [present], [following]))
        present = following
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "policy",
        [value("observation", 1, ["batch", WIDTH])],
        [value(present, 1, ["batch", A])],
        weights,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("kind", ["torchscript", "export", "export_fixed", "onnx"])
def test_every_tensor_format_acts_as_the_network(
    kind: str, files: dict[str, Path], network: nn.Module
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    policy = load_policy(files[kind], SPEC, trust=True)
    assert policy.kind == kind.removesuffix("_fixed") and len(policy.fingerprint) == 64
    for twin in (policy, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        torch.testing.assert_close(twin.act(OBSERVATIONS), network(OBSERVATIONS).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC", "TD3", "TQC", "CrossQ", "TRPO", "ARS"])
def test_sb3_checkpoints_act_as_predict_does(algorithm: str, tmp_path: Path) -> None:
    import sb3_contrib
    import stable_baselines3

    maker = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    model = maker("LinearPolicy" if algorithm == "ARS" else "MlpPolicy", Toy(), seed=1, device="cpu")
    model.save(tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip", trust=True)  # it carries its own spaces
    expected = model.predict(OBSERVATIONS.numpy(), deterministic=True)[0]
    np.testing.assert_allclose(policy.act(OBSERVATIONS), expected, atol=1e-5)
    if algorithm not in ("TD3", "ARS"):
        assert not torch.equal(policy.act(OBSERVATIONS, deterministic=False), policy.act(OBSERVATIONS))


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_what_a_checkpoint_with_gsde_draws_is_as_wide_as_its_weights_say(algorithm: str, tmp_path: Path) -> None:
    import stable_baselines3

    model = getattr(stable_baselines3, algorithm)("MlpPolicy", Toy(), seed=1, device="cpu", use_sde=True)
    with torch.no_grad():
        getattr(model, "actor", model.policy).log_std.fill_(-20.0)
    model.save(tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip", trust=True)
    torch.testing.assert_close(policy.act(OBSERVATIONS, deterministic=False), policy.act(OBSERVATIONS), atol=1e-4, rtol=0)


class Gains(nn.Module):
    """It holds no parameters, and makes a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gains", torch.ones(WIDTH, A))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.tanh(rows @ self.gains + torch.zeros(A))


def test_modules_are_asked_where_they_are() -> None:
    """Torch's device without memory stands for a GPU."""
    file = io.BytesIO()
    torch.export.save(torch.export.export(Gains(), (OBSERVATIONS[:4],)), file)
    pytest.importorskip("torch.export.passes")
    assert ExportedPolicy(file.getvalue(), "meta").act(OBSERVATIONS[:4]).device.type == "meta"
    elsewhere = nn.Sequential()
    elsewhere.register_buffer("gains", torch.ones(1, device="meta"))
    assert FunctionPolicy(elsewhere).act(OBSERVATIONS).device.type == "meta"


def test_sb3_with_vecnormalize_and_dictionaries(tmp_path: Path) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    unsorted = gym.spaces.Dict(**dict(reversed(DICT_SPACE.spaces.items())))  # Gymnasium keeps the order of keywords
    spaces = (SPEC.observation_space, "MlpPolicy"), (DICT_SPACE, "MultiInputPolicy"), (unsorted, "MultiInputPolicy")
    for space, kind in spaces:
        env = VecNormalize(DummyVecEnv([lambda space=space: Toy(space)]))
        model = PPO(kind, env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0).learn(8)
        model.save(tmp_path / "model.zip")
        env.save(tmp_path / "model.vecnormalize.pkl")
        with pytest.warns(UserWarning, match="was trained inside a VecNormalize"):
            load_policy(tmp_path / "model.zip", trust=True)
        policy = load_policy(
            tmp_path / "model.zip", trust=True, vecnormalize=tmp_path / "model.vecnormalize.pkl"
        )
        rows = OBSERVATIONS.numpy()
        batch = rows if kind == "MlpPolicy" else {"goal": rows[:, :2], "state": rows[:, 2:]}
        expected = model.predict(env.normalize_obs(batch), deterministic=True)[0]
        np.testing.assert_allclose(policy.act(OBSERVATIONS), expected, atol=1e-4)
        np.testing.assert_allclose(as_policy(model, SPEC).act(OBSERVATIONS), expected, atol=1e-4)  # never saved


def test_an_sb3_model_of_shaped_spaces_is_a_policy_as_it_is() -> None:
    from stable_baselines3 import PPO

    class Shaped(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gym.spaces.Box(-9, 9, (1, WIDTH))
            self.action_space = gym.spaces.Box(-1, 1, (A, 1))

    model = PPO("MlpPolicy", Shaped(), device="cpu", seed=0)
    expected = model.predict(OBSERVATIONS.numpy()[:, None], deterministic=True)[0]
    np.testing.assert_allclose(as_policy(model, SPEC).act(OBSERVATIONS), expected[..., 0], atol=1e-6)


def test_an_onnx_file_with_its_weights_beside_it(files: dict[str, Path], network: nn.Module, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model, file = onnx.load(files["onnx"]), tmp_path / "policy.onnx"
    onnx.save_model(model, str(file), save_as_external_data=True, location="policy.onnx.data", size_threshold=0)
    policy = load_policy(file, SPEC)
    torch.testing.assert_close(policy.act(OBSERVATIONS), network(OBSERVATIONS).detach(), atol=1e-5, rtol=0)
    (tmp_path / "policy.onnx.data").unlink()
    with pytest.raises(DyDiffError, match="cannot be read as an ONNX model"):
        load_policy(file, SPEC)


def test_callables_objects_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_policies.py").write_text(
        "import torch\n"
        "def left(observations):\n    return -torch.ones(len(observations), 2)\n"
        "class Right:\n    def act(self, observations, deterministic=True):\n"
        "        return torch.ones(len(observations), 2) * (1 if deterministic else 0)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert (load_policy("my_policies:left", SPEC).act(OBSERVATIONS) == -1).all()
    assert (load_policy(lambda observations: -torch.ones(len(observations), 2), SPEC).act(OBSERVATIONS) == -1).all()
    right = load_policy("my_policies:Right", SPEC)
    assert (right.act(OBSERVATIONS) == 1).all() and (right.act(OBSERVATIONS, deterministic=False) == 0).all()
    assert (
        as_policy(lambda x, deterministic: torch.full((len(x), 2), float(deterministic)), SPEC).act(
            OBSERVATIONS, False
        )
        == 0
    ).all()
    torch.manual_seed(3)
    first = load_policy("random", SPEC).act(OBSERVATIONS)
    torch.manual_seed(3)
    assert torch.equal(first, load_policy("random", SPEC).act(OBSERVATIONS)) and first.abs().max() <= 1
    with pytest.raises(DyDiffError, match="cannot be imported"):
        load_policy("my_policies:absent", SPEC)


def test_what_d3rlpy_trains_is_a_policy_as_it_is() -> None:
    """d3rlpy cannot be installed beside a current Gymnasium (benchmarks/d3rlpy_export.py runs it); this has its two methods."""

    class Learned:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.ones((len(x), 2), np.float32)

        def sample_action(self, x: np.ndarray) -> np.ndarray:
            return np.zeros((len(x), 2), np.float32)

    policy = load_policy(Learned(), SPEC)
    assert (policy.act(OBSERVATIONS) == 1).all() and (policy.act(OBSERVATIONS, deterministic=False) == 0).all()

    class Wrapped:
        def predict(self, x: np.ndarray, **options: bool) -> tuple[np.ndarray, None]:
            return np.full((len(x), 2), options["deterministic"], np.float32), None

    policy = load_policy(Wrapped(), SPEC)
    assert (policy.act(OBSERVATIONS) == 1).all() and (policy.act(OBSERVATIONS, deterministic=False) == 0).all()


def test_behavior_is_a_clone_of_the_data() -> None:
    from dydiff_env.data.dataset import Dataset

    generator = np.random.default_rng(0)
    observations = generator.normal(size=(1001, WIDTH)).astype(np.float32)
    actions = np.tanh(observations[:-1, :A] - observations[:-1, -A:])
    data = Dataset(
        SPEC, observations, actions, np.zeros(1000, np.float32), np.array([False]), np.array([0, 1000])
    )
    policy = as_policy(clone(data, updates=1500), SPEC)
    error = (policy.act(torch.as_tensor(observations[:-1])) - torch.as_tensor(actions)).abs().mean()
    assert error < 0.06
    assert not torch.equal(policy.act(OBSERVATIONS, False), policy.act(OBSERVATIONS))


@pytest.mark.parametrize("algorithm", ["td3bc", "cql", "diffql", "bc"])
def test_our_agents_load_with_their_spaces_and_world(algorithm: str, tmp_path: Path) -> None:
    from dydiff_env.agents import agent_class

    trained = agent_class(algorithm)(SPEC, seed=1, world="a/world")
    trained.save(tmp_path / "agent.bin")
    policy = load_policy(tmp_path / "agent.bin")
    assert policy.kind == algorithm and policy.world == "a/world"
    if algorithm != "diffql":  # which draws its candidates
        np.testing.assert_allclose(policy.act(OBSERVATIONS), trained.act(OBSERVATIONS).detach(), atol=1e-6)
    with pytest.raises(DyDiffError, match="of size 5, but these are of size 11"):
        load_policy(tmp_path / "agent.bin", DatasetSpec(gym.spaces.Box(-1, 1, (11,)), SPEC.action_space))
    checkpoint = torch.load(tmp_path / "agent.bin", weights_only=True)
    del checkpoint["state"]
    torch.save(checkpoint, tmp_path / "cut.bin")
    with pytest.raises(DyDiffError, match="does not fit"):
        load_policy(tmp_path / "cut.bin")


def test_formats_that_run_code_need_trust(files: dict[str, Path], tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (marker,))

    (tmp_path / "model.d3").write_bytes(pickle.dumps({"torch": b"", "config": "", "version": Bomb()}))
    torch.save({"format": "dydiff-env-agent", "bomb": Bomb()}, tmp_path / "agent.pt")
    for path, message in (
        (tmp_path / "model.d3", "can run any code"),
        (files["export"], "can run any code"),
        (tmp_path / "agent.pt", "pickled Python objects"),
    ):
        with pytest.raises(DyDiffError, match=message):
            load_policy(path, SPEC)
    assert not marker.exists()


class Writes(nn.Module):
    """TorchScript that writes a file when it acts."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2] + torch.from_file(self.path, True, 64)[0]


def test_torchscript_that_writes_files_needs_trust(tmp_path: Path) -> None:
    torch.jit.script(Writes(str(tmp_path / "written"))).save(str(tmp_path / "policy.pt"))
    with pytest.raises(DyDiffError, match=r"calls from_file.*--trust"):
        load_policy(tmp_path / "policy.pt", SPEC)
    assert not (tmp_path / "written").exists()
    load_policy(tmp_path / "policy.pt", SPEC, trust=True)
    assert (tmp_path / "written").exists()


def test_wrong_sizes_are_named(files: dict[str, Path], network: nn.Module) -> None:
    wide = DatasetSpec(gym.spaces.Box(-1, 1, (11,)), SPEC.action_space)
    arms = DatasetSpec(SPEC.observation_space, gym.spaces.Box(-1, 1, (3,)))
    kinds = ["torchscript", "export", "onnx"]
    for kind in kinds:
        with pytest.raises(DyDiffError, match=r"takes observations of size 5, but these are of size 11"):
            load_policy(files[kind], wide, trust=True)
        with pytest.raises(DyDiffError, match=r"shape \(2, 2\) for 2 observations.*needs \(2, 3\)"):
            load_policy(files[kind], arms, trust=True)
    with pytest.raises(DyDiffError, match="NaN"):
        as_policy(lambda x: torch.full((len(x), A), float("nan")), SPEC)
    with pytest.raises(DyDiffError, match="of size 5, but these are of size 11"):
        as_policy(as_policy(network, SPEC), wide)


class Switch(nn.Module):
    """Acts otherwise where it may draw."""

    def forward(self, observations: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        return torch.full((len(observations), A), float(deterministic))


def test_a_module_is_told_whether_it_may_draw() -> None:
    policy, some = as_policy(Switch(), SPEC), torch.zeros(3, WIDTH)
    assert float(policy.act(some).mean()) == 1 and float(policy.act(some, deterministic=False).mean()) == 0


def test_a_policy_that_divides_by_a_length_is_taken_and_a_tuple_is_named() -> None:
    as_policy(lambda rows: rows[:, :A] / rows[:, :A].norm(dim=1, keepdim=True), SPEC)
    with pytest.raises(DyDiffError, match="returns a tuple of 2, not actions"):
        as_policy(lambda rows: (rows[:, :A], rows[:, :A]), SPEC)


@pytest.mark.parametrize(("least", "most"), [(1, 1), (4, 4), (1, 3), (2, None), (1, None)])
def test_rows_go_through_whatever_batches_a_file_takes(least: int, most: int | None) -> None:
    sizes: list[int] = []

    def run(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return 2 * rows

    rows = torch.randn(9, 2)
    for count in (1, 4, 9):
        assert torch.equal(in_batches(run, rows[:count], least, most), 2 * rows[:count])
    assert min(sizes) >= least and (most is None or max(sizes) <= most)


def test_onnx_of_a_fixed_batch_acts_on_any(network: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.onnx.export(network, (torch.zeros(4, WIDTH),), str(tmp_path / "p.onnx"), dynamo=False)
    some = torch.randn(6, WIDTH)
    with torch.no_grad():
        wanted = network(some).clamp(-1, 1)
    torch.testing.assert_close(load_policy(tmp_path / "p.onnx", SPEC).act(some), wanted, atol=1e-5, rtol=1e-5)


def test_sb3_says_what_it_was_trained_inside_and_explores_anew(tmp_path: Path) -> None:
    """On-policy checkpoints tell of a VecNormalize; gSDE draws at each step, by torch's seed; acting changes no fingerprint."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, use_sde=True, policy_kwargs={"net_arch": [8]}, device="cpu").learn(8)
    model.save(tmp_path / "m.zip")
    env.save(tmp_path / "v.pkl")
    with pytest.warns(Note, match="was trained inside a VecNormalize"):
        policy = load_policy(tmp_path / "m.zip", trust=True)
    some, draws = torch.randn(4, 3), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(policy.act(some, deterministic=False))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    with pytest.raises(DyDiffError, match="not with an object in memory"):
        load_policy(model, describe("Pendulum-v1"), vecnormalize=tmp_path / "v.pkl")
    before = function.fingerprint(model)
    as_policy(model, describe("Pendulum-v1")).act(some, deterministic=False)
    assert function.fingerprint(model) == before
    with torch.no_grad():
        next(model.policy.parameters()).add_(1)
    assert function.fingerprint(model) != before


def test_statistics_of_rewards_alone_are_statistics(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_obs=False)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs={"net_arch": [8]}, device="cpu")
    model.save(tmp_path / "m.zip")
    env.save(tmp_path / "v.pkl")
    some = torch.randn(4, 3)
    raw, told = (load_policy(tmp_path / "m.zip", trust=True, vecnormalize=given).act(some) for given in (None, tmp_path / "v.pkl"))
    assert torch.equal(raw, told)


def test_a_checkpoint_that_acts_in_other_bounds_is_told_of(tmp_path: Path) -> None:
    env = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs={"net_arch": [8]}, device="cpu").save(tmp_path / "m.zip")
    with pytest.warns(Note, match="trained behind a wrapper that rescales actions"):
        load_policy(tmp_path / "m.zip", describe("Pendulum-v1"), trust=True)


def test_what_is_not_a_policy_says_so(tmp_path: Path) -> None:
    cases = {
        "missing.pt": None,
        "empty.pt": b"",
        "text.pt": b"not a policy",
        "cut.pt": b"PK\x03\x04 cut short",
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DyDiffError):
            load_policy(tmp_path / name, SPEC, trust=True)
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "state.pt")
    with pytest.raises(DyDiffError, match="bare state_dict"):
        load_policy(tmp_path / "state.pt", SPEC)
    with pytest.raises(DyDiffError, match="which spaces"):
        load_policy("random")
    with pytest.raises(DyDiffError, match="vecnormalize goes with"):
        load_policy("random", SPEC, vecnormalize=tmp_path / "state.pt")


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), scale=st.floats(0.1, 1e6))
def test_actions_always_lie_in_the_space_and_clips_are_counted(rows: int, scale: float) -> None:
    policy = as_policy(lambda x: x[:, :A] * scale, SPEC)
    observations = torch.linspace(-1, 1, rows * WIDTH).reshape(rows, WIDTH)
    actions = policy.act(observations)
    assert actions.dtype == torch.float32 and actions.abs().max() <= 1
    assert policy.proposed == rows
    assert policy.clipped == int((observations[:, :A] * scale).abs().amax(1).gt(1 + 1e-5).sum())


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"PK\x03\x04", b"\x08\x07", b"\x80\x04"]))
def test_no_bytes_crash_the_loader(
    content: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "policy"
    path.write_bytes(head + content)
    with pytest.raises(DyDiffError):
        load_policy(path, SPEC)


class Cast(nn.Module):
    """To another kind of number."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self.kind)


def test_weights_are_part_of_an_objects_fingerprint() -> None:
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Box(-1, 1, (2,), np.float32))
    for kind in (torch.float32, torch.bfloat16):
        one, other = (nn.Sequential(Cast(kind), nn.Linear(4, 2, dtype=kind), Cast(torch.float32)) for _ in range(2))
        prints = [as_policy(module, spec).fingerprint for module in (one, other, copy.deepcopy(one))]
        assert prints[0] == prints[2] != prints[1]


class Scale(nn.Module):
    """What it holds besides weights decides how it acts: a number, a list, a buffer that is not saved."""

    def __init__(self, factor: float, shift: list[float], clip: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift
        self.register_buffer("clip", torch.tensor(clip), persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.minimum(self.factor * rows[:, :2] + torch.tensor(self.shift), self.clip)


def test_what_the_parts_of_a_module_hold_is_part_of_its_fingerprint() -> None:
    given = [(1.0, [0.0], 1.0), (-1.0, [0.0], 1.0), (1.0, [0.5], 1.0), (1.0, [0.0], 0.5)]
    made = [nn.Sequential(Scale(*values)) for values in given] + [nn.Sequential(nn.LeakyReLU(s), Scale(*given[0])) for s in (0.1, 0.9)]
    prints = [as_policy(module, SPEC).fingerprint for module in made]
    assert len(set(prints)) == len(prints)
    assert as_policy(nn.Sequential(Scale(*given[0])), SPEC).fingerprint == prints[0]


def test_a_recurrent_model_in_memory_is_refused_as_its_file_is() -> None:
    class RecurrentActorCriticPolicy:
        """Named as sb3-contrib names it, which is how one is told."""

    class Model:
        policy = RecurrentActorCriticPolicy()

        def predict(self, rows: np.ndarray, state: object = None, deterministic: bool = False) -> tuple[np.ndarray, None]:
            return np.zeros((len(rows), 2), np.float32), None

    with pytest.raises(DyDiffError, match="recurrent"):
        load_policy(Model(), SPEC)


def test_an_agent_acts_within_the_bounds_it_is_loaded_for(tmp_path: Path) -> None:
    from dydiff_env.agents import agent_class

    wide = dataclasses.replace(SPEC, action_space=gym.spaces.Box(-9, 9, SPEC.action_space.shape))
    agent_class("td3bc")(wide).save(tmp_path / "wide.pt")
    policy = load_policy(tmp_path / "wide.pt", SPEC)
    actions = policy.act(1e3 * torch.randn(64, SPEC.observation_size))
    assert float(actions.abs().max()) <= float(SPEC.action_space.high.max()) and policy.clipped > 0
    assert load_policy(tmp_path / "wide.pt").act(1e3 * torch.randn(64, SPEC.observation_size)).abs().max() > 1


GAIN = 1.0


def with_a_global(rows: torch.Tensor) -> torch.Tensor:
    return GAIN * rows[:, :2]


def test_what_a_function_holds_is_part_of_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (4,), np.float32), gym.spaces.Box(-1, 1, (2,), np.float32))

    def push(value: float):
        return lambda rows: torch.full((len(rows), 2), value)

    def default(value: float):
        def act(rows: torch.Tensor, deterministic: bool = True, *, to: float = value) -> torch.Tensor:
            return torch.full((len(rows), 2), to)

        return act

    class Table:
        def __init__(self, value: float) -> None:
            self.rows = {"gains": [np.full(2, value)]}

        def act(self, observations: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
            return torch.as_tensor(np.tile(self.rows["gains"][0], (len(observations), 1)))

    for make in (push, default, Table, lambda value: functools.partial(lambda value, rows: push(value)(rows), value)):
        first, again, other = (as_policy(make(value), spec).fingerprint for value in (0.5, 0.5, -0.5))
        assert first == again != other
    before = as_policy(with_a_global, spec).fingerprint
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    assert as_policy(with_a_global, spec).fingerprint != before


def test_an_objects_fingerprint_is_of_what_it_would_pickle() -> None:
    """SB3's VecNormalize holds a whole environment besides its statistics, of which only these decide an action."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


    def held(mean: float, count: int) -> str:
        envs = VecNormalize(DummyVecEnv([lambda: Toy(gym.spaces.Box(-count, count, (WIDTH,)))]))
        envs.observation_space, envs.obs_rms.mean[:] = SPEC.observation_space, mean
        drawn = np.random.RandomState(count)
        function = lambda rows: envs.normalize_obs(rows.numpy())[:, :A] + 0 * drawn.rand()  # noqa: E731
        return as_policy(function, SPEC).fingerprint

    assert held(0, 9) == held(0, 8) != held(1, 9)


def test_finding_out_about_a_policy_does_not_count(tiny_world) -> None:
    policy = as_policy(lambda rows: torch.full((len(rows), 3), 2.0), tiny_world.spec)
    tiny_world.dream(policy, tiny_world.sample_starts(4), 8, 1, trust=0.0)
    assert 0 < policy.proposed == policy.clipped <= 4 * 8 * 2  # the rollout and its correction, and none of the states it was tried on
