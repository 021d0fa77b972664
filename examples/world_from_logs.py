"""A world of something that has no simulator: from a CSV of logs to an environment one can act in.

    python examples/world_from_logs.py logs.csv out/

The table has one row a state, the last of an episode only saying where it ended: episode, angle, speed, torque, reward.
Without a file the script writes one: a pendulum that is kicked at random, to compare the dream with what it really does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np

import dydiff_env
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.minari_io import write_dataset


def pendulum(states: np.ndarray, torques: np.ndarray) -> np.ndarray:
    """The next (angle, speed) of pendulums (N, 2) under torques (N, 1)."""
    angle, speed = states.T
    speed = 0.98 * speed + 0.05 * (torques[:, 0] - 2.0 * np.sin(angle))
    return np.stack([angle + 0.1 * speed, speed], 1)


def write_logs(path: Path, episodes: int, steps: int = 60) -> None:
    rng, rows = np.random.default_rng(0), []
    states, torques = rng.uniform(-1, 1, (episodes, 2)), np.zeros((episodes, 1))
    for _ in range(steps):
        torques = np.clip(0.8 * torques + 0.4 * rng.normal(size=torques.shape), -1, 1)
        rewards = -np.abs(states[:, 0])
        rows.append(np.column_stack([np.arange(episodes), states, torques, rewards]))
        states = pendulum(states, torques)
    table = np.stack(rows, 1).reshape(-1, 5)
    np.savetxt(path, table, delimiter=",", header="episode,angle,speed,torque,reward", comments="", fmt="%.6g")


def main(logs: str, out: str, preset: str = "tiny", episodes: int = 300) -> float:
    if not Path(logs).exists():
        write_logs(Path(logs), episodes)
    table = np.genfromtxt(logs, delimiter=",", names=True)  # a blank number is NaN, and refused
    parts = []
    for number in np.unique(table["episode"]):
        rows = table[table["episode"] == number]
        states = np.stack([rows["angle"], rows["speed"]], 1)  # L + 1 states, of which the last only ends the episode
        parts.append(Episode(states, rows["torque"][:-1, None], rows["reward"][:-1], terminated=False))
    spec = DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32),
                       dataset_id="lab/pendulum-v0")  # fmt: skip
    dataset = Dataset.from_episodes(spec, parts)
    write_dataset(Path(out, "logs.minari"), dataset, overwrite=True)
    world = dydiff_env.World.fit(dataset, preset=preset, out=Path(out, "world"), overwrite=True, progress=True)

    env = gym.make("DyDiffDream-v0", world=world, horizon=40)
    state, _ = env.reset(seed=0)
    real, errors = np.asarray(state, float)[None], []
    for _ in range(40):
        torque = -0.5 * state[1:]  # brakes
        state = env.step(torque.clip(-1, 1).astype(np.float32))[0]
        real = pendulum(real, torque[None])
        errors.append(np.abs(state - real[0]) / dataset.observations.std(0))
    print(f"after 40 dreamt steps the error is {np.mean(errors[-1]):.3f} standard deviations of the data")
    return float(np.mean(errors[-1]))


if __name__ == "__main__":
    main(*sys.argv[1:3])
