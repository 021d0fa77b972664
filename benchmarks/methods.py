"""Every `--method` of `export` on given tasks, and TD3BC trained for a moment on logged + synthetic data.

    python benchmarks/methods.py --task hopper DATASET WORLD POLICY --task umaze DATASET WORLD POLICY \\
        --out benchmarks/results/methods.json

The world's folder is copied and the baselines are trained into the copy, in the form of the preset "fast" but for fewer steps
(`--synther-steps`, `--mtdiff-steps`): the question is whether each method's data can be made, read and trained on, not which
is best. SynthER's rollouts are single transitions, so it makes as many transitions as the others do at most.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dydiff_env.agents import Replay
from dydiff_env.agents.td3bc import TD3BC
from dydiff_env.baselines import mtdiff, synther
from dydiff_env.baselines.fit import fit_models
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.scores import environment_of, evaluate_returns
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.methods import METHODS
from dydiff_env.world.world import World


def short(steps: dict[str, int]) -> None:
    """A preset "short": as "fast", with fewer training steps."""
    for name, presets in (("synther", synther.PRESETS), ("mtdiff-s", mtdiff.PRESETS)):
        fast: Any = presets["fast"]
        training = replace(fast.training, steps=steps[name], evaluate_every=max(1, steps[name] // 5))
        presets["short"] = replace(fast, training=training)


def run(task: tuple[str, str, str], updates: int, episodes: int, scratch: Path) -> dict[str, Any]:
    """All methods on one task; TD3BC on the logged data alone beside them."""
    data, folder, policy = load_dataset(task[0], cache=False), scratch / "world", task[2]
    shutil.copytree(task[1], folder)
    begun = time.perf_counter()
    fit_models(["synther", "mtdiff-s"], data, folder, preset="short", seed=0)
    report: dict[str, Any] = {"baselines_fit_seconds": round(time.perf_counter() - begun, 1), "methods": {}}
    horizon = World.load(folder).horizon

    def trained(replay: Replay) -> dict[str, float]:
        agent = TD3BC(data.spec, seed=0).fit(replay, updates)
        returns = evaluate_returns(agent, environment_of(data.spec), episodes, seed=1).returns
        return {"mean": round(float(returns.mean()), 2), "std": round(float(returns.std()), 2)}

    report["td3bc_return_logged_only"] = trained(Replay(data))
    for name, method in METHODS.items():
        out, single = scratch / name, method.horizon == 1
        made = export(
            folder,
            policy if method.follows_policy else None,
            out,
            method=name,
            trajectories=100 * horizon if single else 100,
            horizon=None if single else horizon,
            seed=0,
        )
        report["methods"][name] = {
            "trajectories": made["trajectories"],
            "transitions": made["transitions"],
            "transitions_per_second": round(made["transitions"] / made["seconds"], 1),
            "dreamt_return_mean": round(made["return_mean"], 3),
            "td3bc_return": trained(Replay(data, load_dataset(out, cache=False))),
        }
        print(name, json.dumps(report["methods"][name]), flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("NAME", "DATASET", "WORLD", "POLICY")
    parser.add_argument("--task", nargs=4, action="append", required=True, metavar=names)
    parser.add_argument("--synther-steps", type=int, default=6_000)
    parser.add_argument("--mtdiff-steps", type=int, default=400)
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    options = vars(parser.parse_args())
    out, tasks = options.pop("out"), options.pop("task")
    short({"synther": options["synther_steps"], "mtdiff-s": options["mtdiff_steps"]})
    document: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "settings": options, "tasks": {}}
    for name, *task in tasks:
        with tempfile.TemporaryDirectory() as scratch:
            document["tasks"][name] = run(tuple(task), options["updates"], options["episodes"], Path(scratch))
        out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
