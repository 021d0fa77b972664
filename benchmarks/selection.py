"""What it is worth to let dreams choose the checkpoint: an agent's real return at the end, where its dreams were best, and at its best.

    python benchmarks/selection.py DATASET --world WORLD --out RUN [--algorithm td3bc] [--updates 50000] [--every 2500] \
        [--seeds 0 1 2] [--table benchmarks/results/selection_NAME.json]

Trains on logged data alone, as `dydiff-env train --world WORLD --env-eval` does. The real environment is asked by this script
only, never by the choice. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from dydiff_env.agents import Run, Schedule
from dydiff_env.evaluation.ope import rank_correlation


def row(document: dict[str, Any]) -> dict[str, Any]:
    """What one seed's run came to."""
    real, dreamt = dict(map(tuple, document["returns"])), dict(map(tuple, document["dream_returns"]))
    return {
        "last": real[document["updates"]],
        "chosen": real[document["best_updates"]],
        "chosen_after": document["best_updates"],
        "best": max(real.values()),
        "mean": float(np.mean(list(real.values()))),
        "rank_correlation": rank_correlation([dreamt[at] for at in real], list(real.values())),
        "real": [round(real[at], 1) for at in sorted(real)],
        "dreamt": [round(dreamt[at], 1) for at in sorted(real)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--world", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithm", default="td3bc")
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for seed in arguments.seeds:
        run = Run(
            arguments.algorithm,
            arguments.dataset,
            arguments.out / f"{arguments.algorithm}-seed{seed}.pt",
            steps=arguments.updates,
            seed=seed,
            env="",
            schedule=Schedule(eval_every=arguments.every, checkpoint_every=arguments.every),
            world=arguments.world,
            resume=True,
        )
        rows[str(seed)] = row(run.carry_out())
        told = {name: value for name, value in rows[str(seed)].items() if not isinstance(value, list)}
        print(f"{arguments.algorithm}, seed {seed}: {json.dumps(told)}", flush=True)
    table = {
        "command": f"python benchmarks/selection.py {Path(arguments.dataset).name} --world WORLD --out RUN "
        f"--algorithm {arguments.algorithm} --updates {arguments.updates} --every {arguments.every}",
        "what": "mean real return of 10 episodes: of the last checkpoint, of the one with the best dreams, of the best in hindsight",
        "mean": {name: float(np.mean([one[name] for one in rows.values()])) for name in ("last", "chosen", "best", "mean")},
        "seeds": rows,
    }
    print(json.dumps(table["mean"]))
    if arguments.table:
        arguments.table.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
