"""Updates per second of each agent on one core, beside the authors' own code where it is at hand.

    python benchmarks/agents_speed.py --dataset DATASET [--peers FOLDER] [--rounds 5]

FOLDER holds checkouts of the peers (see ``peers.py``), none of which is part of this project. Ours and the peer take
turns within a round and time is the process's own, so that other work on the machine weighs on both alike; the figure
is the median of the rounds. The matrix roofline is measured in the same rounds with the agents' own 256³ product, by
torch's usual library and by the one the agents use where it is exact (see ``dydiff_env.products``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import PEERS, Own

from dydiff_env.agents import ALGORITHMS
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.products import fast_products

UPDATES = {"td3bc": 200, "bc": 400, "diffql": 30, "cql": 10}  # in a round
GIGAFLOPS = {
    "td3bc": 0.41,
    "diffql": 2.48,
    "cql": 12.9,
}  # matrix products of one update, by the papers' arithmetic


def rate(run: Callable[[int], object], count: int) -> float:
    """Calls per second of processor time."""
    begun = time.process_time()
    run(count)
    return count / (time.process_time() - begun)


def product(count: int) -> None:
    """The product the agents live on, ``count`` times."""
    left, right, out = torch.randn(256, 256), torch.randn(256, 256), torch.empty(256, 256)
    for _ in range(count):
        torch.mm(left, right, out=out)


def measure(algorithm: str, data: Any, peers: Path | None, rounds: int) -> dict[str, float]:
    """Medians over ``rounds`` of ours and of the peer."""
    runs: dict[str, Callable[[int], object]] = {"ours": Own(algorithm, data, 0).train}
    if peers and algorithm in PEERS:
        runs["peer"] = PEERS[algorithm](peers, data, 0).train
    for run in runs.values():
        run(4)
    rates: dict[str, list[float]] = {name: [] for name in (*runs, "roofline_plain", "roofline")}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(rate(run, UPDATES[algorithm]))
        rates["roofline_plain"].append(2 * 256**3 / 1e9 * rate(product, 500))
        with fast_products():
            rates["roofline"].append(2 * 256**3 / 1e9 * rate(product, 500))
    row = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    if "peer" in rates:
        ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
        row["ratio"] = round(statistics.median(ratios), 2)
    if algorithm in GIGAFLOPS:
        row["share_of_roofline"] = round(GIGAFLOPS[algorithm] * row["ours"] / row["roofline"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.dataset)
    for algorithm in arguments.algorithms:
        row = measure(algorithm, data, arguments.peers, arguments.rounds)
        print(json.dumps({"algorithm": algorithm, **row}), flush=True)


if __name__ == "__main__":
    main()
