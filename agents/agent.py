"""What every agent can do: fit, act, predict, save, load. How it learns is in its own file."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from dydiff_env.agents import checkpoint
from dydiff_env.agents.optimizer import FlatAdam
from dydiff_env.agents.replay import Batch, Replay, Source
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.flattening import flatten_one_or_many
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.draws import own_draws
from dydiff_env.products import check_device, fast_products


class Agent(nn.Module):
    """An offline agent for the spaces of a dataset.

    Inside, observations are standardised (where the original does that) and actions lie in [−1, 1]; outside, both are in environment units.
    A subclass has a frozen ``config_class``, its networks, ``update`` (gradient steps) and ``policy``.

    Args:
        spec: of the data: its spaces fix the widths and the action bounds.
        config: hyper-parameters; the published ones when None.
        seed: of the initial weights, the batches and the noise.
        device: where the networks live.
        world: path of the world that belongs to this agent; ``export`` finds it in the checkpoint.

    Raises:
        DyDiffError: where the action space has no finite bounds.
    """

    algorithm: ClassVar[str]
    config_class: ClassVar[type]
    observation_mean: Tensor
    observation_std: Tensor
    action_centre: Tensor
    action_scale: Tensor
    standardises: ClassVar[bool] = True  # whether observations are, as in the algorithm's original
    group: int = 1  # how many batches one call of ``update`` may take

    def __init__(
        self,
        spec: DatasetSpec,
        config: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        world: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_device(device)
        space, seed = spec.action_space, operator.index(seed)  # NumPy's, too
        if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
            raise DyDiffError(
                f"The action space {space} has no finite bounds.", "Use data with a bounded Box of actions."
            )
        self.spec, self.config, self.seed = spec, config or self.config_class(), seed
        self.world = None if world is None else str(world)
        self.device, self.updates = torch.device(device), 0
        self.mix: dict[str, Any] | None = None  # what it is trained on besides the logged data; see seeds.Run
        self.judged: str | None = None  # fingerprint of the world its dreams are judged in
        low, high = (torch.from_numpy(bound) for bound in spec.action_bounds)
        self.register_buffer("observation_mean", torch.zeros(spec.observation_size))
        self.register_buffer("observation_std", torch.ones(spec.observation_size))
        self.register_buffer("action_centre", (high + low) / 2)
        self.register_buffer("action_scale", (high - low) / 2)
        if not (high > low).all():
            raise DyDiffError(
                f"The action space {space} has a number that cannot change.", "Leave it out of the actions."
            )
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizers: dict[str, FlatAdam] = {}
        with own_draws(torch.device("cpu"), seed):
            self.build(spec.observation_size, spec.action_size)
        self.to(self.device)

    # What a subclass gives:

    def build(self, observation_size: int, action_size: int) -> None:
        """Make the networks and, through ``adam``, their optimisers."""
        raise NotImplementedError

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step a batch, on standardised observations and actions in [−1, 1].

        Args:
            batch: K ≤ ``group`` batches, (K, B, …).

        Returns:
            Losses to log, not yet read back from the device.
        """
        raise NotImplementedError

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Actions in [−1, 1], (B, A), for standardised observations (B, O).

        Draws come from torch's global generator, so that whoever rolls the agent out decides its seed.
        """
        raise NotImplementedError

    def adam(self, name: str, *trained: nn.Module | nn.Parameter, rate: float) -> FlatAdam:
        """Adam over modules' parameters or single ones, kept with the agent and its checkpoint."""
        self.to(self.device)
        parameters = [
            parameter
            for part in trained
            for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
        ]
        self.optimizers[name] = FlatAdam(parameters, rate)
        return self.optimizers[name]

    # What a user calls:

    def fit(
        self, replay: Replay | Source, steps: int, callback: Callable[[int, dict[str, Tensor]], None] | None = None
    ) -> Self:
        """Train for ``steps`` more updates; before the first, the logged data's mean and deviation are taken to standardise by.

        Args:
            replay: where batches come from, or logged data alone.
            steps: number of gradient updates.
            callback: called after each group of updates with the number of updates so far and the losses.

        Returns:
            The agent itself.
        """
        replay = replay if isinstance(replay, Replay) else Replay(replay, device=self.device)
        if (replay.observation_size, replay.action_size) != (
            len(self.observation_mean),
            len(self.action_scale),
        ):
            raise DyDiffError(
                f"The data have (O, A) = {(replay.observation_size, replay.action_size)}, the agent "
                f"{(len(self.observation_mean), len(self.action_scale))}.",
                "Train on data of the agent's own environment.",
                usage=True,
            )
        if self.updates == 0 and self.standardises:
            std, mean = torch.std_mean(replay.real_observations.double(), 0, correction=0)
            self.observation_mean.copy_(mean)
            self.observation_std.copy_(std + 1e-3)  # as TD3BC does
        batches = replay.batches(
            steps, self.config.batch_size, start=self.updates, seed=self.seed, group=self.group
        )
        with fast_products(self.device):
            for batch in batches:
                losses = self.update(self._inside(batch))
                self.updates += len(batch.rewards)
                if callback:
                    callback(self.updates, losses)
        return self

    def _inside(self, batch: Batch) -> Batch:
        return batch._replace(
            observations=(batch.observations - self.observation_mean) / self.observation_std,
            actions=(batch.actions - self.action_centre) / self.action_scale,
            next_observations=(batch.next_observations - self.observation_mean) / self.observation_std,
        )

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O), environment units; exports hold this."""
        inside = self.policy((observations - self.observation_mean) / self.observation_std, deterministic)
        return inside.clamp(-1, 1) * self.action_scale + self.action_centre

    @torch.no_grad()
    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for flattened observations (B, O), environment units."""
        return self(observations.to(self.observation_mean.device, torch.float32), deterministic)

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Stable-Baselines3's ``predict``.

        Args:
            observation: one observation or a batch, as the environment gives it (a dict for Dict spaces).
            state: recurrent state; not used, handed back.
            episode_start: not used.
            deterministic: False samples where the policy is stochastic.

        Returns:
            The action (or a batch of them), shaped and typed as the action space, and ``state``.

        Raises:
            DyDiffError: where the observation does not fit the agent's space.
        """
        rows, single = flatten_one_or_many(self.spec.observation_space, observation)
        if rows.shape[1] != len(self.observation_mean):
            raise DyDiffError(
                f"The observation has {rows.shape[1]} numbers, the agent expects "
                f"{len(self.observation_mean)}.",
                "Use an environment with the spaces of the agent's data.",
            )
        space = self.spec.action_space
        assert isinstance(space, gym.spaces.Box)
        actions = self.act(torch.from_numpy(rows), deterministic).cpu().numpy()
        actions = np.clip(actions.reshape(len(rows), *space.shape).astype(space.dtype), space.low, space.high)  # a bound may be rounded
        return (actions[0] if single else actions), state

    def __reduce__(self) -> tuple[Any, ...]:  # parameters are views of the optimisers': a plain copy would part them
        return checkpoint.restore, (type(self), checkpoint.content_of(self), str(self.device))

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint, training state included, by one rename; ``load`` reads it back."""
        return checkpoint.write(self, Path(path).expanduser())

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """The agent that ``save`` wrote, ready to act or to be trained on.

        Raises:
            DyDiffError: where the file is missing, broken, or holds another algorithm.
        """
        content = checkpoint.read_checkpoint(path)
        if content["algorithm"] != cls.algorithm:
            raise DyDiffError(
                f"{path} holds a {content['algorithm']} agent, not {cls.algorithm}.",
                "Use dydiff_env.agents.load_agent, which reads any.",
            )
        return checkpoint.restore(cls, content, device)
