"""What the stages of a fit share: the data, the settings, the models that grow, and where checkpoints go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.draws import own_draws
from dydiff_env.world.batches import Batches, Split, Step, split
from dydiff_env.world.edges import edges
from dydiff_env.world.models import Models
from dydiff_env.world.networks import Units
from dydiff_env.world.parallel import Processes
from dydiff_env.world.presets import Preset
from dydiff_env.world.training import TrainingConfig

HELD_OUT_ROWS = 20_000  # transitions in a held-out look
WORTH = 0.85  # of the held-out error of a simpler model: as much as that of one which is shown more may be


Part = TypeVar("Part", bound=nn.Module)


@dataclass
class Fitting:
    """One fit under way. Each stage leaves a checkpoint in ``folder`` and is skipped when it finds it finished.

    Args:
        data: what is learned from.
        preset: every setting.
        seed: of everything random.
        folder: of checkpoints and training rollouts.
        device: where to train.
        progress: show bars.
        log: ``log(tag, value, step)``, told the training curves.
        peers: the processes that train together.
        checkpoints: whether stages leave any; a rehearsal's do not.
    """

    data: Dataset
    preset: Preset
    seed: int
    folder: Path
    device: torch.device
    progress: bool = False
    log: Callable[[str, float, int], None] | None = None
    peers: Processes = field(default_factory=Processes)
    checkpoints: bool = True

    def __post_init__(self) -> None:
        with own_draws(torch.device("cpu"), self.seed):  # initial weights
            self.models = self.fresh(Models(self.data.spec, self.preset))
        free = Normalizer.fit(self.data.observations)
        low, high = (torch.from_numpy(edge).float() for edge in edges(self.data, free.std.numpy()))
        self.normalizer = dataclasses.replace(free, low=low, high=high).to(self.device)
        self.batches = Batches(self.data, self.normalizer, self.device)
        self.split: Split = split(self.data, self.preset.horizon, seed=self.seed)
        if not len(self.split.train):
            raise DyDiffError(
                f"{self.data.spec.dataset_id} has {len(self.data)} episodes of {self.data.transitions} steps in all, too few to learn from "
                "when some are held out.",
                "Collect more.",
            )
        self.rng = np.random.default_rng(self.seed)
        rows = self.split.held_out
        self.held_out_rows = np.sort(self.rng.choice(rows, min(HELD_OUT_ROWS, len(rows)), replace=False))
        self.held_out: Step = self.batches.steps(self.held_out_rows)

    def fresh(self, module: Part) -> Part:
        """A module that has just been made, where it is trained, its actions in units that a network can see."""
        Units.set_in(module, self.actions.mean, self.actions.std)
        return module.to(self.device)

    @cached_property
    def actions(self) -> Normalizer:
        """Mean and deviation of the logged actions, which takes a pass over them."""
        return Normalizer.fit(self.data.actions, floor=0.0)

    def draw(self, generator: torch.Generator, *shape: int) -> np.ndarray:
        """Transitions of the training part, uniformly."""
        return self.split.train[torch.randint(len(self.split.train), shape, generator=generator).numpy()]

    def share(self, config: TrainingConfig) -> TrainingConfig:
        """The same with this process's share of each batch."""
        return dataclasses.replace(config, batch=self.peers.share(config.batch))

    def files(self, stage: str) -> dict[str, Any]:
        """Where ``train`` keeps a stage's checkpoint, and whom it tells."""
        path = self.folder / f"{stage}.pt" if self.checkpoints else None
        return {"checkpoint": path, "progress": self.progress, "log": self.log}
