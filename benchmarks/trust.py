"""What of each correction the ensemble's members say to apply, what the simulator would say, and what comes of it.

    python benchmarks/trust.py WORLD POLICY… [--starts 256] [--out FILE]

Shares (means over the states' dimensions) of the denoiser's correction and of the members' mean: by the members (`trust_in`) and by
least squares against the simulator. Then, for M = 1: the squared error over that of M = 0, and the distance of its transitions from
the simulator's, over that of M = 0's, by what is applied and by how hard rollouts are nudged to it (κ; 1: put in place).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from dydiff_env import World, load_policy
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.evaluation.fidelity import common_starts, errors, residual
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.policies.policy import Policy
from dydiff_env.world.rollout import apart, rollout
from dydiff_env.world.trust import Trust, elsewhere, shares


def nudged(world: World, gain: float) -> World:
    """The same world with another κ."""
    refinement = dataclasses.replace(world.preset.refinement, nudge=gain)
    return dataclasses.replace(world, preset=dataclasses.replace(world.preset, refinement=refinement))


def best_shares(world: World, policy: Policy, real: Trajectories) -> list[float]:
    """η and ζ, means over the dimensions, by what really happened."""
    models, length = world.models, world.horizon
    states = world.normalizer.normalize(torch.from_numpy(real.observations))

    def act(_: int, at: torch.Tensor) -> torch.Tensor:
        actions = policy.act(world.normalizer.denormalize(at).reshape(-1, at.shape[-1]), True)
        return actions.clamp(world.low, world.high).reshape(*at.shape[:-1], -1)

    anchor = rollout(models.dynamics, models.termination, act, states[:, 0], length)
    every = models.dynamics.only(range(models.dynamics.config.members))
    members = elsewhere(anchor, apart(every, models.termination, act, states[:, 0], length))
    drawn, living = world.sample_states(anchor, anchor.actions, torch.Generator().manual_seed(0))
    lives = torch.from_numpy(real.mask).float()[..., None]
    found = shares(anchor, torch.cat([states[:, 1:], lives], -1), torch.cat([drawn, living[..., None]], -1), members)
    return found[:, :-1].clamp(0, 1).mean(1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world")
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--starts", type=int, default=256)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = World.load(options.world)
    simulator = Simulator(world.spec)
    starts = common_starts(world, simulator, options.starts, seed=7)
    found = {}
    for path in options.policies:
        policy = load_policy(path, world.spec)
        real, asked = simulator.follow(policy, starts, world.horizon), world.trust_in(policy)

        def measure(gain: float, trust: Trust, m: int = 1, policy=policy, real=real) -> tuple[float, float]:
            dream = nudged(world, gain).dream(policy, starts, iterations=m, trust=trust)
            error, mask = errors(world, dream, real)
            return float((error * mask).sum() / mask.sum()), residual(world, simulator, dream, 2000)

        base = measure(1.0, asked, 0)
        variants = {
            "denoiser, in place": (1.0, Trust(asked.denoiser)),
            "members, in place": (1.0, Trust(0.0, asked.members)),
            "both, in place": (1.0, asked),
            "denoiser, .6": (0.6, Trust(asked.denoiser)),
            "members, .6": (0.6, Trust(0.0, asked.members)),
            "both, .2": (0.2, asked),
            "both, .4": (0.4, asked),
            "both, .6": (0.6, asked),
            "both, .8": (0.8, asked),
        }
        ratios = {
            name: [float(x) for x in np.divide(measure(gain, trust), base)] for name, (gain, trust) in variants.items()
        }
        by_members = [float(torch.as_tensor(share).reshape(-1)[: starts.shape[1]].mean()) for share in (asked.denoiser, asked.members)]
        found[Path(path).stem] = {
            "shares": {"members": by_members, "simulator": best_shares(world, policy, real)},
            "error and distance, to M = 0": ratios,
        }
        print(Path(path).stem, json.dumps(found[Path(path).stem]), flush=True)
    results = [policy["error and distance, to M = 0"] for policy in found.values()]
    means = {name: np.mean([r[name] for r in results], 0).round(3).tolist() for name in results[0]}
    print(json.dumps(means, indent=1))
    if options.out:
        command = f"python benchmarks/trust.py WORLD POLICY… --starts {options.starts}"
        options.out.write_text(json.dumps({"command": command, "mean": means, "policies": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
