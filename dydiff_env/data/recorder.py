"""Every transition a simulator takes, whoever is acting and however it is vectorised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from dydiff_env.data.dataset import Episode
from dydiff_env.data.flattening import batch_of_one, canonical, flatten_batch
from dydiff_env.data.simulator import make_vec_env

Act = Callable[[np.ndarray], np.ndarray]  # (B, O) float32 flattened observations -> (B, A) actions


class EpisodeRecorder(gym.Wrapper):
    """Hands over each episode when it ends, or when it is abandoned by a reset.

    It wraps the single environment, below every vectoriser's autoreset: it records the simulator's own
    transitions, each episode with its final observation, none across a reset.

    Args:
        env: one environment.
        sink: takes each Episode of at least one step.
    """

    def __init__(self, env: gym.Env, sink: Callable[[Episode], None]) -> None:
        super().__init__(env)
        self._sink, self._space = sink, canonical(env.observation_space)  # columns as a dataset's spec orders them
        self._observations: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode; one that was under way is handed over as a time-out."""
        self.flush()
        observation, info = self.env.reset(**kwargs)
        self._observations = [self._flat(observation)]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step and note it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._observations.append(self._flat(observation))
        self._actions.append(np.array(action, np.float32).reshape(-1))
        self._rewards.append(float(reward))
        if terminated or truncated:
            self.flush(bool(terminated))
        return observation, reward, terminated, truncated, info

    def flush(self, terminated: bool = False) -> None:
        """Hand over the episode under way, if it has a step."""
        if self._actions:
            self._sink(Episode(np.stack(self._observations), np.stack(self._actions),
                               np.array(self._rewards, np.float32), terminated))
        self._observations, self._actions, self._rewards = [], [], []

    def _flat(self, observation: Any) -> np.ndarray:
        return np.array(flatten_batch(self._space, batch_of_one(observation))[0])  # a copy: environments may reuse theirs


def record(env: str, act: Act, *, steps: int | None = None, episodes: int | None = None, num_envs: int = 16,
           seed: int = 0, advance: Callable[[int], Any] = lambda n: None, **kwargs: Any) -> Iterator[Episode]:
    """Episodes of ``act`` in the real environment, as they end.

    Args:
        env: an id, or an environment's specification as JSON.
        act: flattened observations (B, O) to actions (B, A); clipped to the action space here.
        steps: stop after exactly this many transitions; the episodes under way are then cut off as time-outs.
        episodes: stop after this many whole ones. Each copy plays its share, so short ones are not favoured.
        num_envs: copies stepped together.
        seed: of the environments.
        advance: told how many transitions were added.
        kwargs: to ``gymnasium.make``.
    """
    num_envs = min(num_envs, episodes or steps or 1)
    sinks: list[list[Episode]] = []
    recorders: list[EpisodeRecorder] = []

    def wrap(copy: gym.Env) -> gym.Env:
        sinks.append([])
        recorders.append(EpisodeRecorder(copy, sinks[-1].append))
        return recorders[-1]

    venv = make_vec_env(env, num_envs, [wrap], **kwargs)
    space, actions = venv.single_observation_space, venv.single_action_space
    assert isinstance(actions, gym.spaces.Box)
    share = [episodes // num_envs + (i < episodes % num_envs) if episodes else -1 for i in range(num_envs)]
    try:
        observations, _ = venv.reset(seed=seed)
        total, resetting = 0, np.zeros(num_envs, bool)
        while any(share) and (steps is None or total < steps):
            raw = np.asarray(act(flatten_batch(space, observations)), np.float64)
            chosen = np.clip(raw.reshape(num_envs, *actions.shape), actions.low, actions.high)
            observations, _, terminations, truncations, _ = venv.step(chosen.astype(actions.dtype))
            stepped = int((~resetting).sum())
            total += stepped
            advance(stepped)
            resetting = terminations | truncations
            if steps is not None and total >= steps:
                for recorder in recorders:
                    recorder.flush()
            for i, sink in enumerate(sinks):
                for episode in sink:
                    if steps is not None and total > steps:  # one copy's last step too many
                        episode, total = _without_last_step(episode), total - 1
                    if share[i] and len(episode.rewards):
                        share[i] -= 1
                        yield episode
                sink.clear()
    finally:
        venv.close()


def _without_last_step(episode: Episode) -> Episode:
    return Episode(episode.observations[:-1], episode.actions[:-1], episode.rewards[:-1], False)
