"""Small real datasets that every test can use, and caches that stay out of the user's home."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

# Set before anything reads them, so that subprocesses inherit them too.
_HOME = tempfile.mkdtemp(prefix="dydiff-env-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "NO_COLOR", "COLUMNS", "TERMINAL_WIDTH", "DYDIFF_ENV_WORLD", "WORLD_SIZE"):
    os.environ.pop(_name, None)  # what a terminal or a cluster would say
os.environ["DYDIFF_ENV_CACHE"] = str(Path(_HOME, "cache"))
os.environ["MINARI_DATASETS_PATH"] = str(Path(_HOME, "minari"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from dydiff_env.data.dataset import Dataset, DatasetSpec  # noqa: E402
from dydiff_env.data.minari_io import load_dataset, write_dataset  # noqa: E402
from dydiff_env.data.recorder import record  # noqa: E402
from dydiff_env.data.simulator import make_env  # noqa: E402


@pytest.fixture(autouse=True)
def _the_same_draws_each_time() -> None:
    """A test that failed fails again: what draws without a generator of its own draws the same numbers in each run."""
    torch.manual_seed(0)


def noise(size: int, seed: int):
    """Actions that drift: smooth noise keeps a hopper up longer than white noise does."""
    rng = np.random.default_rng(seed)
    state = np.zeros((1, size))

    def act(observations: np.ndarray) -> np.ndarray:
        nonlocal state
        scale = np.linspace(0.0, 0.3, len(observations))[:, None]  # each copy has its own
        state = 0.9 * state + scale * rng.standard_normal((len(observations), size))
        return state

    return act


def record_folder(env_id: str, folder: Path, act, steps: int, dataset_id: str, **kwargs) -> Path:
    """A Minari folder of ``steps`` real transitions."""
    with make_env(env_id, **kwargs) as env:
        spec = DatasetSpec(env.observation_space, env.action_space, env.spec.to_json(), dataset_id,
                           ref_min_score=20.0, ref_max_score=3400.0)
    episodes = list(record(env_id, act, steps=steps, num_envs=8, **kwargs))
    return write_dataset(folder, Dataset.from_episodes(spec, episodes))


@pytest.fixture(scope="session")
def hopper_folder(tmp_path_factory) -> Path:
    """Hopper-v5 under smooth noise: 4 000 transitions, some tens of steps an episode, as a Minari folder."""
    folder = tmp_path_factory.mktemp("data") / "hopper.minari"
    return record_folder("Hopper-v5", folder, noise(3, 0), 4000, "tests/hopper-v0")


@pytest.fixture(scope="session")
def hopper_dataset(hopper_folder) -> Dataset:
    """The same, loaded."""
    return load_dataset(hopper_folder)


@pytest.fixture(scope="session")
def tiny_world(hopper_dataset):
    """A world small enough to fit in seconds; what it dreams is rough."""
    from dydiff_env.world.presets import TINY
    from dydiff_env.world.world import World

    return World.fit(hopper_dataset, preset=replace(TINY, dynamics=replace(TINY.dynamics, memory=True)), seed=0)


@pytest.fixture(scope="session")
def tiny_world_path(tiny_world, tmp_path_factory) -> Path:
    """The same, saved."""
    path = tmp_path_factory.mktemp("world") / "world"
    tiny_world.save(path)
    return path
