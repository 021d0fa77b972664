"""Stable-Baselines3 and sb3-contrib checkpoints (.zip), with VecNormalize statistics."""

from __future__ import annotations

import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dydiff_env.data.flattening import canonical, unflatten_batch
from dydiff_env.errors import DyDiffError, Note


class SB3Policy:
    """The policy network of an SB3 checkpoint, fed as its ``VecNormalize`` fed it.

    Args:
        network: an SB3 ``BasePolicy``; its own ``predict`` squashes or clips.
        statistics: the pickled ``VecNormalize``, or None.
        explores: whether draws are of its state-dependent exploration (gSDE): anew, for each row, whenever it acts.
    """

    def __init__(self, network: Any, statistics: Any | None = None, explores: bool = False) -> None:
        self.network, self.statistics, self.explores = network, statistics, explores
        self.observation_space: gym.Space = network.observation_space
        self.action_space: gym.Space = network.action_space

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for flattened observations (B, O)."""
        size = gym.spaces.flatdim(self.observation_space)
        if observations.shape[-1] != size:
            raise ValueError(
                f"observations of size {observations.shape[-1]}, the checkpoint was trained on {size}"
            )
        # Columns follow the keys' alphabet, which the space that an SB3 model holds need not: Gymnasium keeps the order of keywords.
        batch: Any = unflatten_batch(canonical(self.observation_space), observations.cpu().numpy())
        if self.statistics is not None and self.statistics.norm_obs:
            batch = self._normalized(batch)
        if self.explores and not deterministic:
            self.network.reset_noise(len(observations))
        actions, _ = self.network.predict(batch, deterministic=deterministic)
        return torch.as_tensor(actions).reshape(len(observations), -1)

    def _normalized(self, batch: Any) -> Any:
        statistics = self.statistics
        assert statistics is not None

        def scale(values: np.ndarray, running: Any) -> np.ndarray:
            scaled = (values - running.mean) / np.sqrt(running.var + statistics.epsilon)
            return np.clip(scaled, -statistics.clip_obs, statistics.clip_obs).astype(np.float32)

        if isinstance(batch, dict):
            keys = statistics.norm_obs_keys or batch.keys()
            return {
                key: scale(value, statistics.obs_rms[key]) if key in keys else value
                for key, value in batch.items()
            }
        return scale(batch, statistics.obs_rms)


def load(path: Path, vecnormalize: Path | None, device: str) -> SB3Policy:
    """The policy of an SB3 or sb3-contrib checkpoint. SB3 unpickles: only for trusted files.

    Raises:
        DyDiffError: when it cannot be read, needs a memory (recurrent), or acts in a space that is not a Box.
    """
    from stable_baselines3.common.save_util import load_from_zip_file

    try:
        data, parameters, _ = load_from_zip_file(path, device=device)
        assert data is not None
        network = _network(data, device)
        network.load_state_dict(parameters["policy"])
    except (DyDiffError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise DyDiffError(
            f"{path} cannot be read as a Stable-Baselines3 checkpoint: {error}.",
            "Save it again with the Stable-Baselines3 version installed here.",
        ) from error
    network.set_training_mode(False)
    if vecnormalize is None:
        beside = path.with_name(path.name.split(".")[0] + ".vecnormalize.pkl")
        # An on-policy algorithm keeps what it saw before normalisation only where there was one.
        inside = "replay_buffer_class" not in data and data.get("_last_original_obs") is not None
        if inside or beside.is_file():
            trained = f"{path.name} was trained inside a VecNormalize" if inside else f"{beside.name} lies beside {path.name}"
            warnings.warn(f"{trained}, whose statistics are not used; pass them as vecnormalize (--vecnormalize FILE).", Note, stacklevel=3)
    statistics = None if vecnormalize is None else _statistics(vecnormalize)
    return SB3Policy(network, statistics, bool(data.get("use_sde")))


def _network(data: dict[str, Any], device: str) -> Any:
    """The policy network, built as its algorithm builds it, whatever algorithm that was."""
    policy_class, action_space = data["policy_class"], data["action_space"]
    if not isinstance(action_space, gym.spaces.Box):
        raise DyDiffError(
            f"The checkpoint's action space is {action_space}.", "Only Box action spaces are supported."
        )
    if any("Recurrent" in base.__name__ for base in policy_class.__mro__):
        raise DyDiffError(
            "The checkpoint is a recurrent policy.", "Use a policy that acts on the present observation."
        )
    arguments = dict(data.get("policy_kwargs") or {})
    wanted = inspect.signature(policy_class.__init__).parameters
    if "lr_schedule" in wanted:
        arguments["lr_schedule"] = lambda _: 0.0  # the optimiser it makes is never stepped
    if "use_sde" in wanted and "use_sde" in data:
        arguments.setdefault("use_sde", data["use_sde"])
    return policy_class(data["observation_space"], action_space, **arguments).to(device)


def _statistics(path: Path) -> Any:
    if not path.is_file():
        raise DyDiffError(
            f"There is no VecNormalize file {path}.", "Pass the .pkl that VecNormalize.save wrote."
        )
    try:
        with path.open("rb") as file:
            statistics = pickle.load(file)
        held = vars(statistics)  # asked itself for what it has not, it would look for it without end
        if held["norm_obs"]:
            held["obs_rms"], held["clip_obs"], held["epsilon"]
    except Exception as error:
        raise DyDiffError(
            f"{path} is not a VecNormalize file: {error}.", "Pass the .pkl that VecNormalize.save wrote."
        ) from error
    return statistics
