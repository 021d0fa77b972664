"""Do the ensemble's members tell how far a correction is to be believed? Their slopes beside the simulator's, policy by policy.

    python benchmarks/trust.py WORLD POLICY… [--starts 128] [--out FILE]

A slope is Σ (truth − ŝ) c / Σ c² over starts, steps and dimensions: the share of the denoiser's correction c of the single-step
rollout ŝ that serves best, with a single member's rollout or the simulator's for the truth. Beside them the squared error of
M = 1, over that of M = 0, by the share that is applied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from dydiff_env import World, load_policy
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.world.rollout import Rollout, rollout
from dydiff_env.world.trust import APPLIED


def slope(error: Tensor, correction: Tensor, known: Tensor) -> float:
    """Of (B, L, O) on (B, L, O) where ``known`` (B, L)."""
    return float((error * correction)[known].sum() / correction[known].square().sum().clamp(min=1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = World.load(options.world)
    simulator, dynamics, length = Simulator(world.spec), world.models.dynamics, world.horizon
    starts = world.sample_starts(options.starts, seed=7)
    first = world.normalizer.normalize(torch.from_numpy(starts))
    found = {}
    for path in options.policies:
        policy = load_policy(path, world.spec)

        def act(t: int, states: Tensor, policy=policy) -> Tensor:
            return policy.act(world.normalizer.denormalize(states), True)

        def rolled(model, act=act) -> Rollout:
            return rollout(model, world.models.termination, act, first, length)

        anchor = rolled(dynamics)
        drawn, _ = world.sample_states(anchor, anchor.actions, torch.Generator().manual_seed(0))
        correction = drawn - anchor.states[:, 1:]
        members = []
        for i in range(dynamics.config.members):
            one = rolled(dynamics.member(i))
            known = (anchor.alive > 0) & (one.alive > 0)
            members.append(slope(one.states[:, 1:] - anchor.states[:, 1:], correction, known))
        real = simulator.follow(policy, starts, length)
        truth = world.normalizer.normalize(torch.from_numpy(real.observations))[:, 1:]
        mask = torch.from_numpy(real.mask)
        error = truth - anchor.states[:, 1:]
        asked = world.trust_in(policy)
        share = asked[:-1] if isinstance(asked, Tensor) else asked

        def ratio(part: Tensor | float, error=error, correction=correction, mask=mask) -> float:
            return float((error - part * correction)[mask].square().mean() / error[mask].square().mean())

        found[Path(path).stem] = {
            "members": sum(members) / len(members),
            "simulator": slope(error, correction, mask),
            "ratio": {".25": ratio(0.25), ".5": ratio(0.5), "1": ratio(1.0), "asked": ratio(share),
                      "asked, all of it": ratio(share / APPLIED)},
        }  # fmt: skip
        print(Path(path).stem, json.dumps(found[Path(path).stem]), flush=True)
    if options.out:
        command = f"python benchmarks/trust.py WORLD POLICY… --starts {options.starts}"
        options.out.write_text(json.dumps({"command": command, "policies": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
