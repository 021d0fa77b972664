"""What `dydiff-env improve` is worth: real returns of a policy, of the copy that dreams choose, of the last, and of the best in hindsight.

    python benchmarks/improve.py WORLD POLICY --out RUN [--seeds 0 1 2] [--rounds 80] [--penalty 1] \
        [--table benchmarks/results/improve_NAME.json]

The real environment is asked by this script only, never by the learning or the choice. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from dydiff_env import World, load_policy
from dydiff_env.agents import Schedule
from dydiff_env.agents.improve import improve
from dydiff_env.agents.svg import SVGConfig
from dydiff_env.evaluation.ope import rank_correlation
from dydiff_env.evaluation.scores import environment_of, evaluate_returns
from dydiff_env.policies import Policy

EPISODES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("policy")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=SVGConfig.rounds)
    parser.add_argument("--penalty", type=float, default=SVGConfig.penalty)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    world = World.load(arguments.world)
    policy, env = load_policy(arguments.policy, world.spec), environment_of(world.spec)

    def real(one: Policy) -> float:
        return float(evaluate_returns(one, env, EPISODES, seed=1000).returns.mean())

    before, seeds = real(policy), dict[str, Any]()
    print(f"{arguments.policy}: {before:.1f}", flush=True)
    for seed in arguments.seeds:
        out, begun = arguments.out / f"seed{seed}.pt", time.perf_counter()
        document = improve(
            policy,
            world,
            out,
            SVGConfig(rounds=arguments.rounds, penalty=arguments.penalty),
            seed=seed,
            schedule=Schedule(1, arguments.every, arguments.every, 10),
            env=env,
            resume=True,
        )
        along, dreamt = dict(map(tuple, document["returns"])), dict(map(tuple, document["dream_returns"]))
        seeds[str(seed)] = {
            "chosen": real(load_policy(document["best_checkpoint"], world.spec)),
            "chosen_after": document["best_updates"],
            "last": real(load_policy(out, world.spec)),
            "best": max(along.values()),
            "dreamt_before": document["dream_return_before"],
            "dreamt": [round(dreamt[at]) for at in sorted(dreamt)],
            "real": [round(along[at]) for at in sorted(along)],
            "rank_correlation": rank_correlation([dreamt[at] for at in along], list(along.values())),
            "seconds": round(time.perf_counter() - begun),
        }
        print(f"seed {seed}: {json.dumps(seeds[str(seed)])}", flush=True)
        mean = {name: float(np.mean([one[name] for one in seeds.values()])) for name in ("chosen", "last", "best")}
        table = {
            "command": f"python benchmarks/improve.py WORLD {Path(arguments.policy).name} --rounds {arguments.rounds} "
            f"--penalty {arguments.penalty:g} --every {arguments.every} --out RUN",
            "what": f"mean real return of {EPISODES} episodes: of the policy, of the copy whose dreams were best, of the last copy; the "
            "best of the evaluations on the way (10 episodes each). Dreamt: the policy's and the least gain in a member, with noise. "
            "Seconds: with evaluations in reality.",
            "before": before,
            "mean": mean,
            "seeds": seeds,
        }
        if arguments.table:
            arguments.table.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
