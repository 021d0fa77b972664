"""Ranking policies offline: d3rlpy's fitted Q evaluation (FQE; Le et al. 2019, arXiv 1903.08738) beside the dreams of a world.

d3rlpy 2.8 pins gymnasium 1.0.0, so it wants an environment of its own (see d3rlpy_export.py for the lines):

    d3/bin/python benchmarks/fqe.py DATASET POLICY… [--steps 50000] --out TABLE.json
    python benchmarks/discounted.py TABLE.json POLICY… --world WORLD

FQE learns from the log with d3rlpy's own settings, and a policy is worth its Q in the log's first states. Killed, the same command goes on
with the next policy. The second line adds what they earn in reality and in dreams, discounted alike.
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

from dydiff_env import load_policy
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.policies.policy import Policy

LOOKS = 10  # at the values, along the training


def replay(data: Dataset) -> d3rlpy.dataset.MDPDataset:
    """The log, as d3rlpy takes it: its episodes end where ours do, by an end of their own or a cut."""
    flat = data.flat()
    terminated = flat.terminated > 0
    cut = np.where(terminated, False, flat.ends)
    cut[-1] = not terminated[-1]
    return d3rlpy.dataset.MDPDataset(flat.observations, flat.actions, flat.rewards, terminated, cut)


def values(
    policy: Policy, log: d3rlpy.dataset.MDPDataset, firsts: np.ndarray, options: argparse.Namespace
) -> dict[str, Any]:
    """Mean Q of a policy in first states (N, O), along the training."""
    d3rlpy.seed(options.seed)
    scaler = d3rlpy.preprocessing.StandardObservationScaler()
    scaler.fit_with_trajectory_slicer(log.episodes, d3rlpy.dataset.BasicTrajectorySlicer())
    # A shell: FQE asks an algorithm for the policy's actions, and nothing else. It asks about what it has scaled.
    acting = d3rlpy.algos.BCConfig().create(device=False)
    acting.build_with_dataset(log)
    acting.impl.predict_best_action = lambda scaled: policy.act(scaler.reverse_transform(scaled))
    config = d3rlpy.ope.FQEConfig(
        gamma=options.gamma,
        batch_size=options.batch,
        learning_rate=options.learning_rate,
        observation_scaler=scaler,
        # Not shifted: that would pay for falling.
        reward_scaler=d3rlpy.preprocessing.StandardRewardScaler(mean=0.0, std=options.scale),
    )
    fqe, found, begun = d3rlpy.ope.FQE(acting, config), [], time.perf_counter()
    with torch.no_grad():
        actions = policy.act(torch.as_tensor(firsts)).numpy()

    def look(_: Any, epoch: int, step: int) -> None:
        found.append(float(fqe.predict_value(firsts, actions).mean()))

    fqe.fit(
        log,
        options.steps,
        n_steps_per_epoch=options.steps // LOOKS,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
        epoch_callback=look,
    )
    return {"values": found, "seconds": round(time.perf_counter() - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("policies", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(options.dataset, cache=False)
    log, flat = replay(data), data.flat()
    begins = np.flatnonzero(np.r_[True, flat.ends[:-1]])
    firsts = flat.observations[begins[:: max(1, len(begins) // 512)]]
    options.scale = float(flat.rewards.std())
    settings = {name: getattr(options, name) for name in ("steps", "gamma", "batch", "learning_rate", "seed")}
    table: dict[str, Any] = {
        "command": "python benchmarks/fqe.py DATASET POLICY… "
        + " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in settings.items()),
        "d3rlpy": version("d3rlpy"),
        "settings": settings,
        "policies": {},
    }
    if options.out.exists():
        before = json.loads(options.out.read_text())
        if before["settings"] == settings:
            table = before
    for path in options.policies:
        if path.stem not in table["policies"]:
            table["policies"][path.stem] = values(load_policy(path, data.spec), log, firsts, options)
            print(f"{path.stem}: {table['policies'][path.stem]}", flush=True)
            options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
