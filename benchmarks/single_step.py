"""What waves and hard examples give the single-step model: ensembles trained with and without them, otherwise alike.

    python benchmarks/single_step.py DATASET --world WORLD --policies POLICY… [--steps 8000] [--members 4] [--starts 256] \
        [--out benchmarks/results/NAME.json]

Each is put into WORLD, whose other models stay, and asked for single-step dreams (M = 0): their squared error against the
simulator, and in a maze the share that stays out of the walls. Held out: squared error in units of the change's variance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.fidelity import common_starts, errors, legal
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.products import fast_products
from dydiff_env.world.fit_single_step import fit_dynamics
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import FAST

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"frequencies": (), "hard": 0.0},
    "hard examples": {"frequencies": (), "hard": 0.5},
    "waves": {"frequencies": FAST.dynamics.frequencies, "hard": 0.0},
    "both": {"frequencies": FAST.dynamics.frequencies, "hard": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--world", required=True)
    parser.add_argument("--policies", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--starts", type=int, default=256)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, world = one_goal_each(load_dataset(arguments.dataset)), World.load(arguments.world)
    simulator = Simulator(world.spec)
    starts = common_starts(world, simulator, arguments.starts, seed=123)
    policies = {Path(path).stem: load_policy(path, world.spec) for path in arguments.policies}
    real = {name: simulator.follow(policy, starts, world.horizon) for name, policy in policies.items()}
    found: dict[str, Any] = {}
    for variant, changes in VARIANTS.items():
        dynamics = replace(FAST.dynamics, members=arguments.members, elites=min(4, arguments.members), **changes)
        training = replace(FAST.dynamics_training, steps=arguments.steps)
        preset = replace(FAST, dynamics=dynamics, dynamics_training=training)
        with tempfile.TemporaryDirectory() as folder, fast_products(torch.device("cpu")):
            fitting = Fitting(data, preset, 0, Path(folder), torch.device("cpu"))
            record = fit_dynamics(fitting)
        world.models.dynamics = fitting.models.dynamics.eval().requires_grad_(False)
        row: dict[str, Any] = {"held_out": float(np.mean(record["holdout"])), "seconds": record["seconds"]}
        for name, policy in policies.items():
            dreamt = world.dream(policy, starts, world.horizon, 0)
            error, known = errors(world, dreamt, real[name])
            row[name] = {"error": float((error * known).sum() / known.sum())}
            if simulator.maze:
                row[name]["legal"] = legal(simulator, dreamt)
        found[variant] = row
        print(f"{variant}: {json.dumps(row)}", flush=True)
    if arguments.out:
        command = (
            f"python benchmarks/single_step.py {Path(arguments.dataset).name} --world WORLD --policies POLICY… "
            f"--steps {arguments.steps} --members {arguments.members} --starts {arguments.starts}"
        )
        arguments.out.write_text(json.dumps({"command": command, "variants": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
