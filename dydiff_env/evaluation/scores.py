"""Returns of a policy in a real environment."""

from __future__ import annotations

import operator
from contextlib import closing
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.flattening import flatten_batch
from dydiff_env.data.simulator import make_env, make_vec_env
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.statistics import bootstrap_interval, normalized_scores
from dydiff_env.policies.draws import own_draws
from dydiff_env.policies.policy import Policy


@dataclass(frozen=True)
class Episodes:
    """What a policy reached.

    Args:
        returns: (E,) returns, undiscounted unless a discount was asked for.
        lengths: (E,) steps.
        starts: (E,) the number of the state that each began in, of those there are; None where no two began in the same.
    """

    returns: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray | None = None

    def interval(self) -> tuple[float, float]:
        """The mean return's 95 % bootstrap interval: starts are redrawn, and of each start its episodes, which may be copies."""
        if self.starts is None:
            return bootstrap_interval(self.returns)
        rng, order = np.random.default_rng(1), np.argsort(self.starts, kind="stable")
        returns, counts = self.returns[order], np.bincount(self.starts)
        begins = np.cumsum(counts) - counts

        def mean(starts: np.ndarray) -> float:
            many = counts[starts]
            some = np.repeat(begins[starts], many) + (rng.random(many.sum()) * np.repeat(many, many)).astype(int)
            return float(returns[some].mean())

        return bootstrap_interval(np.flatnonzero(counts), statistic=mean)

    def document(self, spec: DatasetSpec | None = None) -> dict[str, object]:
        """The JSON document of ``dydiff-env evaluate``, with a normalised score where ``spec`` can tell."""
        low, high = self.interval()
        document: dict[str, object] = {
            "return_mean": float(self.returns.mean()),
            "return_ci": [low, high],
            "length_mean": float(self.lengths.mean()),
            "episodes": len(self.returns),
        }
        scores = None if spec is None else normalized_scores(self.returns, spec)
        if scores is not None:
            document["normalized_score"] = float(scores.mean())
        return document


def environment_of(spec: DatasetSpec) -> EnvSpec:
    """The environment that a dataset was recorded in.

    Raises:
        DyDiffError: where the dataset does not say.
    """
    if (environment := spec.environment) is None:
        raise DyDiffError(
            f"{spec.dataset_id} does not say which environment it comes from.", "Name one with --env."
        )
    return environment


def check_environment(env: str | EnvSpec, spec: DatasetSpec, horizon: int | None = None) -> int:
    """How long an episode may be for what acts in the spaces of ``spec``: ``horizon``, else the environment's own limit.

    Raises:
        DyDiffError: where the environment cannot be made, its observations or actions are of other sizes, or it has no limit and none is
            given.
    """
    with closing(make_env(env)) as made:
        sizes = gym.spaces.flatdim(made.observation_space), gym.spaces.flatdim(made.action_space)
    if sizes != (spec.observation_size, spec.action_size):
        raise DyDiffError(
            f"{_name(env)} has observations and actions of sizes {sizes}, these are of {spec.observation_size, spec.action_size}.",
            "Name an environment with the data's own spaces.",
            usage=True,
        )
    return _limit(made.spec, env) if horizon is None else horizon


def _limit(made: EnvSpec | None, env: str | EnvSpec) -> int:
    if made is None or made.max_episode_steps is None:
        raise DyDiffError(
            f"{_name(env)} has no time limit: an episode may never end.",
            "Register it with max_episode_steps, under this or another id, and name that with --env.",
        )
    return made.max_episode_steps


def evaluate_returns(
    policy: Policy,
    env: str | EnvSpec,
    episodes: int = 10,
    *,
    seed: int = 0,
    deterministic: bool = True,
    num_envs: int | None = None,
    horizon: int | None = None,
    discount: float = 1.0,
) -> Episodes:
    """Run a policy in copies of an environment, all acted on as one batch.

    Args:
        policy: acts on flattened observations.
        env: an id (``Hopper-v5``) or a specification.
        episodes: how many in all; each copy runs its share, so that short episodes are not over-counted.
        seed: of the environments' resets and of what the policy draws.
        deterministic: asked of the policy.
        num_envs: copies; at most 16 when None.
        horizon: the longest episode; the environment's own limit when None.
        discount: γ, a reward t steps on counts γ^t.

    Returns:
        Returns and lengths of the episodes, copy by copy.

    Raises:
        DyDiffError: where there is no such environment, or the policy does not fit it.
    """
    if not callable(getattr(policy, "act", None)):
        raise DyDiffError(f"A {type(policy).__name__} is no policy: it has no act(observations, deterministic).",
                          "Pass as_policy(it, spec), which takes SB3 models, functions and files.", usage=True)
    seed = operator.index(seed)  # torch takes no number of NumPy's
    num_envs = min(episodes, num_envs or 16)
    share = np.array([len(part) for part in np.array_split(np.arange(episodes), num_envs)])
    vector = make_vec_env(env, num_envs, max_episode_steps=horizon)
    with closing(vector), own_draws(torch.device("cpu"), seed):
        _limit(vector.envs[0].spec, env)  # or the wait would have no end
        space, within = vector.single_observation_space, vector.single_action_space
        if not isinstance(within, gym.spaces.Box):
            raise DyDiffError(f"{_name(env)} takes actions of {within}.", "Evaluate in an environment of continuous actions.", usage=True)
        observations, _ = vector.reset(seed=seed)
        finished: list[list[tuple[float, int]]] = [[] for _ in range(num_envs)]
        returns, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
        starting = np.zeros(num_envs, bool)  # these copies spend the coming step on their reset
        while any(len(done) < due for done, due in zip(finished, share, strict=True)):
            rows = torch.from_numpy(flatten_batch(space, observations))
            with torch.no_grad():
                actions = torch.as_tensor(policy.act(rows, deterministic)).cpu().numpy()
            if actions.size != np.prod(vector.action_space.shape or ()):
                raise DyDiffError(
                    f"The policy gives {actions.shape[1:]} actions, {_name(env)} takes "
                    f"{vector.single_action_space.shape}.",
                    "Evaluate it in its own environment.",
                )
            inside = np.clip(actions.reshape(vector.action_space.shape).astype(np.float64), within.low, within.high)
            observations, rewards, terminated, truncated, _ = vector.step(inside.astype(within.dtype))
            returns += np.where(starting, 0.0, discount**lengths * rewards)
            lengths += ~starting
            ended = (terminated | truncated) & ~starting
            for i in np.flatnonzero(ended):
                if len(finished[i]) < share[i]:
                    finished[i].append((float(returns[i]), int(lengths[i])))
                returns[i], lengths[i] = 0.0, 0
            starting = ended
    pairs = [pair for done in finished for pair in done]
    return Episodes(np.array([total for total, _ in pairs]), np.array([length for _, length in pairs]))


def _name(env: str | EnvSpec) -> str:
    return env if isinstance(env, str) else env.id
