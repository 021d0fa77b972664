"""What policies earn in reality and in dreams, discounted, beside what fitted Q evaluation promised (fqe.py).

    python benchmarks/discounted.py TABLE.json POLICY… --world WORLD [--episodes 100] [--without NAME…]

FQE knows discounted returns alone, so these are compared; undiscounted ones have other orders. Reality: episodes from the environment's
own first states; dreams: from the log's. The table gets both, once, and how each way ranks the policies: all, and all but those left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.evaluation.ope import dream_returns, rank_correlation
from dydiff_env.evaluation.scores import environment_of, evaluate_returns


def judged(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How each way ranks policies, and how far it is from their real returns, which span a range."""
    real = np.array([row["real"] for row in rows])
    ways = {
        "fqe": [row["values"][-1] for row in rows],
        "fqe, the mean of its second half": [np.mean(row["values"][len(row["values"]) // 2 :]) for row in rows],
        "dreams": [row["dream"] for row in rows],
    }
    return {
        way: {
            "spearman": rank_correlation(found, real),
            "mean_absolute_error": float(np.abs(found - real).mean()),
            "real_range": float(np.ptp(real)),
            "regret": float((real.max() - real[np.argmax(found)]) / np.ptp(real)),
        }
        for way, found in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("policies", type=Path, nargs="+")
    parser.add_argument("--world", required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--without", nargs="*", default=[], help="policies whose values diverge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, world = json.loads(options.table.read_text()), World.load(options.world)
    gamma = table["settings"]["gamma"]
    rows = {path.stem: table["policies"][path.stem] for path in options.policies if path.stem in table["policies"]}
    for path in options.policies:
        if path.stem in rows and "dream" not in rows[path.stem]:
            policy = load_policy(path, world.spec)
            real = evaluate_returns(policy, environment_of(world.spec), options.episodes, discount=gamma)
            rows[path.stem]["real"] = float(real.returns.mean())
            rows[path.stem]["dream"] = float(dream_returns(world, policy, options.episodes, discount=gamma).returns.mean())
            print(path.stem, {key: np.round(value, 1) for key, value in rows[path.stem].items()}, flush=True)
    table["ways"] = judged(list(rows.values()))
    if options.without:
        table["ways_without"] = {"policies": options.without} | judged([row for name, row in rows.items() if name not in options.without])
    options.table.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps({name: table[name] for name in table if name.startswith("ways")}, indent=1))


if __name__ == "__main__":
    main()
