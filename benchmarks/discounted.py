"""What policies earn in reality and in dreams, discounted, beside what fitted Q evaluation promised (fqe.py).

    python benchmarks/discounted.py TABLE.json POLICY… --world WORLD [--episodes 100]

FQE knows discounted returns alone, so these are compared; undiscounted ones have other orders. Reality: episodes from the environment's
own first states; dreams: from the log's. The table gets both, once, and how each way ranks the policies.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.data.recorder import record
from dydiff_env.evaluation.ope import episode_limit, rank_correlation
from dydiff_env.policies.policy import Policy


def in_reality(policy: Policy, world: World, episodes: int, gamma: float) -> float:
    """Mean discounted return of real episodes."""
    assert world.spec.env_spec is not None

    def act(observations: np.ndarray) -> np.ndarray:
        return policy.act(torch.as_tensor(observations, dtype=torch.float32)).numpy()

    found = record(world.spec.env_spec, act, episodes=episodes, seed=1)
    return float(np.mean([(one.rewards * gamma ** np.arange(len(one.rewards))).sum() for one in found]))


def in_dreams(policy: Policy, world: World, episodes: int, gamma: float) -> float:
    """Mean discounted return of dreams."""
    dreams = world.dream(policy, world.sample_starts(episodes, kind="initial"), episode_limit(world))
    steps = np.arange(dreams.rewards.shape[1])
    return float(np.where(steps < dreams.lengths[:, None], dreams.rewards * gamma**steps, 0).sum(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("policies", type=Path, nargs="+")
    parser.add_argument("--world", required=True)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, world = json.loads(options.table.read_text()), World.load(options.world)
    gamma = table["settings"]["gamma"]
    rows = {path.stem: table["policies"][path.stem] for path in options.policies if path.stem in table["policies"]}
    for path in options.policies:
        if path.stem in rows and "dream" not in rows[path.stem]:
            policy = load_policy(path, world.spec)
            rows[path.stem]["real"] = in_reality(policy, world, options.episodes, gamma)
            rows[path.stem]["dream"] = in_dreams(policy, world, options.episodes, gamma)
            print(path.stem, {key: np.round(value, 1) for key, value in rows[path.stem].items()}, flush=True)
    real = np.array([row["real"] for row in rows.values()])
    ways = {
        "fqe": [row["values"][-1] for row in rows.values()],
        "fqe, the mean of its second half": [np.mean(row["values"][len(row["values"]) // 2 :]) for row in rows.values()],
        "dreams": [row["dream"] for row in rows.values()],
    }
    table["ways"] = {
        way: {
            "spearman": rank_correlation(found, real),
            "mean_absolute_error": float(np.abs(found - real).mean() / np.ptp(real)),
            "regret": float((real.max() - real[np.argmax(found)]) / np.ptp(real)),
        }
        for way, found in ways.items()
    }
    options.table.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table["ways"], indent=1))


if __name__ == "__main__":
    main()
