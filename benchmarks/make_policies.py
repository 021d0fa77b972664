"""Policies of graded quality for one task, from poor to expert: what a ranking of policies is tested on.

    python benchmarks/make_policies.py DATASET --out FOLDER [--policy FILE …] [--count 10]

Candidates, all deterministic:

- clones of successive slices of the log (a log of a learner's whole life gets better from slice to slice);
- every given policy (TorchScript, observation → action) as it is;
- each given policy mixed with a fixed random network, a = (1 − λ) π(s) + λ w(s), for several λ;
- the half-way points between every two given policies.

Each is run for ``--episodes`` real episodes. The given ones are kept, then, one by one, the candidate whose mean
return lies furthest from all that are kept, less two standard errors of that mean. FOLDER gets the kept policies as TorchScript files and
``policies.json`` with every candidate's real return.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dydiff_env.agents import BC, Replay
from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.evaluation.scores import environment_of, evaluate_returns
from dydiff_env.policies.torchscript import TorchScriptPolicy

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)  # λ of the random network


class Mixture(nn.Module):
    """(1 − λ) first(s) + λ second(s), within the action space."""

    low: Tensor
    high: Tensor

    def __init__(self, first: nn.Module, second: nn.Module, share: float, spec: DatasetSpec) -> None:
        super().__init__()
        self.first, self.second, self.share = first, second, share
        for name in ("low", "high"):
            self.register_buffer(name, torch.as_tensor(getattr(spec.action_space, name), dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        """Actions (B, A) for observations (B, O)."""
        first, second = (part(observations).clamp(self.low, self.high) for part in (self.first, self.second))
        return (1 - self.share) * first + self.share * second


def wobble(data: Dataset, seed: int) -> nn.Module:
    """A fixed random network whose actions reach their bounds: noise that is a function of the state."""
    torch.manual_seed(seed)
    agent = BC(data.spec, seed=seed)
    agent.fit(Replay(data), 1)  # standardises observations
    with torch.no_grad():
        for layer in agent.actor.layers:
            nn.init.orthogonal_(layer.weight, gain=2.0)
    return agent


def slice_of(data: Dataset, index: int, slices: int) -> Dataset:
    """The episodes whose first transition lies in slice ``index`` of the log."""
    which = np.minimum(data.offsets[:-1] * slices // data.transitions, slices - 1)
    return Dataset.from_episodes(data.spec, [data.episode(int(i)) for i in np.flatnonzero(which == index)])


def candidates(
    data: Dataset, given: dict[str, nn.Module], slices: int, updates: int
) -> dict[str, tuple[str, nn.Module]]:
    """Name → (how it was made, module)."""
    made: dict[str, tuple[str, nn.Module]] = {name: ("given", module) for name, module in given.items()}
    for index in range(slices):
        clone = BC(data.spec, seed=index).fit(Replay(slice_of(data, index, slices)), updates)
        made[f"clone-{index + 1:02d}"] = (f"clone of slice {index + 1} of {slices} of the log", clone)
    noise = wobble(data, seed=0)
    for name, module in given.items():
        for share in SHARES:
            about = f"{1 - share:g} {name} + {share:g} of a fixed random network"
            made[f"{name}-noise-{share:.2f}"] = (about, Mixture(module, noise, share, data.spec))
    for (one, first), (two, second) in combinations(given.items(), 2):
        made[f"{one}-{two}-half"] = (f"half {one}, half {two}", Mixture(first, second, 0.5, data.spec))
    return made


def spread(returns: dict[str, np.ndarray], kept: list[str], count: int) -> list[str]:
    """``kept`` and what lies furthest from all that are kept, ``count`` names from worst to best."""
    means = {name: float(values.mean()) for name, values in returns.items()}
    errors = {name: float(values.std() / len(values) ** 0.5) for name, values in returns.items()}
    kept = list(kept) or [max(means, key=lambda name: means[name])]
    while len(kept) < min(count, len(means)):
        gaps = {
            name: min(abs(means[name] - means[k]) for k in kept) - 2 * errors[name]
            for name in means.keys() - kept
        }
        kept.append(max(sorted(gaps), key=lambda name: gaps[name]))
    return sorted(kept, key=lambda name: means[name])


def save(module: nn.Module, path: Path, observation_size: int) -> Path:
    """Write the module as TorchScript."""
    if not isinstance(module, torch.jit.ScriptModule):
        module = torch.jit.trace(module.eval(), torch.zeros(2, observation_size), check_trace=False)
    module.save(str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--policy", type=Path, action="append", default=[])
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--episodes", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.dataset)
    env = environment_of(data.spec)
    given = {path.stem: torch.jit.load(str(path)) for path in arguments.policy}
    trials = arguments.out / "candidates"
    trials.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, object]] = {}
    returns: dict[str, np.ndarray] = {}
    for name, (about, module) in candidates(data, given, arguments.slices, arguments.updates).items():
        path = save(module, trials / f"{name}.pt", data.spec.observation_size)
        found = evaluate_returns(
            TorchScriptPolicy(path.read_bytes(), "cpu"), env, arguments.episodes, seed=1000
        )
        returns[name] = found.returns
        rows[name] = {
            "made": about,
            "return_mean": float(found.returns.mean()),
            "return_std": float(found.returns.std()),
            "length_mean": float(found.lengths.mean()),
            "episodes": arguments.episodes,
        }
        print(f"{name:28s} {rows[name]['return_mean']:9.1f} ± {rows[name]['return_std']:7.1f}", flush=True)
    kept = spread(returns, list(given), arguments.count)
    for name in kept:
        shutil.copy(trials / f"{name}.pt", arguments.out / f"{name}.pt")
    shutil.rmtree(trials)
    document = {
        "dataset": data.spec.dataset_id,
        "environment": env.id,
        "policies": {name: {"file": f"{name}.pt", **rows[name]} for name in kept},
        "left_out": {name: row for name, row in rows.items() if name not in kept},
    }
    (arguments.out / "policies.json").write_text(json.dumps(document, indent=2) + "\n")
    print("kept: " + ", ".join(f"{name} {returns[name].mean():.0f}" for name in kept))


if __name__ == "__main__":
    main()
