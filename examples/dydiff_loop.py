"""Algorithm 1: train, dream with the agent of the moment, keep the good rollouts, mix them in, and again.

    python examples/dydiff_loop.py run                              # a recorded maze, the embedded world
    python examples/dydiff_loop.py run demo/hopper-v0 world/ cql

The same as `dydiff-env loop`, whose options are the fields of ``LoopConfig``. A run that was stopped goes on when it is
called again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dydiff_env.agents import agent_class, load_agent
from dydiff_env.agents.loop import LoopConfig, loop
from dydiff_env.data.collect import CollectConfig, collect_maze
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.registry import Destination
from dydiff_env.envs.worlds import find_world
from dydiff_env.evaluation.scores import environment_of


def main(out: str, dataset: str | None = None, world: str | None = None, algorithm: str = "td3bc",
         config: LoopConfig | None = None, steps: int = 20_000) -> list[dict[str, Any]]:  # fmt: skip
    policy = "demo" if dataset is None else None  # what is recorded here is of the embedded world's maze
    if dataset is None:
        dataset = f"{out}/maze.minari"
        if not Path(dataset).exists():
            collect_maze("PointMaze_UMaze-v3", Destination(out=Path(dataset)), CollectConfig(steps))
    logged = load_dataset(dataset)
    checkpoint = Path(out, "agent.pt")
    agent = load_agent(checkpoint) if checkpoint.exists() else agent_class(algorithm)(logged.spec, seed=0)
    config = config or LoopConfig(rounds=4, updates=2000, batch=256, horizon=64)
    found = loop(agent, find_world(world, policy=policy), logged, out, config, env=environment_of(logged.spec), progress=True)
    for row in found["rounds"]:
        print(f"round {row['round']}: {row['synthetic_rows']} dreamt rows, dreamt return {row['dream_return']:.1f}, "
              f"real return {row['return_mean']:.1f}")  # fmt: skip
    print(f"Look at it with: dydiff-env report {out} --out {out}.html")
    return found["rounds"]


if __name__ == "__main__":
    main(*sys.argv[1:])
