"""Closed-loop error of a world's dreams against the simulator, for several policies and M = 0 … 5.

python benchmarks/closed_loop.py WORLD POLICY… [--starts 256] [--seed 123] [--out benchmarks/results/NAME.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.evaluation.fidelity import closed_loop, common_starts
from dydiff_env.evaluation.simulator import Simulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world")
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--starts", type=int, default=256)
    parser.add_argument("--seed", type=int, default=123, help="of the draw of starts")
    parser.add_argument("--iterations", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = World.load(arguments.world)
    if arguments.iterations[0] != 0 or world.iterations not in arguments.iterations:
        parser.error(f"--iterations must begin with 0, which all are compared with, and hold the world's own M = {world.iterations}")
    simulator = Simulator(world.spec)
    starts = common_starts(world, simulator, arguments.starts, arguments.seed)
    print(f"{simulator.known(world.start_bank).mean():.1%} of the logged states tell the whole state")
    results, default = {}, f"M{world.iterations}"
    for path in arguments.policies:
        policy = load_policy(path, world.spec)
        result = closed_loop(world, simulator, policy, starts, iterations=tuple(arguments.iterations))
        results[Path(path).stem] = result
        print(
            f"{Path(path).stem:20s} real survival {result['real']['survival']:.2f} return {result['real']['return']:7.1f}"
        )
        for name, row in result.items():
            if name != "real":
                ratio = f"{row['ratio']:.3f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
                at = " ".join(f"{row[h]:.4f}" for h in ("h1", "h10", "h50", "h100") if h in row)
                print(
                    f"   {name} mean {row['mean']:.4f} ratio {ratio}  h1/10/50/100 {at}  survival {row['survival']:.2f} "
                    f"return {row['return']:7.1f} residual {row['residual']:.4f}"
                )
    ratios = [r[default]["ratio"] for r in results.values()]
    gaps = [abs(r[default]["survival_gap"]) for r in results.values()]
    summary = {
        "default": default,
        "mean_ratio": float(np.mean(ratios)),
        "worst_ratio": max(ratios),
        "worst_survival_gap": max(gaps),
    }
    print(json.dumps(summary))
    if arguments.out:
        arguments.out.write_text(
            json.dumps(
                {
                    "command": f"dydiff-env fit --dataset {world.spec.dataset_id} --preset {world.preset.name} --out WORLD; "
                    f"python benchmarks/closed_loop.py WORLD POLICY… --starts {arguments.starts} --seed {arguments.seed} "
                    f"--iterations {' '.join(map(str, arguments.iterations))}",
                    "summary": summary,
                    "policies": results,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
