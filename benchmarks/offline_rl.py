"""What offline agents of d3rlpy earn from the same log: the last policy, and the best of ten looks along the way, in the real environment.

d3rlpy 2.8 pins gymnasium 1.0.0, so it wants an environment of its own (see d3rlpy_export.py for the lines; with mujoco besides):

    d3/bin/python benchmarks/offline_rl.py DATASET --algorithms iql td3bc --updates 100000 --out TABLE.json

All settings are d3rlpy's own; observations are standardised. Killed, the same command goes on with the next run.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np
import torch
from fqe import replay

from dydiff_env import load_policy
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.scores import environment_of, evaluate_returns

LOOKS, EPISODES = 10, 20
ALGORITHMS = {
    "iql": d3rlpy.algos.IQLConfig,
    "td3bc": d3rlpy.algos.TD3PlusBCConfig,
    "rebrac": d3rlpy.algos.ReBRACConfig,
    "cql": d3rlpy.algos.CQLConfig,
    "awac": d3rlpy.algos.AWACConfig,
}


def run(algorithm: str, data: Dataset, updates: int, seed: int) -> dict[str, Any]:
    """Mean real returns along the training, and the seconds it took without them."""
    d3rlpy.seed(seed)
    agent = ALGORITHMS[algorithm](observation_scaler=d3rlpy.preprocessing.StandardObservationScaler()).create(device=False)
    returns: list[float] = []
    seconds, begun = 0.0, time.perf_counter()

    def look(_: Any, epoch: int, step: int) -> None:
        nonlocal seconds, begun
        seconds += time.perf_counter() - begun
        found = evaluate_returns(load_policy(agent, data.spec), environment_of(data.spec), EPISODES, seed=1000)
        returns.append(round(float(found.returns.mean()), 1))
        print(f"{algorithm}, seed {seed}: {step} updates, {seconds:.0f} s, {returns[-1]}", flush=True)
        begun = time.perf_counter()

    agent.fit(
        replay(data),
        updates,
        n_steps_per_epoch=updates // LOOKS,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
        epoch_callback=look,
    )
    return {"last": returns[-1], "best_of_looks": max(returns), "returns": returns, "seconds": round(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--algorithms", nargs="+", default=["iql", "td3bc"], choices=list(ALGORITHMS))
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(options.dataset, cache=False)
    flat = data.flat()
    logged = np.add.reduceat(flat.rewards, np.flatnonzero(np.r_[True, flat.ends[:-1]]))
    table: dict[str, Any] = {
        "command": f"python benchmarks/offline_rl.py DATASET --algorithms … --updates {options.updates} --seeds …",
        "d3rlpy": version("d3rlpy"),
        "dataset": data.spec.dataset_id,
        "logged": {"mean": float(logged.mean()), "best": float(logged.max())},
        "updates": options.updates,
        "runs": {},
    }
    if options.out.exists():
        table = json.loads(options.out.read_text())
        if table["updates"] != options.updates:
            parser.error(f"{options.out} is of {table['updates']} updates.")
    for seed in options.seeds:
        for algorithm in options.algorithms:
            name = f"{algorithm}, seed {seed}"
            if name not in table["runs"]:
                table["runs"][name] = run(algorithm, data, options.updates, seed)
                options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
