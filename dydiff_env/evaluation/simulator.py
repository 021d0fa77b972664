"""The source environment as the truth: put to any logged state, then driven by a policy or by given actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces.utils import flatten, unflatten

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.simulator import make_env
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.policy import Policy

State = tuple[np.ndarray, np.ndarray, Any]
"""qpos, qvel, and what else an environment keeps (the goal of a maze)."""


class Simulator:
    """The source environment with a state that can be set from an observation.

    Works for Gymnasium's MuJoCo tasks, whose observations are positions (some left out) and velocities, and for PointMaze.

    Args:
        spec: of the dataset.

    Raises:
        DyDiffError: where the environment cannot be made, or its state cannot be set from an observation.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        if (environment := spec.environment) is None:
            raise DyDiffError(
                f"The dataset {spec.dataset_id} does not say which environment it came from.",
                "Only held-out fidelity is possible: leave the simulator out.",
            )
        self.spec = spec
        self.env = make_env(environment)
        self.env.reset(seed=0)
        base: Any = self.env.unwrapped
        self.maze = hasattr(base, "point_env")
        self.base = base
        self.mujoco: Any = base.point_env if self.maze else base
        if not hasattr(self.mujoco, "set_state") or not (self.maze or hasattr(base, "observation_structure")):
            raise DyDiffError(
                f"The state of {base} cannot be set from an observation; those of MuJoCo tasks and PointMaze can.",
                "Leave the simulator out (--no-simulator); `evaluate --world --env` compares returns.",
            )
        if self.maze and base.continuing_task and base.reset_target:
            base.continuing_task = False  # a world of such a maze dreams one goal (data/goals.py): end there, too
        self.low, self.high = spec.action_bounds

    def state(self, observation: np.ndarray) -> State:
        """The simulator's state for a flattened observation (O,); positions it leaves out are 0."""
        if self.maze:
            named = unflatten(self.spec.observation_space, observation)
            point = np.asarray(named["observation"], np.float64)
            return point[:2], point[2:4], np.asarray(named["desired_goal"], np.float64)
        nq, nv = self.mujoco.model.nq, self.mujoco.model.nv
        skipped = self.mujoco.observation_structure.get("skipped_qpos", 0)
        qpos = np.concatenate([np.zeros(skipped), observation[: nq - skipped]])
        return qpos, np.asarray(observation[nq - skipped : nq - skipped + nv], np.float64), None

    def known(self, observations: np.ndarray) -> np.ndarray:
        """Which observations (N, O) tell the whole state, (N,) bool.

        Hopper and Walker2d show velocities within ±10 only. From a state that is beyond, the simulator cannot be started: put to the
        bound, it would go somewhere the log never went. Such a velocity is found by pushing it outwards: what is seen stays the same.
        """
        if self.maze:
            return np.ones(len(observations), bool)
        first = self.mujoco.model.nq - self.mujoco.observation_structure.get("skipped_qpos", 0)
        velocities = slice(first, first + self.mujoco.model.nv)
        result = np.empty(len(observations), bool)
        for i, observation in enumerate(observations):
            qpos, qvel, _ = self.state(observation)
            outwards = np.copysign(0.01 * np.maximum(1, np.abs(qvel)), qvel)
            self.mujoco.set_state(qpos, qvel + outwards)
            pushed = np.asarray(flatten(self.spec.observation_space, self.base._get_obs()), np.float32)
            result[i] = ((pushed - observation)[velocities] * outwards > 0).all()
        return result

    def set(self, state: State) -> None:
        """Put the simulator into a state."""
        if self.maze:
            self.base.goal = state[2]
            self.base.update_target_site_pos()
        self.mujoco.set_state(state[0], state[1])

    def get(self) -> State:
        """The state the simulator is in."""
        return (
            self.mujoco.data.qpos.copy(),
            self.mujoco.data.qvel.copy(),
            self.base.goal.copy() if self.maze else None,
        )

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Flattened observation (O,), reward, terminated for an action (A,)."""
        observation, reward, terminated, _, _ = self.base.step(
            np.clip(action, self.low, self.high).astype(np.float32)
        )
        return (
            np.asarray(flatten(self.spec.observation_space, observation), np.float32),
            float(reward),
            bool(terminated),
        )

    def run(
        self, act: Callable[[int, np.ndarray], np.ndarray], starts: np.ndarray, horizon: int
    ) -> Trajectories:
        """Drive B copies from ``starts`` (B, O): ``act(t, observations (B, O))`` gives actions (B, A) for all at once."""
        rows, width = starts.shape
        observations = np.zeros((rows, horizon + 1, width), np.float32)
        observations[:, 0] = starts
        actions = np.zeros((rows, horizon, len(self.low)), np.float32)
        rewards = np.zeros((rows, horizon), np.float32)
        terminated, lengths = np.zeros(rows, bool), np.full(rows, horizon)
        states = [self.state(start) for start in starts]
        for t in range(horizon):
            actions[:, t] = act(t, observations[:, t])
            for i in range(rows):
                if terminated[i]:
                    observations[i, t + 1] = observations[i, t]
                    continue
                self.set(states[i])
                observations[i, t + 1], rewards[i, t], terminated[i] = self.step(actions[i, t])
                states[i] = self.get()
                if terminated[i]:
                    lengths[i] = t + 1
        return Trajectories(observations, actions, rewards, terminated, lengths)

    def follow(self, policy: Policy, starts: np.ndarray, horizon: int) -> Trajectories:
        """What a deterministic policy really meets from ``starts`` (B, O)."""

        def act(_: int, observations: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return torch.as_tensor(policy.act(torch.from_numpy(observations), True)).cpu().numpy()

        return self.run(act, starts, horizon)

    def one_step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Real next observations (B, O) of observations (B, O) and actions (B, A)."""
        return self.run(lambda t, o: actions, observations, 1).observations[:, 1]

    def close(self) -> None:
        """Free the simulator."""
        self.env.close()
