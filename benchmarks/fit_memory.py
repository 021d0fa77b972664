"""Peak resident memory of a fit on a synthetic dataset of many transitions, a few steps of every stage.

python benchmarks/fit_memory.py [--transitions 10000000] [--steps 500] [--out benchmarks/results/fit_memory.json]

The data lie in memory-mapped files, as the cache of a Minari dataset does; pages of theirs that are in memory count as resident.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from numpy.lib.format import open_memmap

from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.world.fit import fit
from dydiff_env.world.presets import FAST, Preset

EPISODE = 1000


def synthetic(folder: Path, transitions: int) -> Dataset:
    """Hopper's sizes: states that wander under random actions, every third episode ending in a terminal state."""
    rng = np.random.default_rng(0)
    episodes = transitions // EPISODE
    observations = open_memmap(folder / "observations.npy", "w+", np.float32, (episodes * (EPISODE + 1), 11))
    actions = open_memmap(folder / "actions.npy", "w+", np.float32, (episodes * EPISODE, 3))
    rewards = open_memmap(folder / "rewards.npy", "w+", np.float32, (episodes * EPISODE,))
    mixing = rng.standard_normal((3, 11)).astype(np.float32) / 10
    block = 500  # episodes side by side
    for first in range(0, episodes, block):
        n = min(block, episodes - first)
        acted = rng.uniform(-1, 1, (n, EPISODE, 3)).astype(np.float32)
        states = np.zeros((n, EPISODE + 1, 11), np.float32)
        states[:, 0] = rng.standard_normal((n, 11))
        for t in range(EPISODE):
            states[:, t + 1] = 0.99 * states[:, t] + acted[:, t] @ mixing
        rows, steps = slice(first * (EPISODE + 1), (first + n) * (EPISODE + 1)), slice(first * EPISODE, (first + n) * EPISODE)
        observations[rows] = states.reshape(-1, 11)
        actions[steps] = acted.reshape(-1, 3)
        rewards[steps] = states[:, 1:, 0].reshape(-1)
    arrays = [
        np.asarray(np.load(folder / f"{n}.npy", mmap_mode="r")) for n in ("observations", "actions", "rewards")
    ]
    infinite = np.full(11, np.inf, np.float32)
    spec = DatasetSpec(
        gym.spaces.Box(-infinite, infinite), gym.spaces.Box(-1, 1, (3,), np.float32), fingerprint="synthetic"
    )
    return Dataset(spec, *arrays, np.arange(episodes) % 3 == 0, EPISODE * np.arange(episodes + 1))


def short(steps: int) -> Preset:
    """The fast preset with ``steps`` steps of every stage and as many training rollouts as those need."""
    trainings = {
        name: dataclasses.replace(value, steps=steps)
        for name, value in vars(FAST).items()
        if name.endswith("_training")
    }
    assert FAST.anchors is not None
    return dataclasses.replace(FAST, **trainings, anchors=dataclasses.replace(FAST.anchors, windows=10_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = synthetic(Path(folder), arguments.transitions)
        made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        began = time.monotonic()
        fit(data, preset=short(arguments.steps), out=Path(folder) / "world")
        result = {
            "command": f"python benchmarks/fit_memory.py --transitions {arguments.transitions} --steps {arguments.steps}",
            "data_gigabytes": sum(a.nbytes for a in (data.observations, data.actions, data.rewards)) / 2**30,
            "peak_gigabytes_before_fit": made,
            "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "seconds": time.monotonic() - began,
        }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
