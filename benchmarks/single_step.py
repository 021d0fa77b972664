"""What the single-step model has from each thing that is done for it: ensembles trained with and without, otherwise alike.

    python benchmarks/single_step.py DATASET --world WORLD --policies POLICY… [--vary sight|waves|loss|hard|memory|training] \
        [--steps 4500] [--members 4] [--starts 256] [--seed 0] [--returns policies.json] [--out benchmarks/results/NAME.json]

``--vary sight``: waves and hard examples. ``--vary waves``: how many. ``--vary loss``: the β of the β-NLL. ``--vary hard``: the share
of hard examples, with waves up to 1. ``--vary memory``: one step of it; ``sight`` and ``training`` are without, in ``waves``, ``loss`` and
``hard`` WORLD says. ``--vary training``: the optimizer, and rollouts. AdamW has 8/3 of the steps, of half the batch, which takes it about
as long.
Each is put into WORLD, whose other models stay, and asked for single-step dreams (M = 0): their squared error against the
simulator, and in a maze the share that stays out of the walls. Held out: squared error in units of the change's variance, along the
preset's rollouts. With ``--returns`` (what `make_policies.py` wrote), whole episodes of all its policies are dreamt as well: how well
these rank them, and how far the returns are off, as a share of the real range.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.fidelity import common_starts, errors, legal
from dydiff_env.evaluation.ope import agreement, dream_returns
from dydiff_env.evaluation.scores import Episodes
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.products import fast_products
from dydiff_env.world.fit_single_step import fit_dynamics
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import FAST
from dydiff_env.world.sight import WAVES

ADAMW: dict[str, Any] = {"optimizer": "adamw", "batch": 256, "learning_rate": 2e-3, "beta2": 0.999}
HIGH: dict[str, Any] = ADAMW | {"learning_rate": 4e-3, "beta2": 0.98}
VARIANTS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {  # changes of the model and of its training
    "sight": {
        "plain": ({"frequencies": (), "hard": 0.0}, {}),
        "hard examples": ({"frequencies": ()}, {}),
        "waves": ({"hard": 0.0}, {}),
        "both": ({}, {}),
    },
    "training": {
        "AdamW, single steps": ({"unrolled": 0.0}, ADAMW),
        "AdamW": ({}, ADAMW),
        "AdamW, high rate": ({}, HIGH),
        "SOAP, single steps": ({"unrolled": 0.0}, {}),
        "SOAP": ({}, {}),
    },
    "memory": {"without": ({}, {}), "with": ({"memory": True}, {})},
    "loss": {f"β {beta}": ({"beta": beta}, {}) for beta in (1.0, 0.5, 0.25, 0.0)},
    "hard": {f"hard {share}": ({"hard": share, "frequencies": WAVES[1]}, {}) for share in (0.5, 0.25, 0.0)},
    "waves": {f"up to {max(some, default=0)}": ({"frequencies": some}, {}) for some in WAVES},
}


def ranking(world: World, path: Path) -> dict[str, float]:
    """How whole dreamt episodes agree with the real returns that a file tells."""
    known = json.loads(path.read_text())["policies"]
    real, dreamt = {}, {}
    for name, row in known.items():
        policy = load_policy(path.parent / row["file"], world.spec)
        dreamt[name] = dream_returns(world, policy, 20, iterations=0)
        real[name] = Episodes(np.array([row["return_mean"]]), np.array([row["length_mean"]]))
    return asdict(agreement(dreamt, real))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--world", required=True)
    parser.add_argument("--policies", nargs="+", required=True)
    parser.add_argument("--vary", choices=list(VARIANTS), default="sight")
    parser.add_argument("--returns", type=Path)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--starts", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, world = one_goal_each(load_dataset(arguments.dataset)), World.load(arguments.world)
    simulator = Simulator(world.spec)
    starts = common_starts(world, simulator, arguments.starts, seed=123)
    policies = {Path(path).stem: load_policy(path, world.spec) for path in arguments.policies}
    real = {name: simulator.follow(policy, starts, world.horizon) for name, policy in policies.items()}
    found: dict[str, Any] = {}
    for variant, (of_model, of_training) in VARIANTS[arguments.vary].items():
        ensemble = {"members": arguments.members, "elites": min(4, arguments.members), "frequencies": WAVES[-1], "memory": False}
        if arguments.vary in ("loss", "waves", "hard"):
            ensemble["memory"] = world.preset.dynamics.memory
        dynamics = replace(FAST.dynamics, **(ensemble | of_model))
        steps = arguments.steps * 8 // 3 if "optimizer" in of_training else arguments.steps
        training = replace(FAST.dynamics_training, steps=steps, **of_training)
        preset = replace(FAST, dynamics=dynamics, dynamics_training=training)
        with tempfile.TemporaryDirectory() as folder, fast_products(torch.device("cpu")):
            fitting = Fitting(data, preset, arguments.seed, Path(folder), torch.device("cpu"))
            record = fit_dynamics(fitting)
        world.models.dynamics = fitting.models.dynamics.eval().requires_grad_(False)
        row: dict[str, Any] = {"held_out": float(np.mean(record["holdout"])), "seconds": record["seconds"]}
        for name, policy in policies.items():
            dreamt = world.dream(policy, starts, world.horizon, 0)
            error, known = errors(world, dreamt, real[name])
            row[name] = {"error": float((error * known).sum() / known.sum())}
            if simulator.maze:
                row[name]["legal"] = legal(simulator, dreamt)
        if arguments.returns:
            row["returns"] = ranking(world, arguments.returns)
        found[variant] = row
        print(f"{variant}: {json.dumps(row)}", flush=True)
    if arguments.out:
        command = (
            f"python benchmarks/single_step.py {Path(arguments.dataset).name} --world WORLD --policies POLICY… "
            f"--vary {arguments.vary} --steps {arguments.steps} --members {arguments.members} "
            f"--starts {arguments.starts} --seed {arguments.seed}"
            + (" --returns policies.json" if arguments.returns else "")
        )
        arguments.out.write_text(json.dumps({"command": command, "variants": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
