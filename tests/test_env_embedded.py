"""Straight after installation, with nothing made or given: a world, a policy, dreams, videos, examples."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dydiff_env import embedded, load_policy
from dydiff_env.agents import BC
from dydiff_env.envs.worlds import find_world, world_folder
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import as_policy

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def nothing_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYDIFF_ENV_WORLD", raising=False)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_small_explained_and_holds_no_code() -> None:
    files = [*embedded.WORLD.iterdir(), embedded.POLICY]
    assert sum(file.stat().st_size for file in files) < 3e6
    assert {file.suffix for file in files} == {".json", ".safetensors", ".pt"}
    torch.load(embedded.POLICY, weights_only=True)
    assert "build_embedded" in (embedded.FOLDER / "README.md").read_text()


def test_the_environment_without_a_world_is_the_embedded_one() -> None:
    env = gym.make("DyDiffDream-v0", policy="demo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity.*")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space == embedded.spec().observation_space
    batch = gym.make_vec("DyDiffDream-v0", num_envs=2)
    assert batch.reset(seed=0)[0] in batch.observation_space


def test_worlds_of_ones_own_come_first(tiny_world_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_world(None).preset.name == "embedded"
    (tmp_path / "world").symlink_to(tiny_world_path)
    assert find_world(None).preset.name == "tiny"
    monkeypatch.setenv("DYDIFF_ENV_WORLD", str(embedded.WORLD))
    assert find_world(None).preset.name == "embedded"
    monkeypatch.setenv("DYDIFF_ENV_WORLD", "elsewhere")
    with pytest.raises(DyDiffError, match="elsewhere"):
        find_world(None)


def test_the_demo_policy_is_exported_without_the_maze_package(tmp_path: Path) -> None:
    code = "import sys; sys.modules['gymnasium_robotics'] = None; from dydiff_env.cli.app import main; main()"
    line = ["export", "--policy", "demo", "--out", "syn.minari", "--batch", "8", "--horizon", "12", "--keep", "1"]
    subprocess.run([sys.executable, "-c", code, *line], check=True, capture_output=True)
    dataset = minari.MinariDataset(tmp_path / "syn.minari")
    assert dataset.total_episodes == 8
    assert dataset.observation_space == embedded.spec().observation_space


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_environments_in_forked_processes_dream_though_this_one_has_threads() -> None:
    code = """if True:
        import gymnasium as gym, numpy as np, torch, dydiff_env
        torch.set_num_threads(2)
        gym.make("DyDiffDream-v0", policy="demo").reset(seed=0)
        envs = gym.make_vec("DyDiffDream-v0", num_envs=2, vectorization_mode="async", vector_kwargs={"context": "fork"}, policy="demo")
        envs.reset(seed=0)
        assert np.isfinite(envs.step(np.zeros((2, 2), np.float32))[1]).all()
        envs.close()
    """
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_the_demo_policy_belongs_to_its_own_spaces(tiny_world) -> None:
    assert load_policy("demo").kind == "td3bc"
    with pytest.raises(DyDiffError, match="size 8"):
        load_policy("demo", tiny_world.spec)


def test_a_video_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    env = gym.make("DyDiffDream-v0", policy="demo", render_mode="rgb_array", horizon=3)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "videos"))
    env.reset(seed=0)
    while not env.step(env.action_space.sample())[3]:
        pass
    env.close()
    (file,) = (tmp_path / "videos").glob("*.mp4")
    assert file.stat().st_size > 1000


def test_a_window_shows_the_dream(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", os.environ.get("SDL_VIDEODRIVER", "dummy"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*HumanRendering.*")
        env = gym.make("DyDiffDream-v0", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    env.close()


def test_dream_and_reality_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium_robotics")
    image = pytest.importorskip("PIL.Image")
    picture = image.open(example("dream_video").main(str(tmp_path / "dream.gif"), steps=6, width=64))
    assert picture.n_frames == 4 and picture.width == 128


def test_fine_tuning_starts_from_the_policy_and_reports_both_returns() -> None:
    pytest.importorskip("gymnasium_robotics")
    found = example("finetune_in_the_dream").main(steps=32, seeds=1, episodes=2, num_envs=4, n_steps=8, horizon=8)
    assert len(found) == 1 and all(0 <= value <= 300 for value in found[0])


def test_an_sb3_agent_of_a_dict_space_is_a_policy() -> None:
    from stable_baselines3 import PPO

    env = gym.make("DyDiffDream-v0", horizon=4)
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, device="cpu")
    observation, _ = env.reset(seed=0)
    rows = torch.from_numpy(gym.spaces.flatten(env.observation_space, observation)).float()[None]
    action = as_policy(model, embedded.spec()).act(rows).numpy()[0]
    np.testing.assert_allclose(action, model.predict(observation, deterministic=True)[0], atol=1e-5)


def test_a_folder_called_demo_does_not_hide_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # `dydiff-env demo` leaves one
    assert world_folder("demo") == embedded.WORLD
    assert as_policy("demo", embedded.spec()).kind == "td3bc"


def test_the_environment_dreams_in_the_world_that_the_checkpoint_names(
    tiny_world_path: Path, hopper_dataset, tmp_path: Path
) -> None:
    checkpoint = BC(hopper_dataset.spec, world=str(tiny_world_path)).save(tmp_path / "agent.pt")
    env = gym.make("DyDiffDream-v0", policy=str(checkpoint))
    assert env.observation_space.shape == (11,)  # the embedded maze's is a Dict
    env.close()
