"""Do the ensemble's members tell, without a simulator, how far dreamt returns can be believed?

    python benchmarks/members.py WORLD=policies.json… [--episodes 20] [--out benchmarks/results/members.json]

A row a world: how its members agree on the order of the policies (consensus) and on their returns (spread), and how the dream's own order
and returns agree with the real ones that the file tells (`make_policies.py` writes it, checkpoints beside it). Each policy: real return,
dreamt return, and what the members make of it; and how well the spread of these ranks the policies by the dream's error.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.evaluation.members import consensus, returns_by_member, spread
from dydiff_env.evaluation.ope import dream_returns, rank_correlation


def row_of(world: World, path: Path, episodes: int) -> dict[str, Any]:
    """What one world makes of the policies of a file."""
    known, policies, by_member = json.loads(path.read_text()), {}, {}
    for name, told in known["policies"].items():
        policy = load_policy(path.parent / told["file"], world.spec)
        by_member[name] = returns_by_member(world, policy, episodes).returns.mean(1)
        dreamt = float(dream_returns(world, policy, episodes).returns.mean())
        policies[name] = {"real": told["return_mean"], "dream": dreamt, "members": by_member[name].tolist()}
    real, dream = (np.array([row[key] for row in policies.values()]) for key in ("real", "dream"))
    error, apart = np.abs(dream - real), np.array([each.std() for each in by_member.values()])
    return {
        "task": known["environment"],
        "preset": world.preset.name,
        "beta": world.preset.dynamics.beta,
        "consensus": consensus(by_member),
        "spearman": rank_correlation(dream, real),
        "mean_absolute_error": float(error.mean() / np.ptp(real)),
        "spread": spread(by_member),
        "spread_to_error": rank_correlation(apart, error),
        "policies": policies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="WORLD=policies.json")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for world, path in (pair.split("=") for pair in arguments.pairs):
        rows.append(row_of(World.load(world), Path(path), arguments.episodes))
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "policies"}), flush=True)
    if arguments.out:
        command = f"python benchmarks/members.py WORLD=policies.json… --episodes {arguments.episodes}"
        arguments.out.write_text(json.dumps({"command": command, "worlds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
