"""The behaviour policy, cloned from the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.draws import own_draws

if TYPE_CHECKING:
    from dydiff_env.data.dataset import Dataset, DatasetSpec

UPDATES, BATCH, HIDDEN = 5_000, 256, 256


class BehaviorPolicy(nn.Module):
    """A Gaussian over actions, its mean a network of the observation, fitted by likelihood; standardised inside, whatever the units.

    Args:
        observations: (rows, O), to normalise by.
        actions: (T, A), as well.
    """

    mean: Tensor
    std: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, observations: np.ndarray, actions: np.ndarray) -> None:
        super().__init__()
        action_size, seen, done = actions.shape[1], Normalizer.fit(observations), Normalizer.fit(actions, floor=0.0)
        for name, value in {"mean": seen.mean, "std": seen.std, "centre": done.mean, "scale": done.std}.items():
            self.register_buffer(name, value)
        self.network = nn.Sequential(
            nn.Linear(observations.shape[1], HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, action_size),
        )
        self.log_std = nn.Parameter(torch.zeros(action_size))  # standardised

    def forward(self, observations: Tensor) -> Tensor:
        """The mean action (B, A), standardised."""
        return self.network((observations - self.mean) / self.std)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """The mean action, or a sample around it."""
        actions = self(observations.to(self.mean.device))
        if not deterministic:
            actions = actions + self.log_std.exp() * torch.randn_like(actions)
        return self.centre + self.scale * actions


def clone(dataset: Dataset, device: str = "cpu", seed: int = 0, updates: int = UPDATES) -> BehaviorPolicy:
    """Fit a Gaussian to the dataset's actions by maximum likelihood, ``updates`` steps of Adam."""
    with own_draws(torch.device(device), seed):
        observations, actions = dataset.observations, dataset.actions
        policy = BehaviorPolicy(observations, actions).to(device)
        optimizer = torch.optim.Adam(policy.network.parameters(), lr=1e-3, fused=True)
        optimizer.add_param_group({"params": [policy.log_std], "lr": 1e-2})  # it may have far to go
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            rows = torch.randint(len(actions), (BATCH,)).numpy()
            target = (torch.as_tensor(actions[rows], device=device) - policy.centre) / policy.scale
            error = (
                target - policy(torch.as_tensor(observations[rows + dataset.episode_of(rows)], device=device))
            ) / policy.log_std.exp()
            loss = (0.5 * error.square() + policy.log_std).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return policy.eval().requires_grad_(False)


def load(spec: DatasetSpec, device: str) -> BehaviorPolicy:
    """Clone the policy of the dataset that ``spec`` names.

    Raises:
        DyDiffError: when that dataset is not on this machine, or what bears its name is another.
    """
    from dydiff_env.data.minari_io import load_dataset

    if not spec.fingerprint:
        raise DyDiffError(
            "'behavior' is cloned from a dataset, and none is named here.", "Name a world, or pass a policy file.", usage=True
        )
    try:
        dataset = load_dataset(spec.dataset_id)
    except DyDiffError as error:
        raise DyDiffError(
            f"'behavior' is cloned from the dataset {spec.dataset_id!r}, which cannot be loaded.",
            f"Pass a policy file, or register the dataset: dydiff-env mix --real FOLDER --out COPY --dataset-id {spec.dataset_id}.",
        ) from error
    if spec.fingerprint and dataset.spec.fingerprint != spec.fingerprint:
        raise DyDiffError(
            f"'behavior' is cloned from the dataset {spec.dataset_id!r}, but what is called so here holds other data.",
            "Pass a policy file, or bring back the dataset that the world was fitted to.",
        )
    return clone(dataset, device)
