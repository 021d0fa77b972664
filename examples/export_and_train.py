"""Dreams as an ordinary dataset: export them, then train TD3+BC on them in one plain torch loop.

    python examples/export_and_train.py syn.minari                  # the embedded maze and its policy
    python examples/export_and_train.py syn.minari world/ ckpt.pt

After the export nothing of dydiff-env is needed: the arrays come from Minari, and any trainer takes them, CORL's scripts or
d3rlpy's ``MDPDataset(observations, actions, rewards, terminals, timeouts)``.
"""

from __future__ import annotations

import copy
import sys

import minari
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from dydiff_env.envs.worlds import find_world
from dydiff_env.synthesis.export import export


def flat(seen: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
    """(T, O): the parts of a Dict observation side by side, in the order of their names."""
    return np.concatenate([seen[key] for key in sorted(seen)], -1) if isinstance(seen, dict) else seen


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs))


def minimise(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(), loss.backward(), optimizer.step()


def td3bc(s: Tensor, a: Tensor, r: Tensor, s2: Tensor, end: Tensor, updates: int) -> nn.Module:
    """An actor trained on T transitions (Fujimoto & Gu 2021), without the target policy's noise."""
    (width, size), rows = (s.shape[1], a.shape[1]), torch.randint(len(s), (updates, 256))
    actor = nn.Sequential(network(width, size), nn.Tanh())
    critics = nn.ModuleList(network(width + size, 1) for _ in range(2))
    slow_actor, slow_critics = copy.deepcopy((actor, critics))
    steps = torch.optim.Adam(critics.parameters(), 3e-4), torch.optim.Adam(actor.parameters(), 3e-4)
    for i in rows:
        with torch.no_grad():
            following = torch.cat([s2[i], slow_actor(s2[i])], 1)
            goal = r[i] + 0.99 * (1 - end[i]) * torch.minimum(*(q(following) for q in slow_critics))
        here = torch.cat([s[i], a[i]], 1)
        minimise(steps[0], mse_loss(critics[0](here), goal) + mse_loss(critics[1](here), goal))
        acted = actor(s[i])
        value = critics[0](torch.cat([s[i], acted], 1))
        minimise(steps[1], mse_loss(acted, a[i]) - 2.5 * value.mean() / value.abs().mean().detach())
        for slow, fast in ((slow_actor, actor), (slow_critics, critics)):
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.data.lerp_(new.data, 0.005)
    return actor


def main(out: str, world: str | None = None, policy: str = "demo", updates: int = 5000, batch: int = 512) -> float:
    export(find_world(world, policy=policy), policy, out, batch=batch, overwrite=True)
    dreams = minari.MinariDataset(out)
    seen = [(flat(one.observations), one.actions, one.rewards, one.terminations) for one in dreams]
    rows = [(s[:-1], a, r[:, None], s[1:], end[:, None]) for s, a, r, end in seen]
    s, a, r, s2, end = (torch.from_numpy(np.concatenate(part)).float() for part in zip(*rows, strict=True))
    mean, std = s.mean(0), s.std(0) + 1e-3
    actor = td3bc((s - mean) / std, a, r, (s2 - mean) / std, end, updates)
    env, total, over = dreams.recover_environment(), 0.0, False
    observation, _ = env.reset(seed=0)
    while not over:
        state = torch.from_numpy(flat(observation)).float()
        observation, reward, terminated, truncated, _ = env.step(actor((state - mean) / std).detach().numpy())
        total, over = total + float(reward), terminated or truncated
    print(f"{len(s)} dreamt transitions, {updates} updates; return of a real episode {total:.1f}")
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])
