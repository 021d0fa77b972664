"""Real returns of our agents beside the authors' own code: same data, same hyper-parameters, several seeds.

    python benchmarks/agents_returns.py DATASET --peers FOLDER --out RUN [--algorithms td3bc cql diffql] \
        [--updates 50000] [--seeds 0 1 2]

FOLDER holds checkouts of the peers (see ``peers.py``), none of which is part of this project; without it only ours are
trained. Each run of one agent and seed is saved after every twentieth of its updates and evaluated after each of the
last five, ``--episodes`` real episodes each: their mean is the run's figure, since a single evaluation of an offline
agent depends much on the update it falls on. Killed, the same command goes on with the runs and parts that are missing.
RUN gets a JSON file a run, and ``table.json`` and ``table.md`` with means and standard deviations over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PEERS, Learner, Own
from seeds_table import cells, over_seeds

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.scores import environment_of, evaluate_returns

PARTS, EVALUATED = 20, 5


def run(learner: Learner, data: Dataset, updates: int, episodes: int, path: Path) -> dict[str, Any]:
    """Train to the end from wherever ``path`` says the run was, and return its record."""
    state = path.with_suffix(".state")
    record: dict[str, Any] = {"updates": 0, "train_seconds": 0.0, "evaluations": []}
    if path.is_file() and state.is_file():
        record = json.loads(path.read_text())
        learner.load(state)
        record["evaluations"] = [found for found in record["evaluations"] if found[0] <= learner.updates]
    part = max(1, updates // PARTS)
    while learner.updates < updates:
        begun = time.process_time()
        learner.train(min(part, updates - learner.updates))
        record["train_seconds"] += time.process_time() - begun
        record["updates"] = learner.updates
        if learner.updates > updates - EVALUATED * part:
            found = evaluate_returns(learner, environment_of(data.spec), episodes, seed=1000)
            record["evaluations"].append([learner.updates, float(found.returns.mean())])
        path.write_text(json.dumps(record, indent=1))
        learner.save(state)  # last: after a kill between these two lines the part is trained and evaluated again, its seconds counted twice
        print(f"{path.stem}: {record['updates']} updates, {record['evaluations'][-1:]}", flush=True)
    return record


def table(records: dict[str, dict[str, list[dict[str, Any]]]], data: Dataset) -> dict[str, Any]:
    """Mean return a seed, their mean and sample standard deviation, and updates a second, for each algorithm and side."""
    document: dict[str, Any] = {
        "dataset": data.spec.dataset_id,
        "transitions": data.transitions,
        "agents": {},
    }
    for algorithm, sides in records.items():
        document["agents"][algorithm] = {}
        for side, runs in sides.items():
            means = [float(np.mean([value for _, value in one["evaluations"]])) for one in runs]
            document["agents"][algorithm][side] = {
                **over_seeds(means),
                "updates": runs[0]["updates"],
                "updates_per_second": sum(one["updates"] for one in runs)
                / sum(one["train_seconds"] for one in runs),
            }
    return document


def markdown(document: dict[str, Any]) -> str:
    lines = [
        f"{document['dataset']}, {document['transitions']} transitions; mean ± standard deviation over seeds",
        "",
        "| agent | code | updates | real return | seeds | updates/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for algorithm, sides in document["agents"].items():
        for side, row in sides.items():
            mean, seeds = cells(row, 0)
            lines.append(
                f"| {algorithm} | {side} | {row['updates']} | {mean} | {seeds} | "
                f"{row['updates_per_second']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithms", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.dataset)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for algorithm in arguments.algorithms:
        sides = records[algorithm] = {}
        for seed in arguments.seeds:
            for side in ("ours", "authors'") if arguments.peers else ("ours",):
                learner: Learner = (
                    Own(algorithm, data, seed)
                    if side == "ours"
                    else PEERS[algorithm](arguments.peers, data, seed)
                )
                name = f"{algorithm}-{'ours' if side == 'ours' else 'peer'}-{arguments.updates}-{seed}.json"
                record = run(learner, data, arguments.updates, arguments.episodes, arguments.out / name)
                sides.setdefault(side, []).append(record)
        document = table(records, data)
        (arguments.out / "table.json").write_text(json.dumps(document, indent=2) + "\n")
        (arguments.out / "table.md").write_text(markdown(document))
    print(markdown(document))


if __name__ == "__main__":
    main()
