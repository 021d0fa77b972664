"""What every agent can do: fit, act, predict, save, load. How it learns is in its own file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from dydiff_env.agents.optimizer import FlatAdam
from dydiff_env.agents.replay import Batch, Replay
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.flattening import flatten_batch
from dydiff_env.errors import DyDiffError

FORMAT, VERSION = "dydiff-env-agent", 1


class Agent(nn.Module):
    """An offline agent for the spaces of a dataset.

    Inside, observations are standardised and actions lie in [−1, 1]; outside, both are in environment units.
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
    group: int = 1  # how many batches one call of ``update`` may take

    def __init__(
        self,
        spec: DatasetSpec,
        config: Any = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        world: str | None = None,
    ) -> None:
        super().__init__()
        space = spec.action_space
        if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
            raise DyDiffError(
                f"The action space {space} has no finite bounds.", "Use data with a bounded Box of actions."
            )
        self.spec, self.config, self.seed, self.world = spec, config or self.config_class(), seed, world
        self.device, self.updates = torch.device(device), 0
        low, high = (
            torch.as_tensor(bound.reshape(-1), dtype=torch.float32) for bound in (space.low, space.high)
        )
        self.register_buffer("observation_mean", torch.zeros(spec.observation_size))
        self.register_buffer("observation_std", torch.ones(spec.observation_size))
        self.register_buffer("action_centre", (high + low) / 2)
        self.register_buffer("action_scale", (high - low) / 2)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizers: dict[str, FlatAdam] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        """Actions in [−1, 1], (B, A), for standardised observations (B, O)."""
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
        self, replay: Replay, steps: int, callback: Callable[[int, dict[str, Tensor]], None] | None = None
    ) -> Self:
        """Train for ``steps`` more updates; the first call also standardises observations by the logged data.

        Args:
            replay: where batches come from.
            steps: number of gradient updates.
            callback: called after each group of updates with the number of updates so far and the losses.

        Returns:
            The agent itself.
        """
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
        if self.updates == 0:
            std, mean = torch.std_mean(replay.real_observations.double(), 0, correction=0)
            self.observation_mean.copy_(mean)
            self.observation_std.copy_(std + 1e-3)  # as TD3BC does
        for batch in replay.batches(
            steps, self.config.batch_size, start=self.updates, seed=self.seed, group=self.group
        ):
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
        return self(observations.to(self.device, torch.float32), deterministic)

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
        single = _is_single(self.spec.observation_space, observation)
        rows = flatten_batch(self.spec.observation_space, _lift(observation) if single else observation)
        if rows.shape[1] != len(self.observation_mean):
            raise DyDiffError(
                f"The observation has {rows.shape[1]} numbers, the agent expects "
                f"{len(self.observation_mean)}.",
                "Use an environment with the spaces of the agent's data.",
            )
        space = self.spec.action_space
        assert space.shape is not None
        actions = self.act(torch.from_numpy(rows), deterministic).cpu().numpy()
        actions = actions.reshape(len(rows), *space.shape).astype(space.dtype, copy=False)
        return (actions[0] if single else actions), state

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint, training state included, by one rename; ``load`` reads it back."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        torch.save(
            {
                "format": FORMAT,
                "version": VERSION,
                "algorithm": self.algorithm,
                "config": asdict(self.config),
                "state": dict(self.state_dict()),
                "spec": self.spec.to_json(),
                "world": self.world,
                "updates": self.updates,
                "seed": self.seed,
                "generator": self.generator.get_state(),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            },
            partial,
        )
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Self:
        """The agent that ``save`` wrote, ready to act or to be trained on.

        Raises:
            DyDiffError: where the file is missing, broken, or holds another algorithm.
        """
        checkpoint = read_checkpoint(path)
        if checkpoint["algorithm"] != cls.algorithm:
            raise DyDiffError(
                f"{path} holds a {checkpoint['algorithm']} agent, not {cls.algorithm}.",
                "Use dydiff_env.agents.load_agent, which reads any.",
            )
        return cls.from_checkpoint(checkpoint, device)

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any], device: torch.device | str = "cpu") -> Self:
        """The agent in a checkpoint that ``read_checkpoint`` read.

        Raises:
            DyDiffError: where its content does not fit this class.
        """
        try:
            fields = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in checkpoint["config"].items()
            }
            agent = cls(
                DatasetSpec.from_json(checkpoint["spec"]),
                cls.config_class(**fields),
                seed=checkpoint["seed"],
                device=device,
                world=checkpoint["world"],
            )
            agent.load_state_dict(checkpoint["state"])
            agent.updates = checkpoint["updates"]
            for name, optimizer in agent.optimizers.items():
                optimizer.load_state_dict(checkpoint["optimizers"][name])
            if agent.device.type == "cpu":  # the state of a CPU's generator means nothing to a GPU's
                agent.generator.set_state(checkpoint["generator"])
            return agent
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DyDiffError(
                f"The checkpoint does not fit this version's {cls.algorithm} ({type(error).__name__}).",
                "Train the agent again, or use the version that wrote it.",
            ) from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of an agent's checkpoint; reading runs no code.

    Raises:
        DyDiffError: where the file is missing, broken, or no agent's checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DyDiffError(f"There is no checkpoint {path}.", "Make one with `dydiff-env train`.") from None
    except Exception as error:  # torch raises a different type for each way a file can be broken
        raise DyDiffError(
            f"{path} is not a readable checkpoint ({type(error).__name__}).",
            "Give a file that `dydiff-env train` wrote; write it again if it was cut short.",
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise DyDiffError(f"{path} is no agent checkpoint.", "Give a file that `dydiff-env train` wrote.")
    if checkpoint["version"] > VERSION:
        raise DyDiffError(
            f"{path} has version {checkpoint['version']}, newer than {VERSION}.", "Update dydiff-env."
        )
    return checkpoint


def _is_single(space: gym.Space, observation: Any) -> bool:
    while isinstance(space, gym.spaces.Dict):
        key, space = next(iter(space.spaces.items()))
        observation = observation[key]
    assert space.shape is not None
    return np.ndim(observation) == len(space.shape)


def _lift(observation: Any) -> Any:
    """One observation as a batch of one."""
    if isinstance(observation, dict):
        return {key: _lift(value) for key, value in observation.items()}
    return np.asarray(observation)[None]
