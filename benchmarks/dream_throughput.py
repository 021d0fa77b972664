"""Steps a second of batched dreams against the real simulator, both on one core in one run.

python benchmarks/dream_throughput.py --world WORLD --policy FILE [--num-envs 256] [--seconds 20] [--json FILE]

Rates are of this process's own CPU time, so that a busy machine does not favour whichever side ran while it was quiet;
wall time is given beside it. The policy's own forward pass is inside both the dream's and the simulator's loop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from dydiff_env.data.flattening import flatten_batch
from dydiff_env.data.simulator import make_vec_env
from dydiff_env.envs import ENV_ID, register
from dydiff_env.evaluation.scores import environment_of
from dydiff_env.policies import load_policy
from dydiff_env.world.world import World

Act = Callable[[np.ndarray], np.ndarray]


def measure(env: gym.vector.VectorEnv, act: Act, seconds: float) -> dict[str, float]:
    """Step ``env`` with ``act`` for some seconds after a first reset and a warm-up of 5 steps."""
    observations, _ = env.reset(seed=0)
    for _ in range(5):
        observations, *_ = env.step(act(observations))
    cpu, wall, steps, left = time.process_time(), time.perf_counter(), 0, 0
    while time.process_time() - cpu < seconds:
        observations, _, _, _, infos = env.step(act(observations))
        steps += env.num_envs
        left += int(np.sum(infos.get("replanned", 0)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    env.close()
    return {"steps_per_cpu_second": steps / cpu, "steps_per_second": steps / wall, "replanned": left / steps}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--horizon", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register()
    world = World.load(arguments.world)
    policy = load_policy(arguments.policy, world.spec)
    rng = np.random.default_rng(0)
    space = world.spec.observation_space

    def follow(observations: np.ndarray) -> np.ndarray:
        return policy.act(torch.as_tensor(flatten_batch(space, observations))).numpy()

    def stray(observations: np.ndarray) -> np.ndarray:
        actions = follow(observations)
        noisy = actions + rng.normal(0, 0.2, actions.shape)
        return np.clip(noisy, policy.low.numpy(), policy.high.numpy()).astype(np.float32)

    def dream(**options: object) -> gym.vector.VectorEnv:
        return gym.make_vec(ENV_ID, arguments.num_envs, world=world, horizon=arguments.horizon, **options)  # type: ignore[arg-type]

    source = environment_of(world.spec)
    rows = {
        f"simulator {source.id}": measure(
            make_vec_env(source, arguments.num_envs), follow, arguments.seconds
        ),
        "dream, policy followed": measure(dream(policy=policy, start="initial"), follow, arguments.seconds),
        "dream, left at every step": measure(dream(policy=policy), stray, arguments.seconds),
        "dream, no policy": measure(dream(), stray, arguments.seconds),
    }
    base = next(iter(rows.values()))["steps_per_cpu_second"]
    for name, row in rows.items():
        row["ratio"] = row["steps_per_cpu_second"] / base
        print(
            f"{name:28s} {row['steps_per_cpu_second']:9.0f} steps/CPU s   {row['steps_per_second']:9.0f} steps/s   "
            f"{row['ratio']:5.2f} x   replanned {row['replanned']:.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"world": world.record.get("dataset"), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
