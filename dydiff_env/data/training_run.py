"""A Stable-Baselines3 run as a source of behaviour data: its whole history, and the policies along its way."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import Tensor, nn

from dydiff_env.data.dataset import Episode
from dydiff_env.data.recorder import EpisodeRecorder
from dydiff_env.data.simulator import make_env
from dydiff_env.errors import unknown

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "sac": sb3.SAC, "td3": sb3.TD3, "ppo": sb3.PPO, "tqc": sb3_contrib.TQC, "crossq": sb3_contrib.CrossQ,
    "trpo": sb3_contrib.TRPO}
ON_POLICY = ("ppo", "trpo")


@dataclass(frozen=True)
class TrainingRunConfig:
    """How a behaviour policy is trained; what is not here is the algorithm's own default in SB3.

    Args:
        algorithm: one of ``ALGORITHMS``.
        steps: environment steps; 0 leaves the policy as it was initialised.
        seed: of the algorithm and its environments.
        snapshots: how many times along the way the policy is kept with its score.
        on_policy_envs: copies that an on-policy algorithm collects from; each update sees 2 048 steps.
    """

    algorithm: str = "sac"
    steps: int = 200_000
    seed: int = 0
    snapshots: int = 20
    on_policy_envs: int = 8


class TrainedPolicy(nn.Module):
    """Flattened observations (B, O) to actions (B, A) in environment units, normalisation inside.

    Args:
        policy: the SB3 policy, copied.
        normalize: VecNormalize of the run, or None.
        action_space: actions are brought into it.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policy: Any, normalize: VecNormalize | None, action_space: gym.spaces.Box) -> None:
        super().__init__()
        # Not a deep copy: after a gradient step some policies hold tensors of its graph.
        self.policy = type(policy)(**policy._get_constructor_parameters())
        self.policy.load_state_dict(policy.state_dict())
        self.policy.set_training_mode(False)
        size = int(np.prod(policy.observation_space.shape))
        mean, std, self.clip = np.zeros(size), np.ones(size), float("inf")
        if normalize is not None:
            statistics: Any = normalize.obs_rms
            mean, std = statistics.mean, np.sqrt(statistics.var + normalize.epsilon)
            self.clip = normalize.clip_obs
        for name, value in {"mean": mean, "std": std, "low": action_space.low, "high": action_space.high}.items():
            self.register_buffer(name, torch.as_tensor(np.asarray(value).reshape(-1), dtype=torch.float32))

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A)."""
        states = ((observations - self.mean) / self.std).clamp(-self.clip, self.clip)
        actions = self.policy._predict(states, deterministic=deterministic).flatten(1)
        if self.policy.squash_output:
            actions = self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return torch.minimum(torch.maximum(actions, self.low), self.high)

    def act(self, deterministic: bool) -> Callable[[np.ndarray], np.ndarray]:
        """The policy for NumPy observations, as ``record`` takes it."""

        @torch.no_grad()
        def act(observations: np.ndarray) -> np.ndarray:
            return self(torch.as_tensor(observations), deterministic).numpy()

        return act


@dataclass(frozen=True)
class Snapshot:
    """A policy along the run.

    Args:
        steps: environment steps it had been trained for.
        score: mean return of the episodes the run finished just before, exploration included.
        policy: the policy itself.
        parameters: its SB3 parameters.
        normalize: VecNormalize's statistics then, None where the run has none.
    """

    steps: int
    score: float
    policy: TrainedPolicy
    parameters: dict[str, Any]
    normalize: Any


class TrainingRun:
    """One training run.

    Args:
        env: environment id, or specification as JSON; Dict observations are flattened for the policy.
        config: how to train.
        sink: takes every episode of the run, whole history, in the order in which they end.

    Raises:
        DyDiffError: for an unknown algorithm.
    """

    def __init__(self, env: str, config: TrainingRunConfig, sink: Callable[[Episode], None]) -> None:
        if config.algorithm not in ALGORITHMS:
            raise unknown("behaviour algorithm", config.algorithm, ALGORITHMS)
        self.config, self.snapshots = config, list[Snapshot]()
        self._sink, self._recent, self._recorders = sink, list[float](), list[EpisodeRecorder]()
        on_policy = config.algorithm in ON_POLICY
        copies = config.on_policy_envs if on_policy else 1
        venv: VecEnv = DummyVecEnv([lambda: self._make(env) for _ in range(copies)])
        self.normalize = VecNormalize(venv, gamma=0.99) if on_policy else None
        self.model = ALGORITHMS[config.algorithm]("MlpPolicy", self.normalize or venv, seed=config.seed,
                                                  device="cpu", **self._options(on_policy, copies, venv))

    def _options(self, on_policy: bool, copies: int, venv: VecEnv) -> dict[str, Any]:
        if on_policy:
            return {"n_steps": 2048 // copies}
        options: dict[str, Any] = {"learning_starts": min(10_000, self.config.steps // 20),
                                   "buffer_size": max(1, min(1_000_000, self.config.steps))}
        if self.config.algorithm == "td3":
            shape = venv.action_space.shape or ()
            options["action_noise"] = NormalActionNoise(np.zeros(shape), np.full(shape, 0.1))
        return options

    def _make(self, env: str) -> gym.Env:
        recorder = EpisodeRecorder(make_env(env, disable_env_checker=True), self._take)
        self._recorders.append(recorder)
        return (gym.wrappers.FlattenObservation(recorder)
                if isinstance(recorder.observation_space, gym.spaces.Dict) else recorder)

    def _take(self, episode: Episode) -> None:
        self._recent.append(float(episode.rewards.sum()))
        self._sink(episode)

    def train(self, advance: Callable[[int], Any] = lambda n: None) -> None:
        """Train for ``config.steps``; episodes under way at the end are handed over as time-outs."""
        every = max(1, self.config.steps // self.config.snapshots)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # networks this small lose more to waiting for each other than they gain
        try:
            if self.config.steps:
                self.model.learn(self.config.steps, callback=_EachStep(self, every, advance))
        finally:
            torch.set_num_threads(threads)
        if self._recent or not self.snapshots:
            self.snapshots.append(self.snapshot())
        for recorder in self._recorders:
            recorder.flush()

    def snapshot(self) -> Snapshot:
        """The policy as it is now; scored by the episodes since the last one (−∞ if there was none)."""
        action_space = self.model.action_space
        assert isinstance(action_space, gym.spaces.Box)
        taken = Snapshot(
            self.model.num_timesteps, float(np.mean(self._recent)) if self._recent else -np.inf,
            TrainedPolicy(self.model.policy, self.normalize, action_space),
            copy.deepcopy(self.model.policy.state_dict()),
            None if self.normalize is None else copy.deepcopy(self.normalize.obs_rms))
        self._recent.clear()
        return taken

    def save(self, snapshot: Snapshot, folder: Path, name: str) -> None:
        """Write ``NAME.pt`` (TorchScript: observation → action), and the same as SB3's ``NAME.sb3.zip``.

        ``NAME.vecnormalize.pkl`` goes with the latter where the run normalised its observations.
        """
        folder.mkdir(parents=True, exist_ok=True)
        example = torch.zeros(2, len(snapshot.policy.mean))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is on its way out in torch, its files are read everywhere
            traced = torch.jit.trace(snapshot.policy.eval(), example, check_trace=False)
            torch.jit.freeze(traced).save(str(folder / f"{name}.pt"))
        self.model.policy.load_state_dict(snapshot.parameters)
        self.model.save(folder / f"{name}.sb3.zip")
        if self.normalize is not None:
            self.normalize.obs_rms = snapshot.normalize
            self.normalize.save(str(folder / f"{name}.vecnormalize.pkl"))

    def best(self) -> Snapshot:
        """The snapshot with the highest score: the run's expert."""
        return max(self.snapshots, key=lambda snapshot: snapshot.score)

    def medium(self, random_score: float) -> Snapshot:
        """The first snapshot a third of the way from random to best, D4RL's medium level (Fu et al. 2020)."""
        best = self.best().score
        level = min(best, random_score + (best - random_score) / 3)  # a short run may end below random
        return next(snapshot for snapshot in self.snapshots if snapshot.score >= level)


class _EachStep(BaseCallback):
    """Takes the snapshots and moves the progress bar."""

    def __init__(self, run: TrainingRun, every: int, advance: Callable[[int], Any]) -> None:
        super().__init__()
        self._run, self._every, self._advance = run, every, advance

    def _on_step(self) -> bool:
        copies = self.training_env.num_envs
        self._advance(copies)
        # A snapshot waits until an episode has ended since the last one: without it there is no score.
        due = self.num_timesteps // self._every > (self.num_timesteps - copies) // self._every
        if due and self._run._recent:
            self._run.snapshots.append(self._run.snapshot())
        return True
