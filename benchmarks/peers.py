"""The authors' own agents, as they stand in checkouts that are no part of this project, behind one interface.

FOLDER holds ``td3bc`` (github.com/sfujim/TD3_BC), ``dql`` (Zhendong-Wang/Diffusion-Policies-for-Offline-RL) and
``corl`` (tinkoff-ai/CORL).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dydiff_env.agents import ALGORITHMS, Replay, load_agent
from dydiff_env.data.dataset import Dataset

BATCH = 256


class Learner:
    """Something that trains for some updates, acts, and can be put on disk and taken up again."""

    updates: int = 0

    def train(self, updates: int) -> None:
        """Train for ``updates`` more."""
        raise NotImplementedError

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O), in environment units."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write all that training goes on from, by one rename."""
        raise NotImplementedError

    def load(self, path: Path) -> None:
        """Take up what ``save`` wrote."""
        raise NotImplementedError


class Own(Learner):
    """This project's agent, with its default hyper-parameters."""

    def __init__(self, algorithm: str, data: Dataset, seed: int) -> None:
        self.agent, self.replay = ALGORITHMS[algorithm](data.spec, seed=seed), Replay(data)

    def train(self, updates: int) -> None:
        """Train for ``updates`` more."""
        self.agent.fit(self.replay, updates)
        self.updates = self.agent.updates

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """The agent's actions."""
        return self.agent.act(observations, deterministic)

    def save(self, path: Path) -> None:
        """Its checkpoint."""
        self.agent.save(path)

    def load(self, path: Path) -> None:
        """Its checkpoint."""
        self.agent = load_agent(path)
        self.updates = self.agent.updates


class Peer(Learner):
    """An authors' agent on the authors' own sampler."""

    learner: Any

    def __init__(self, folder: Path, data: Dataset, seed: int) -> None:
        self.seed, flat = seed, data.flat()
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the peers draw from NumPy's global generator)
        self.rows = {
            "observations": flat.observations,
            "actions": flat.actions,
            "next_observations": flat.next_observations,
            "rewards": flat.rewards,
            "terminals": flat.terminated,
        }
        self.build(folder, data.spec.observation_size, data.spec.action_size)

    def build(self, folder: Path, observation_size: int, action_size: int) -> None:
        """Make the learner and its sampler."""
        raise NotImplementedError

    def run(self, updates: int) -> None:
        """The authors' training calls."""
        raise NotImplementedError

    def train(self, updates: int) -> None:
        """Train, the draws decided by the seed and the number of updates so far: a resumed run draws the same."""
        torch.manual_seed(self.seed * 1_000_003 + self.updates)
        np.random.seed(self.seed * 1_003 + self.updates)  # noqa: NPY002
        self.run(updates)
        self.updates += updates

    def save(self, path: Path) -> None:
        """The whole learner, pickled."""
        torch.save({"learner": self.learner, "updates": self.updates}, path.with_suffix(".partial"))
        os.replace(path.with_suffix(".partial"), path)

    def load(self, path: Path) -> None:
        """Unpickle it; only for files this benchmark wrote itself."""
        content = torch.load(path, weights_only=False)
        self.learner, self.updates = content["learner"], content["updates"]


