"""Behaviour data as D4RL made it: tiers of a training run, mazes walked by waypoints, or a given policy."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dydiff_env import __version__
from dydiff_env.data.dataset import DatasetSpec, Episode
from dydiff_env.data.minari_writer import MinariWriter
from dydiff_env.data.recorder import Act, record
from dydiff_env.data.registry import Destination
from dydiff_env.data.simulator import describe, make_env
from dydiff_env.data.waypoint import WaypointConfig, WaypointController
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.lock import sole_writer
from dydiff_env.progress import progress_bar

TIERS = ("random", "medium-replay", "medium", "medium-expert", "expert")
MAZE_TASK = {"continuing_task": True, "reset_target": True}
POLICY_FILES = (".pt", ".sb3.zip", ".vecnormalize.pkl")


@dataclass(frozen=True)
class CollectConfig:
    """What to record.

    Args:
        steps: transitions in the dataset, exactly.
        tier: one of ``TIERS``, after D4RL (Fu et al. 2020): *random* the untrained policy; *medium-replay* the first
            ``steps`` transitions of the training run, the whole history; *expert* the best policy along the run;
            *medium* the first one a third of the way from random to that; *medium-expert* half of each.
        algorithm: trains the behaviour policy: sac, td3, ppo, tqc, crossq or trpo.
        train_steps: length of the training run; by default ``steps`` for medium-replay, 300 000 for the other tiers
            and none for random.
        num_envs: copies stepped together when a finished policy is recorded.
        score_episodes: episodes behind each reference score.
        noise: standard deviation of what is added to a given policy's actions (none by default) or a maze walker's (.5), where
            half an action's range is 1.
        keep_goal: in a PointMaze, the goal stays when it is reached; D4RL's jump to a place that nothing foretells.
        seed: of everything drawn.
    """

    steps: int = 100_000
    tier: str = "medium-replay"
    algorithm: str = "sac"
    train_steps: int | None = None
    num_envs: int = 16
    score_episodes: int = 20
    noise: float | None = None
    keep_goal: bool = False
    seed: int = 0


def collect_maze(env_id: str, destination: Destination, config: CollectConfig,
                 progress: bool = False) -> dict[str, Any]:
    """Record a PointMaze under the waypoint controller: a new goal after each one reached, or the same one.

    The reference scores are the mean returns of random actions and of the controller without noise.
    """
    spec = describe(env_id, **MAZE_TASK | {"reset_target": not config.keep_goal})
    env_json = str(spec.env_spec)
    noise = WaypointConfig.noise if config.noise is None else config.noise
    with_noise, without = (_waypoints(env_json, WaypointConfig(noise=level), config.seed) for level in (noise, 0.0))
    with _recording(destination, spec, config, progress) as recording:
        recording.fill(with_noise, config.steps, f"Recording {env_id}")
        scores = recording.score(_uniform(spec, config.seed)), recording.score(without)
        return recording.publish("Waypoint controller", f"{env_id}, waypoint controller with noise {noise:g}",
                                 {"noise": noise, "keep_goal": config.keep_goal}, scores)


def collect_tier(env_id: str, destination: Destination, config: CollectConfig,
                 progress: bool = False) -> dict[str, Any]:
    """Train a behaviour policy and record one of D4RL's tiers of it; its policies are saved beside.

    The reference scores are the mean returns of random actions and of the run's best policy, without exploration.

    Raises:
        DyDiffError: for an unknown tier or algorithm, or actions without bounds.
    """
    from dydiff_env.data.training_run import TrainingRun, TrainingRunConfig  # takes a second to import

    if config.tier not in TIERS:
        raise unknown("tier", config.tier, TIERS)
    spec = describe(env_id)
    if not np.isfinite(spec.action_bounds).all():
        raise DyDiffError(f"{env_id} has actions without bounds: no behaviour policy can be trained.",
                          "Bound its action space, or record a --policy.", usage=True)
    by_default = {"random": 0, "medium-replay": config.steps}
    train_steps = by_default.get(config.tier, 300_000) if config.train_steps is None else config.train_steps
    least = by_default.get(config.tier, 1)
    if train_steps < least:
        raise DyDiffError(
            f"The tier {config.tier} of {config.steps} steps comes from a policy trained for at least {least}, not {train_steps}.",
            "Raise --train-steps, or leave it out.",
            usage=True,
        )
    with _recording(destination, spec, config, progress, with_policies=True) as recording:
        history = config.tier == "medium-replay"
        run = TrainingRun(recording.env_json, TrainingRunConfig(config.algorithm, train_steps, config.seed),
                           recording.take if history else lambda episode: None)
        untrained = run.snapshot()
        with progress_bar(f"Training {config.algorithm}", train_steps, progress) as advance:
            run.train(advance)
        low, high = recording.score(_uniform(spec, config.seed)), None
        levels = {"random": untrained}
        if train_steps:
            levels = {"medium": run.medium(-np.inf if low is None else low), "expert": run.best()}
            high = recording.score(levels["expert"].policy.act(deterministic=True))
        shares = {"random": {"random": 1.0}, "medium": {"medium": 1.0}, "expert": {"expert": 1.0},
                  "medium-expert": {"medium": 0.5, "expert": 0.5}, "medium-replay": {}}[config.tier]
        for level, share in shares.items():
            snapshot = untrained if level == "random" else levels[level]
            count = math.floor(config.steps * share) if level == "medium" and share < 1 else math.ceil(config.steps * share)
            recording.fill(snapshot.policy.act(deterministic=False), count, f"Recording {level}")
        for level, snapshot in levels.items():
            run.save(snapshot, recording.staged, level)
        trained_for = {level: snapshot.steps for level, snapshot in levels.items()}
        return recording.publish(f"{config.algorithm.upper()} ({config.tier})", f"{env_id}, {config.tier}",
                                 {"train_steps": train_steps, "trained_for": trained_for}, (low, high))


def collect_policy(env_id: str, destination: Destination, config: CollectConfig, policy: Callable[[DatasetSpec], Act],
                   name: str, progress: bool = False) -> dict[str, Any]:
    """Record a given policy.

    Args:
        env_id: the environment.
        destination: where the dataset goes.
        config: ``steps``, ``num_envs``, ``noise``, ``keep_goal`` and ``seed`` count.
        policy: makes the acting function once the spaces are known.
        name: what to call it in the metadata.
        progress: show a bar on a terminal.

    Raises:
        DyDiffError: for noise on actions without bounds.
    """
    spec = describe(env_id, **(MAZE_TASK | {"reset_target": not config.keep_goal} if is_maze(env_id) else {}))
    act = policy(spec)
    if config.noise:
        act = _noisy(act, spec.action_space, config.noise, config.seed)
    with _recording(destination, spec, config, progress) as recording:
        recording.fill(act, config.steps, f"Recording {name}")
        return recording.publish(name, f"{env_id}, {name}", {"noise": config.noise or 0.0, "keep_goal": config.keep_goal})


def is_maze(env_id: str) -> bool:
    """Whether the waypoint controller can walk it."""
    return env_id.startswith("PointMaze")


def _waypoints(env_json: str, config: WaypointConfig, seed: int) -> Act:
    env: Any = make_env(env_json)
    env.close()
    return WaypointController(env.unwrapped.maze, env.observation_space, config, seed)


def _noisy(act: Act, space: gym.Space, noise: float, seed: int) -> Act:
    """The same with Gaussian noise on its actions, kept inside the space."""
    assert isinstance(space, gym.spaces.Box)
    if not space.is_bounded():
        raise DyDiffError("Noise is measured in half an action's range, and these actions have no bounds.",
                          "Leave out --noise, or bound the environment's action space.", usage=True)
    rng, low, high = np.random.default_rng(seed), space.low.reshape(-1), space.high.reshape(-1)

    def noisy(observations: np.ndarray) -> np.ndarray:
        actions = act(observations)
        flat = actions.reshape(len(actions), -1) + noise * (high - low) / 2 * rng.standard_normal((len(actions), len(low)))
        return np.clip(flat, low, high).reshape(actions.shape)

    return noisy


def _uniform(spec: DatasetSpec, seed: int) -> Act:
    space, rng = spec.action_space, np.random.default_rng(seed)
    assert isinstance(space, gym.spaces.Box)
    return lambda observations: rng.uniform(space.low, space.high, (len(observations), *space.shape))


@contextmanager
def _recording(destination: Destination, spec: DatasetSpec, config: CollectConfig, progress: bool,
               with_policies: bool = False) -> Iterator[_Recording]:
    """The only recording that goes to this place; nothing is left of one that fails."""
    path, dataset_id = destination.resolve()
    # Beside a registered dataset's `data`; beside a folder of its own under a name that tells whose they are.
    policies = path.with_name("policies" if destination.out is None else f"{path.name.removesuffix('.minari')}-policies")
    staged = policies.with_name(policies.name + ".partial")
    with sole_writer(path):
        if with_policies and policies.exists():
            _check_replaceable(policies, destination.overwrite)
        with MinariWriter(path, replace(spec, dataset_id=dataset_id), overwrite=destination.overwrite) as writer:
            shutil.rmtree(staged, ignore_errors=True)  # those of a run that was killed
            try:
                yield _Recording(writer, destination, policies, staged, config, progress)
            finally:
                shutil.rmtree(staged, ignore_errors=True)


def _check_replaceable(policies: Path, overwrite: bool) -> None:
    if not overwrite:
        raise DyDiffError(f"{policies} exists.", "Choose another name, or replace it with --overwrite.", usage=True)
    if other := [file.name for file in policies.iterdir() if not file.name.startswith(".") and not file.name.endswith(POLICY_FILES)]:
        raise DyDiffError(f"{policies} is where the policies go, and holds {other[0]}: it stays.",
                          "Choose another name, or move it away.", usage=True)


@dataclass
class _Recording:
    """A dataset being written: takes exactly ``config.steps`` transitions, whatever it is offered; its policies may go beside it."""

    writer: MinariWriter
    destination: Destination
    policies: Path  # the folder they get
    staged: Path  # where they lie until then
    config: CollectConfig
    progress: bool
    began: float = field(default_factory=time.perf_counter)
    taken: int = 0
    returns: list[float] = field(default_factory=list)

    @property
    def env_json(self) -> str:
        """The environment's specification."""
        return str(self.writer.spec.env_spec)

    def take(self, episode: Episode) -> None:
        """Keep an episode, or what of it still fits."""
        kept = len(episode.rewards[:self.config.steps - self.taken])
        if not kept:
            return
        if kept < len(episode.rewards):
            episode = Episode(episode.observations[:kept + 1], episode.actions[:kept], episode.rewards[:kept], False)
        self.taken += kept
        self.returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self.writer.take(episode)

    def fill(self, act: Act, steps: int, title: str) -> None:
        """Take so many steps of a policy."""
        with progress_bar(title, steps, self.progress) as advance:
            for episode in record(self.env_json, act, steps=steps, num_envs=self.config.num_envs, seed=self.config.seed, advance=advance):
                self.take(episode)

    def score(self, act: Act) -> float | None:
        """A policy's mean return, None where episodes may never end."""
        env, config = make_env(self.env_json), self.config
        env.close()
        if env.spec is None or env.spec.max_episode_steps is None:
            return None
        episodes = record(self.env_json, act, episodes=config.score_episodes, num_envs=config.num_envs, seed=config.seed + 1)
        return float(np.mean([episode.rewards.sum(dtype=np.float64) for episode in episodes]))

    def publish(self, algorithm: str, description: str, facts: dict[str, Any],
                scores: tuple[float | None, float | None] = (None, None)) -> dict[str, Any]:
        """Give the dataset and the policies beside it their names; returns what to tell the user."""
        writer, config, (low, high) = self.writer, self.config, scores
        writer.spec = replace(writer.spec, ref_min_score=low, ref_max_score=high)
        path = writer.publish(
            algorithm_name=algorithm, description=description,
            provenance={"command": "collect", "version": __version__, "steps": config.steps, "seed": config.seed,
                        "score_episodes": config.score_episodes, "num_envs": config.num_envs} | facts)
        self.destination.register()
        policies: list[str] = []
        if self.staged.exists():
            shutil.rmtree(self.policies, ignore_errors=True)  # those of a dataset that this one replaces
            self.staged.rename(self.policies)
            policies = sorted(str(file) for file in self.policies.glob("*.pt"))
        return {"dataset_id": writer.spec.dataset_id, "path": str(path), "episodes": writer.trajectories,
                "transitions": writer.transitions, "return_mean": float(np.mean(self.returns)),
                "return_std": float(np.std(self.returns)), "ref_min_score": low, "ref_max_score": high,
                "policies": policies, "seconds": round(time.perf_counter() - self.began, 1)}
