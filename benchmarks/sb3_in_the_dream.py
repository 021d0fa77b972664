"""Is a world's dream an environment that Gymnasium and Stable-Baselines3 take as it is?

    python benchmarks/sb3_in_the_dream.py WORLD… [--steps 10000] [--out benchmarks/results/NAME.json]

For each world ("embedded" names the one that ships with the package): Gymnasium's and SB3's checkers with warnings as
errors; the batched environment under each autoreset mode, row by row the same as single environments of the same seeds;
then PPO, SAC and TQC for ``--steps`` steps through their own APIs with their defaults.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from dydiff_env.data.flattening import flatten_batch
from dydiff_env.embedded import WORLD
from dydiff_env.envs import ENV_ID
from dydiff_env.world.world import World

# The spaces are the source environment's, which has no bounds either.
ALLOWED = (".*(minimum|maximum) value is -?infinity.*",)


def checkers(world: World) -> None:
    """Gymnasium's and SB3's, with a policy and without."""
    for policy in (None, "random"):
        env = gym.make(ENV_ID, world=world, policy=policy, render_mode="rgb_array")
        check_env(env.unwrapped)
        sb3_check_env(env)
        env.close()


def batches(world: World, count: int = 4, horizon: int = 12) -> None:
    """Each autoreset mode: values in their spaces, and each row what the single environment of its seed shows."""
    space = world.spec.observation_space
    for mode in AutoresetMode:
        batch = gym.make_vec(ENV_ID, num_envs=count, world=world, horizon=horizon, autoreset_mode=mode)
        singles = [gym.make(ENV_ID, world=world, horizon=horizon) for _ in range(count)]
        observations, _ = batch.reset(seed=3)
        for row, env in enumerate(singles):
            alone = env.reset(seed=3 + row)[0]
            np.testing.assert_allclose(
                flatten_batch(space, observations)[row], gym.spaces.flatten(space, alone), atol=1e-4
            )
        rng, over = np.random.default_rng(0), np.zeros(count, bool)
        low, high = batch.action_space.low, batch.action_space.high  # type: ignore[attr-defined]
        for _ in range(3 * horizon):
            if mode is AutoresetMode.DISABLED and over.any():
                batch.reset(options={"reset_mask": over})
                for row in np.flatnonzero(over):
                    singles[row].reset()
                over[:] = False
            actions = rng.uniform(low, high).astype(batch.action_space.dtype)
            observations, rewards, terminated, truncated, infos = batch.step(actions)
            assert observations in batch.observation_space and np.isfinite(rewards).all()
            flat = flatten_batch(space, observations)
            for row, env in enumerate(singles):
                if over[row] and mode is AutoresetMode.NEXT_STEP:
                    expected, over[row] = env.reset()[0], False
                else:
                    expected, reward, *ends, _ = env.step(actions[row])
                    assert abs(reward - rewards[row]) < 1e-3 and [terminated[row], truncated[row]] == ends
                    over[row] = any(ends)
                    if over[row] and mode is AutoresetMode.SAME_STEP:
                        last = gym.spaces.flatten(space, infos["final_obs"][row])
                        np.testing.assert_allclose(last, gym.spaces.flatten(space, expected), atol=1e-3)
                        expected, over[row] = env.reset()[0], False
                np.testing.assert_allclose(flat[row], gym.spaces.flatten(space, expected), atol=1e-3)
        batch.close()
        for env in singles:
            env.close()


def learns(world: World, name: str, steps: int) -> dict[str, float]:
    """Train with the algorithm's defaults; its own record of episodes says how it went."""
    algorithm: Any = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    kind = "MultiInputPolicy" if isinstance(world.spec.observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = algorithm(kind, gym.make(ENV_ID, world=world), device="cpu", seed=0)
    begun = time.process_time()
    model.learn(steps)
    assert model.num_timesteps >= steps
    return {
        "steps": int(model.num_timesteps),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "last_episodes_return": float(np.mean([episode["r"] for episode in model.ep_info_buffer])),
    }


def attempt(work: Callable[[], Any]) -> dict[str, Any]:
    """What came of it, warnings being errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for message in ALLOWED:
            warnings.filterwarnings("ignore", message=message)
        try:
            return {"passed": True, **(work() or {})}
        except Exception as error:
            return {"passed": False, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worlds", nargs="+")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--algorithms", nargs="*", default=["PPO", "SAC", "TQC"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for path in arguments.worlds:
        world = World.load(WORLD if path == "embedded" else path)
        name = "embedded" if path == "embedded" else Path(path).resolve().name
        trials: dict[str, Callable[[], Any]] = {
            "checkers": lambda world=world: checkers(world),
            "batches": lambda world=world: batches(world),
            **{
                one: lambda world=world, one=one: learns(world, one, arguments.steps)
                for one in arguments.algorithms
            },
        }
        for trial, work in trials.items():
            found = results.setdefault(name, {})[trial] = attempt(work)
            print(f"{name:16s} {trial:10s} {json.dumps(found)}", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    if not all(found["passed"] for trials in results.values() for found in trials.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
