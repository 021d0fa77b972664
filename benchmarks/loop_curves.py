"""What dreams add to training: learning curves of Algorithm 1 beside the same agent on logged data alone.

    python benchmarks/loop_curves.py DATASET --world WORLD --out RUN [--algorithm td3bc] [--rounds 10] \
        [--updates 3000] [--seeds 0 1 2] [--iterations 1]

Three arms, all with the same number of updates and evaluated in the data's environment after every round:

- base: logged data alone;
- single-step: the loop, rollouts as the dynamics model makes them (M = 0);
- dydiff: the loop, rollouts refined ``--iterations`` times.

A seed's first round is the same in all arms, since there are no dreams yet. An arm's figure is its mean return over
the second half of its rounds: one evaluation of an offline agent depends much on the update it falls on. Killed, the
same command goes on. RUN gets a folder an arm and seed, and ``table.json`` and ``table.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from seeds_table import cells, over_seeds

from dydiff_env.agents import ALGORITHMS, Agent, Replay, load_agent
from dydiff_env.agents.loop import LoopConfig, loop
from dydiff_env.agents.trainer import evaluation
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.scores import environment_of
from dydiff_env.world.world import World

Row = dict[str, Any]


def base(agent: Agent, data: Dataset, out: Path, rounds: int, updates: int, episodes: int) -> list[Row]:
    """Train on logged data alone, from wherever ``out`` says the run was."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = json.loads((out / "base.json").read_text()) if agent.updates else []
    replay = Replay(data)
    while agent.updates < rounds * updates:
        agent.fit(replay, updates)
        rows = rows[: agent.updates // updates - 1]
        rows.append({"updates": agent.updates, **evaluation(agent, environment_of(data.spec), episodes)})
        (out / "base.json").write_text(json.dumps(rows, indent=1))
        agent.save(out / "agent.pt")
    return rows


def summary(curves: dict[str, list[list[Row]]]) -> dict[str, Any]:
    """Each arm's curve of each seed, and the mean and standard deviation over seeds of the second half's mean."""
    document: dict[str, Any] = {}
    for arm, seeds in curves.items():
        means = [float(np.mean([row["return_mean"] for row in rows[len(rows) // 2 :]])) for rows in seeds]
        document[arm] = {
            **over_seeds(means),
            "updates": [row["updates"] for row in seeds[0]],
            "curves": [[row["return_mean"] for row in rows] for rows in seeds],
            "dream_returns": [[row.get("dream_return") for row in rows] for rows in seeds],
        }
    return document


def markdown(document: dict[str, Any]) -> str:
    lines = [
        f"{document['dataset']}, {document['algorithm']}; real returns, mean ± standard deviation over seeds",
        "",
        "| arm | M | updates | second half of the rounds | seeds | last round |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, row in document["arms"].items():
        mean, seeds = cells(row, 1)
        last = ", ".join(f"{curve[-1]:.1f}" for curve in row["curves"])
        iterations = {"base": "", "single-step": "0"}.get(arm, str(document["iterations"]))
        lines.append(
            f"| {arm} | {iterations} | {row['updates'][-1]} | {mean} | {seeds} | {last} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithm", default="td3bc", choices=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, world = one_goal_each(load_dataset(arguments.dataset)), World.load(arguments.world)
    arguments.out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[list[Row]]] = {}
    for seed in arguments.seeds:
        for arm, iterations in (("base", None), ("single-step", 0), ("dydiff", arguments.iterations)):
            out = arguments.out / f"{arm}-{seed}"
            kept = out / "agent.pt"
            agent = load_agent(kept) if kept.exists() else ALGORITHMS[arguments.algorithm](data.spec, seed=seed)
            if iterations is None:
                rows = base(agent, data, out, arguments.rounds, arguments.updates, arguments.episodes)
            else:
                config = LoopConfig(
                    arguments.rounds,
                    arguments.updates,
                    iterations=iterations,
                    eval_episodes=arguments.episodes,
                )
                rows = loop(agent, world, data, out, config, env=environment_of(data.spec))["rounds"]
            curves.setdefault(arm, []).append(rows)
            print(f"{out.name}: {[round(row['return_mean'], 1) for row in rows]}", flush=True)
        document = {
            "dataset": data.spec.dataset_id,
            "algorithm": arguments.algorithm,
            "iterations": arguments.iterations,
            "seeds": arguments.seeds[: len(curves["base"])],
            "arms": summary(curves),
        }
        (arguments.out / "table.json").write_text(json.dumps(document, indent=2) + "\n")
        (arguments.out / "table.md").write_text(markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
