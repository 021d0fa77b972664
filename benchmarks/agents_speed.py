"""Updates per second of each agent on one core, beside the authors' own code where it is at hand.

    python benchmarks/agents_speed.py --dataset DATASET [--peers FOLDER] [--rounds 5]

FOLDER holds checkouts of the peers, none of which is part of this project: ``td3bc`` (sfujim/TD3_BC), ``dql``
(Zhendong-Wang/Diffusion-Policies-for-Offline-RL), ``corl`` (tinkoff-ai/CORL). Ours and the peer take turns within
a round and time is the process's own, so that other work on the machine weighs on both alike; the figure is the
median of the rounds. The matrix roofline is measured in the same rounds with the agents' own 256³ product.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dydiff_env.agents import ALGORITHMS, Replay
from dydiff_env.data.minari_io import load_dataset

UPDATES = {"td3bc": 200, "bc": 400, "diffql": 30, "cql": 10}  # in a round
GIGAFLOPS = {
    "td3bc": 0.41,
    "diffql": 2.48,
    "cql": 12.9,
}  # matrix products of one update, by the papers' arithmetic


def peer_td3bc(folder: Path, data: Any) -> Callable[[int], None]:
    """The authors' TD3_BC on its own replay buffer."""
    sys.path.insert(0, str(folder / "td3bc"))
    module, utils = importlib.import_module("TD3_BC"), importlib.import_module("utils")
    sys.path.pop(0)
    sys.modules.pop("utils")
    flat, (size, actions) = data.flat(), (data.spec.observation_size, data.spec.action_size)
    buffer = utils.ReplayBuffer(size, actions, max_size=1)
    buffer.convert_D4RL(
        {
            "observations": flat.observations,
            "actions": flat.actions,
            "next_observations": flat.next_observations,
            "rewards": flat.rewards,
            "terminals": flat.terminated,
        }
    )
    buffer.normalize_states()
    agent = module.TD3_BC(size, actions, 1.0)
    return lambda updates: [agent.train(buffer, 256) for _ in range(updates)] and None


def peer_diffql(folder: Path, data: Any) -> Callable[[int], None]:
    """The authors' Diffusion-QL on its own sampler."""
    sys.path.insert(0, str(folder / "dql"))
    module = importlib.import_module("agents.ql_diffusion")
    sampler_module = importlib.import_module("utils.data_sampler")
    sys.path.pop(0)
    flat = data.flat()
    sampler = sampler_module.Data_Sampler(
        {
            "observations": flat.observations,
            "actions": flat.actions,
            "next_observations": flat.next_observations,
            "rewards": flat.rewards,
            "terminals": flat.terminated,
        },
        "cpu",
    )
    agent = module.Diffusion_QL(
        data.spec.observation_size, data.spec.action_size, 1.0, "cpu", 0.99, 0.005,
        beta_schedule="vp", n_timesteps=5, grad_norm=4.0,
    )  # fmt: skip
    return lambda updates: agent.train(sampler, updates, 256) and None


def peer_cql(folder: Path, data: Any) -> Callable[[int], None]:
    """CORL's CQL with its default hyper-parameters."""
    for name in ("d4rl", "gym", "pyrallis", "wandb"):  # imported by its training script, not by the agent
        sys.modules[name] = ModuleType(name)
    sys.modules["pyrallis"].wrap = lambda: lambda function: function  # type: ignore[attr-defined]
    sys.modules["gym"].Env = object  # type: ignore[attr-defined]
    source = (folder / "corl/algorithms/offline/cql.py").read_text()
    module = ModuleType("corl_cql")
    sys.modules["corl_cql"] = module
    exec(compile(source, "corl_cql", "exec"), module.__dict__)
    size, actions, flat = data.spec.observation_size, data.spec.action_size, data.flat()
    buffer = module.ReplayBuffer(size, actions, data.transitions)
    buffer.load_d4rl_dataset(
        {
            "observations": flat.observations,
            "actions": flat.actions,
            "next_observations": flat.next_observations,
            "rewards": flat.rewards,
            "terminals": flat.terminated,
        }
    )
    critics = [module.FullyConnectedQFunction(size, actions, True, 3) for _ in range(2)]
    actor = module.TanhGaussianPolicy(size, actions, 1.0, orthogonal_init=True)
    adam = torch.optim.Adam
    trainer = module.ContinuousCQL(
        critics[0], adam(critics[0].parameters(), 3e-4), critics[1], adam(critics[1].parameters(), 3e-4),
        actor, adam(actor.parameters(), 3e-5), target_entropy=-float(actions), bc_steps=0, policy_lr=3e-5,
        cql_alpha=10.0,
    )  # fmt: skip
    return lambda updates: [trainer.train(buffer.sample(256)) for _ in range(updates)] and None


PEERS = {"td3bc": peer_td3bc, "diffql": peer_diffql, "cql": peer_cql}


def rate(run: Callable[[int], None], count: int) -> float:
    """Calls per second of processor time."""
    begun = time.process_time()
    run(count)
    return count / (time.process_time() - begun)


def roofline() -> float:
    """GFLOP/s of the product the agents live on."""
    left, right, out = torch.randn(256, 256), torch.randn(256, 256), torch.empty(256, 256)
    return 2 * 256**3 / 1e9 * rate(lambda n: [torch.mm(left, right, out=out) for _ in range(n)] and None, 500)


def measure(algorithm: str, data: Any, peers: Path | None, rounds: int) -> dict[str, float]:
    """Medians over ``rounds`` of ours and of the peer."""
    agent, replay = ALGORITHMS[algorithm](data.spec), Replay(data)
    runs: dict[str, Callable[[int], None]] = {"ours": lambda n: agent.fit(replay, n) and None}
    if peers and algorithm in PEERS:
        runs["peer"] = PEERS[algorithm](peers, data)
    for run in runs.values():
        run(4)
    rates: dict[str, list[float]] = {name: [] for name in (*runs, "roofline")}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(rate(run, UPDATES[algorithm]))
        rates["roofline"].append(roofline())
    row = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    if "peer" in rates:
        ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
        row["ratio"] = round(statistics.median(ratios), 2)
    if algorithm in GIGAFLOPS:
        row["share_of_roofline"] = round(GIGAFLOPS[algorithm] * row["ours"] / row["roofline"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.dataset)
    for algorithm in arguments.algorithms:
        row = measure(algorithm, data, arguments.peers, arguments.rounds)
        print(json.dumps({"algorithm": algorithm, **row}), flush=True)


if __name__ == "__main__":
    main()
