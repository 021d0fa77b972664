"""Every kind of policy exports from a Hopper world, and the stored actions are the library's own on the stored states."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from torch import nn

from dydiff_env.agents import agent_class
from dydiff_env.data.registry import register
from dydiff_env.synthesis.export import export

OPTIONS: dict[str, Any] = {"horizon": 12, "batch": 12, "iterations": 1}
WIDTH, SIZE = 11, 3


def exported(world: Any, policy: Any, out: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """States and the actions stored for them."""
    report = export(world, policy, out, **OPTIONS, **options)
    episodes = list(minari.MinariDataset(out).iterate_episodes())
    assert report["trajectories"] == len(episodes) == 9
    states = np.concatenate([episode.observations[:-1] for episode in episodes])
    return states.astype(np.float32), np.concatenate([episode.actions for episode in episodes])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(WIDTH, 32), nn.Tanh(), nn.Linear(32, SIZE), nn.Tanh()).eval()


@pytest.mark.parametrize("kind", ["torchscript", "export", "onnx"])
def test_tensor_formats(kind: str, network: nn.Module, tiny_world: Any, tmp_path: Path) -> None:
    file = tmp_path / "policy.bin"
    if kind == "torchscript":
        torch.jit.script(network).save(str(file))
    elif kind == "export":
        shapes = ({0: torch.export.Dim("batch", min=1, max=1 << 20)},)
        program = torch.export.export(network, (torch.zeros(4, WIDTH),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / "policy.pt2")
        (tmp_path / "policy.pt2").rename(file)
    else:
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        layer, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
        weights = [
            onnx.numpy_helper.from_array(part.detach().numpy(), f"{name}{i}")
            for i in (0, 2)
            for name, part in (("w", network[i].weight), ("b", network[i].bias))
        ]
        nodes = [
            layer("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
            layer("Tanh", ["h"], ["t"]),
            layer("Gemm", ["t", "w2", "b2"], ["o"], transB=1),
            layer("Tanh", ["o"], ["y"]),
        ]
        graph = onnx.helper.make_graph(
            nodes, "policy", [value("x", 1, ["batch", WIDTH])], [value("y", 1, ["batch", SIZE])], weights
        )
        version = [onnx.helper.make_opsetid("", 17)]
        file.write_bytes(
            onnx.helper.make_model(graph, opset_imports=version, ir_version=9).SerializeToString()
        )
    states, actions = exported(tiny_world, file, tmp_path / "syn", trust=kind == "export")
    own = network(torch.from_numpy(states)).detach().numpy()
    assert np.abs(own - actions).max() < 1e-4


@pytest.mark.parametrize("algorithm", ["SAC", "PPO", "TQC"])
def test_stable_baselines3_with_and_without_statistics(
    algorithm: str, tiny_world: Any, tmp_path: Path
) -> None:
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    maker = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Hopper-v5")]))
    env.seed(0)
    env.reset()
    for _ in range(50):
        env.step(np.zeros((1, SIZE), np.float32))
    model = maker("MlpPolicy", env, seed=0, device="cpu")
    model.save(tmp_path / "model.zip")
    env.save(str(tmp_path / "statistics.pkl"))
    for statistics in (None, tmp_path / "statistics.pkl"):
        out = tmp_path / f"syn{statistics is None}"
        states, actions = exported(
            tiny_world, tmp_path / "model.zip", out, trust=True, vecnormalize=statistics
        )
        seen = states if statistics is None else env.normalize_obs(states)
        own = model.predict(seen, deterministic=True)[0]
        assert np.abs(own - actions).max() < 1e-4


def test_our_agent_and_stochastic_rollouts(tiny_world: Any, tmp_path: Path) -> None:
    agent = agent_class("td3bc")(tiny_world.spec, seed=0)
    agent.save(tmp_path / "agent.pt")
    states, actions = exported(tiny_world, tmp_path / "agent.pt", tmp_path / "syn")
    assert np.abs(agent.predict(states)[0] - actions).max() < 1e-4
    from stable_baselines3 import PPO

    PPO("MlpPolicy", gym.make("Hopper-v5"), seed=0, device="cpu").save(tmp_path / "ppo.zip")
    drawn = [
        exported(
            tiny_world,
            tmp_path / "ppo.zip",
            tmp_path / f"drawn{i}",
            trust=True,
            deterministic=False,
            seed=seed,
        )
        for i, seed in enumerate((0, 0, 1))
    ]
    assert np.array_equal(drawn[0][1], drawn[1][1])
    assert not np.array_equal(drawn[0][1][:9], drawn[2][1][:9])


def test_a_callable_by_name_and_the_random_policy(
    tiny_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hopper_policies.py").write_text(
        "import torch\ndef lean(observations):\n    return 3 * observations[:, :3]\n"
    )
    monkeypatch.chdir(tmp_path)
    states, actions = exported(tiny_world, "hopper_policies:lean", tmp_path / "syn")
    assert np.abs(np.clip(3 * states[:, :3], -1, 1) - actions).max() < 1e-4
    _, actions = exported(tiny_world, "random", tmp_path / "random")
    assert np.abs(actions).max() <= 1 and actions.std() > 0.4


def test_the_behaviour_clone(
    tiny_world: Any, hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dydiff_env.policies import behavior

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "registry"))
    register(hopper_folder, tiny_world.spec.dataset_id)
    monkeypatch.setattr(behavior, "clone", partial(behavior.clone, updates=50))
    states, actions = exported(tiny_world, "behavior", tmp_path / "syn")
    own = behavior.load(tiny_world.spec, "cpu").act(torch.from_numpy(states)).detach().numpy()
    assert np.abs(np.clip(own, -1, 1) - actions).max() < 1e-4