class PeerTD3BC(Peer):
    """sfujim/TD3_BC."""

    def build(self, folder: Path, observation_size: int, action_size: int) -> None:
        """Its agent and its replay buffer, states normalised as its main.py does."""
        module, utils = _modules(folder / "td3bc", "TD3_BC", "utils")
        self.buffer = utils.ReplayBuffer(observation_size, action_size, max_size=1)
        self.buffer.convert_D4RL(self.rows)
        self.mean, self.std = map(torch.as_tensor, self.buffer.normalize_states())
        self.learner = module.TD3_BC(observation_size, action_size, 1.0)

    def run(self, updates: int) -> None:
        """One call an update."""
        for _ in range(updates):
            self.learner.train(self.buffer, BATCH)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Its actor on normalised states."""
        with torch.no_grad():
            return self.learner.actor((observations - self.mean) / self.std)


class PeerDiffQL(Peer):
    """Zhendong-Wang/Diffusion-Policies-for-Offline-RL, its settings for Gym's medium-replay data."""

    def build(self, folder: Path, observation_size: int, action_size: int) -> None:
        """Its agent and its sampler."""
        module, sampler = _modules(folder / "dql", "agents.ql_diffusion", "utils.data_sampler")
        self.sampler = sampler.Data_Sampler(self.rows, "cpu")
        self.learner = module.Diffusion_QL(
            observation_size, action_size, 1.0, "cpu", 0.99, 0.005, beta_schedule="vp", n_timesteps=5, grad_norm=4.0
        )  # fmt: skip

    def run(self, updates: int) -> None:
        """One call for all updates."""
        self.learner.train(self.sampler, updates, BATCH)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Its own choice among 50 samples, state by state."""
        return torch.from_numpy(np.stack([self.learner.sample_action(row.numpy()) for row in observations]))


class PeerCQL(Peer):
    """CORL's CQL with its default hyper-parameters, rewards as they are."""

    def build(self, folder: Path, observation_size: int, action_size: int) -> None:
        """Its agent and its replay buffer, states normalised as its training script does."""
        module = _corl(folder / "corl/algorithms/offline/cql.py")
        mean, std = module.compute_mean_std(self.rows["observations"], eps=1e-3)
        self.mean, self.std = torch.as_tensor(mean), torch.as_tensor(std)
        for name in ("observations", "next_observations"):
            self.rows[name] = module.normalize_states(self.rows[name], mean, std)
        self.buffer = module.ReplayBuffer(observation_size, action_size, len(self.rows["rewards"]))
        self.buffer.load_d4rl_dataset(self.rows)
        adam = torch.optim.Adam
        critics = [module.FullyConnectedQFunction(observation_size, action_size, True, 3) for _ in range(2)]
        actor = module.TanhGaussianPolicy(observation_size, action_size, 1.0, orthogonal_init=True)
        self.learner = module.ContinuousCQL(
            critics[0], adam(critics[0].parameters(), 3e-4), critics[1], adam(critics[1].parameters(), 3e-4),
            actor, adam(actor.parameters(), 3e-5), target_entropy=-float(action_size), bc_steps=0,
            policy_lr=3e-5, cql_alpha=10.0,
        )  # fmt: skip

    def run(self, updates: int) -> None:
        """One call an update."""
        for _ in range(updates):
            self.learner.train(self.buffer.sample(BATCH))

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """The mode of its actor on normalised states."""
        with torch.no_grad():
            return self.learner.actor((observations - self.mean) / self.std, deterministic)[0]


PEERS: dict[str, type[Peer]] = {"td3bc": PeerTD3BC, "diffql": PeerDiffQL, "cql": PeerCQL}


def _modules(folder: Path, *names: str) -> list[ModuleType]:
    """Modules of a checkout; its ``utils`` is forgotten afterwards, since each checkout has one."""
    sys.path.insert(0, str(folder.resolve()))
    found = [importlib.import_module(name) for name in names]
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
        del sys.modules[name]
    return found


def _corl(path: Path) -> ModuleType:
    """CORL's script as a module; what only its training loop imports is replaced by empty modules."""
    if "corl_cql" in sys.modules:
        return sys.modules["corl_cql"]
    missing = {name: sys.modules.get(name) for name in ("d4rl", "gym", "pyrallis", "wandb")}
    for name in missing:
        sys.modules[name] = ModuleType(name)
    sys.modules["pyrallis"].wrap = lambda: lambda function: function  # type: ignore[attr-defined]
    sys.modules["gym"].Env = object  # type: ignore[attr-defined]
    module = sys.modules["corl_cql"] = ModuleType("corl_cql")
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    for name, before in missing.items():
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
    return module
