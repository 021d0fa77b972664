"""Build the world and the policy that ship inside the package, and their model card.

    python benchmarks/build_embedded.py            # or: make embedded

Logged data, a world, a TD3+BC agent: what `collect`, `fit` and `train` do, at sizes that keep the files small. Unlike
in `collect`, a goal stays where it is: the goals that D4RL's mazes set anew when they are reached cannot be foreseen, and
a first world should be one whose returns can. Weights are rounded to 16 bits (they are computed with in 32).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import dydiff_env.embedded as embedded
from dydiff_env.agents import Replay, Schedule, train
from dydiff_env.agents.td3bc import TD3BC, TD3BCConfig
from dydiff_env.data.collect import describe
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.recorder import record
from dydiff_env.data.simulator import make_env
from dydiff_env.data.waypoint import WaypointConfig, WaypointController
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.evaluation.scores import environment_of, evaluate_returns
from dydiff_env.policies import load_policy
from dydiff_env.world.behavior import BehaviorConfig
from dydiff_env.world.presets import FAST, AnchorConfig, Preset
from dydiff_env.world.refine import RefinementConfig
from dydiff_env.world.reward import RewardConfig
from dydiff_env.world.termination import TerminationConfig
from dydiff_env.world.training import TrainingConfig
from dydiff_env.world.transformer import TransformerConfig
from dydiff_env.world.world import World

ENV_ID = "PointMaze_UMaze-v3"
TASK = {"continuing_task": True, "reset_target": False, "reward_type": "sparse"}  # a point a step at the goal
NOISES = (0.5, 1.0)  # of the controller's forces: half the data each
STEPS = 150  # of a logged episode; most of the 300 that the task allows would be spent at the goal
STARTS = 4096  # of each bank of start states


def preset(scale: float) -> Preset:
    """The default's form, smaller; ``scale`` multiplies the training steps."""

    def steps(config: TrainingConfig, count: int) -> TrainingConfig:
        count = max(20, round(count * scale))
        return replace(config, steps=count, evaluate_every=max(1, count // 20))

    return replace(
        FAST,
        name="embedded",
        refinement=RefinementConfig(trust=0.5),  # measured: in the simulator it serves better than what the members say
        horizon=64,
        dynamics=replace(FAST.dynamics, members=4, elites=3, width=96, depth=3, memory=False),  # a maze is seen whole
        dynamics_training=steps(FAST.dynamics_training, 4_000),
        reward=RewardConfig(width=128),
        reward_training=steps(FAST.reward_training, 3_000),
        termination=TerminationConfig(width=32, depth=2),
        termination_training=steps(FAST.termination_training, 500),
        behavior=BehaviorConfig(clones=3, width=96),
        behavior_training=steps(FAST.behavior_training, 800),
        anchors=AnchorConfig(windows=max(256, round(8_000 * scale))),
        network=TransformerConfig(width=64, blocks=3),
        denoiser_training=steps(FAST.denoiser_training, 2_500),
    )


def collect(transitions: int, seed: int) -> Dataset:
    """A noisy waypoint controller in the maze, with the reference scores of it and of random actions."""
    spec = describe(ENV_ID, **TASK)
    assert spec.env_spec is not None
    base: Any = make_env(spec.env_spec).unwrapped

    def controller(noise: float) -> WaypointController:
        return WaypointController(base.maze, spec.observation_space, WaypointConfig(noise=noise, memory=0.0), seed)

    def score(act: Any) -> float:
        episodes = record(spec.env_spec, act, episodes=32, num_envs=16, seed=seed + 1)
        return float(np.mean([episode.rewards.sum() for episode in episodes]))

    rng = np.random.default_rng(seed)
    low, high = score(lambda rows: rng.uniform(-1, 1, (len(rows), 2))), score(controller(NOISES[0]))
    spec = replace(spec, dataset_id="dydiff-env/umaze-v0", ref_min_score=low, ref_max_score=high)
    episodes = [
        episode
        for i, noise in enumerate(NOISES)
        for episode in record(
            spec.env_spec,
            controller(noise),
            steps=transitions // len(NOISES),
            num_envs=16,
            seed=seed + i,
            max_episode_steps=STEPS,
        )
    ]
    return Dataset.from_episodes(spec, episodes)


def shrink(world: World, folder: Path) -> None:
    """Save a world with weights of 16 bits and fewer start states; loading widens the weights again."""
    rng = np.random.default_rng(0)

    def some(bank: np.ndarray) -> np.ndarray:
        return np.sort(rng.choice(len(bank), min(STARTS, len(bank)), replace=False))

    anywhere, initial = some(world.start_bank), some(world.initial_bank)
    before = None if world.before_bank is None else world.before_bank[anywhere]
    world = replace(
        world, start_bank=world.start_bank[anywhere], initial_bank=world.initial_bank[initial], before_bank=before
    )
    world.record["weights"] = "rounded to 16 bits"
    world.save(folder, overwrite=True)
    tensors = load_file(folder / "world.safetensors")
    narrow = {
        name: value.half() if name.startswith("models.") and value.is_floating_point() else value
        for name, value in tensors.items()
    }
    save_file(narrow, folder / "world.safetensors")
    (folder / "world.safetensors").chmod(0o644)


def build(out: Path, scratch: Path, scale: float, seed: int) -> dict[str, Any]:
    """Make everything under ``out``; returns what the model card says."""
    begun = time.process_time()
    data = collect(round(60_000 * min(1.0, scale)), seed)
    world = World.fit(data, preset=preset(scale), seed=seed, out=scratch / "world", overwrite=True, progress=True)
    shrink(world, out / "world")
    agent = TD3BC(data.spec, TD3BCConfig(hidden=(128, 128)), seed=seed)
    updates = round(20_000 * scale)
    quiet = Schedule(log_every=max(1, updates // 10), checkpoint_every=updates)
    train(agent, Replay(data), updates, scratch / "policy.pt", schedule=quiet, progress=True)
    shutil.copyfile(scratch / "policy.pt", out / "policy.pt")
    seconds = time.process_time() - begun
    small = World.load(out / "world")
    policy = load_policy(out / "policy.pt", small.spec)
    starts = small.sample_starts(128, seed=1)
    gap = small.dream(policy, starts).observations - world.dream(policy, starts).observations
    real = evaluate_returns(policy, environment_of(small.spec), 64, seed=1)
    dreamt = dream_returns(small, policy, 64, seed=1)
    return {
        "seconds": seconds,
        "transitions": data.transitions,
        "updates": updates,
        "rounding": float(np.abs(gap / small.normalizer.std.numpy()).mean()),
        "real": float(real.returns.mean()),
        "low": small.spec.ref_min_score,
        "high": small.spec.ref_max_score,
        "dreamt": float(dreamt.returns.mean()),
        "record": small.record,
        "iterations": small.iterations,
        "bytes": sum(file.stat().st_size for file in [*(out / "world").iterdir(), out / "policy.pt"]),
    }


def card(found: dict[str, Any]) -> str:
    """The model card."""
    fidelity = found["record"]["fidelity"]
    single, denoiser = (fidelity["open_loop"][name] for name in ("single_step", "denoiser"))
    rows = "\n".join(f"| {key[1:]} | {single[key]:.4f} | {denoiser[key]:.4f} |" for key in single if key != "mean")
    closed = {name: values["mean"] for name, values in fidelity["closed_loop"].items()}
    return f"""# The embedded world and policy

A world of `{ENV_ID}` (gymnasium-robotics) and a TD3+BC policy for it, made by this package alone:

```bash
python benchmarks/build_embedded.py
```

It is used by `gym.make("DyDiffDream-v0")` without a world and by `--policy demo`. It is there to try things with;
results worth reporting want a world of your own (`dydiff-env fit`).

| | |
| --- | --- |
| Data | {found["transitions"]:,} transitions of a waypoint controller with noise {NOISES[0]} and {NOISES[1]} |
| World | windows of 64 steps, {sum(found["record"]["parameters"].values()):,} parameters, rounded to 16 bits; M = {found["iterations"]} |
| Policy | TD3+BC, hidden layers 128 × 2, {found["updates"]:,} updates on the same data |
| Size | {found["bytes"] / 1e6:.2f} MB in all |
| Training | {found["seconds"] / 60:.1f} minutes on one CPU core |
| Return of the policy over 300 steps | {found["real"]:.1f} in the simulator, {found["dreamt"]:.1f} in the dream |
| Return of random actions, of the controller | {found["low"]:.1f}, {found["high"]:.1f} in the simulator |
| Change of a dreamt state by rounding | {found["rounding"]:.4f} standard deviations |

Mean squared error on held-out windows under logged actions, standardised states, by step:

| step | single-step model | denoiser |
| ---: | ---: | ---: |
{rows}

Under feedback: {closed["M0"]:.4f} without refinement, {min(v for k, v in closed.items() if k != "M0"):.4f} with the best M.

**Limits.** One maze of five by five cells, with a goal that stays. Walls are learned, not built in: a dream may cut a
corner. MIT licence, as the package.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=embedded.FOLDER)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies data and training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="keep what is made on the way; a fit that was cut short goes on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        found = build(options.out, options.scratch or Path(name), options.scale, options.seed)
    (options.out / "README.md").write_text(card(found))
    print((options.out / "README.md").read_text())


if __name__ == "__main__":
    main()
