"""Refined trajectories a second of the fast preset against the paper's, on one core, in one run.

python benchmarks/world_throughput.py [--world WORLD] [--batch 256] [--out benchmarks/results/world_throughput.json]

WORLD is a fitted one of Hopper's sizes (11 observations, 3 actions, L = 100), with the waves that `fit` found to pay; without it, one that
has not been trained and sees none. A whole sample of the paper preset takes minutes: one network call is timed and multiplied by its
67 calls and M = 2.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.products import fast_products
from dydiff_env.world.denoiser import Condition
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.models import Models
from dydiff_env.world.presets import FAST, PAPER
from dydiff_env.world.trust import Trust
from dydiff_env.world.world import World


class Linear:
    """A policy that costs next to nothing."""

    def act(self, observations: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        return torch.tanh(observations[:, :3])


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several calls: the machine may be shared."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=Path)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    infinite = np.full(11, np.inf, np.float32)
    spec = DatasetSpec(gym.spaces.Box(-infinite, infinite), gym.spaces.Box(-1, 1, (3,), np.float32))
    length, batch, m = FAST.horizon, arguments.batch, FAST.refinement.iterations
    starts = np.random.default_rng(0).standard_normal((batch, 11)).astype(np.float32)
    scale = ErrorScale(torch.full((length, 11), -4.0), torch.full((length, 11), 0.1))
    normalizer = Normalizer(torch.zeros(11), torch.ones(11))
    fast = World(spec, FAST, Models(spec, FAST), normalizer, scale, starts, starts)
    if arguments.world:
        fast = World.load(arguments.world)
        starts = fast.sample_starts(batch, seed=0)
    fast.models.termination.threshold.fill_(1e9)  # it is asked, and never says yes

    a = torch.randn(512, 512)
    with fast_products():  # as the package works
        roofline = 2 * 512**3 / best(lambda: a @ a, 50) / 1e9
    rollout = best(lambda: fast.dream(Linear(), starts, iterations=0))
    asking = best(lambda: fast.trust_in(Linear()))  # once for a policy
    trust = Trust(0.5, 0.5)  # what untrained members say may leave them out, which would be faster
    seconds = best(lambda: fast.dream(Linear(), starts, iterations=m, trust=trust))
    network = fast.models.denoiser.network
    tokens = sum(
        p.numel()
        for n, p in network.named_parameters()
        if p.dim() == 2 and "modulation" not in n and "noise" not in n
    )
    width, depth = FAST.dynamics.width, FAST.dynamics.depth
    seen = fast.models.dynamics.inputs(torch.zeros(1, 11), torch.zeros(1, 3)).shape[1]
    member = length * (seen * width + (depth - 1) * width**2 + 11 * width)
    rolled = FAST.dynamics.elites + FAST.dynamics.members  # in the mean, and each on its own; then one a nudged rollout
    flops = 2 * batch * ((rolled + m) * member + m * network.tokens * tokens)  # type: ignore[union-attr]

    paper = Models(spec, PAPER).denoiser.eval().requires_grad_(False)
    rows = 64
    condition = Condition(torch.randn(rows, 11), torch.randn(rows, length, 3), torch.ones(rows, length))
    x, sigma = torch.randn(rows, length, 11), torch.ones(rows)
    with torch.no_grad(), fast_products():
        call = best(lambda: paper(x, sigma, condition), 3)
    calls = 2 * PAPER.sampler.steps - 1
    paper_rate = rows / (2 * calls * call)
    rate = batch / seconds
    result = {
        "command": f"python benchmarks/world_throughput.py --batch {batch}" + " --world WORLD" * bool(arguments.world),
        "waves": list(fast.models.dynamics.frequencies),
        "roofline_gflops": roofline,
        "fast_trajectories_per_second": rate,
        "fast_iterations": m,
        "trust_seconds_once_a_policy": asking,
        "single_step_trajectories_per_second": batch / rollout,
        "fast_gflops": flops / seconds / 1e9,
        "fast_share_of_roofline": flops / seconds / 1e9 / roofline,
        "paper_seconds_per_call_of_64": call,
        "paper_trajectories_per_second": paper_rate,
        "ratio": rate / paper_rate,
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
