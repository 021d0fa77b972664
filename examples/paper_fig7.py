"""The paper's Fig. 7: how far dreams are from what really happens, against the number of refinements M.

    python examples/paper_fig7.py fig7.png                                # the embedded maze: its policy, and a clone of its data
    python examples/paper_fig7.py fig7.png world/ td3bc.pt medium.pt
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt

from dydiff_env import load_policy
from dydiff_env.envs.worlds import find_world
from dydiff_env.evaluation.clone import BestClone
from dydiff_env.evaluation.fidelity import closed_loop, common_starts
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.policies import Policy


def main(out: str, world_path: str | None = None, *names: str, starts: int = 64, most: int = 5) -> dict[str, Any]:
    world = find_world(world_path, policy=None if world_path else "demo")
    simulator, found = Simulator(world.spec), {}
    first = common_starts(world, simulator, starts)
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    names = names or (("demo",) if world_path is None else ())
    policies: dict[str, Policy] = {name: load_policy(name, world.spec) for name in names}
    for name, policy in (policies | {"clone": BestClone(world)}).items():
        found[name] = closed_loop(world, simulator, policy, first, iterations=tuple(range(most + 1)))
        axis.plot(range(most + 1), [found[name][f"M{m}"]["mean"] for m in range(most + 1)], marker="o", label=name)
    simulator.close()
    axis.set(xlabel="refinements M", ylabel="mean squared error (standardised)", yscale="log",
             title=f"Dream against simulator, {world.horizon} steps")  # fmt: skip
    axis.legend(frameon=False)
    figure.savefig(out, dpi=150)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
