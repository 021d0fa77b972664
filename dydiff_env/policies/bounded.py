"""A policy made safe to roll out: sizes checked beforehand, actions kept inside the space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError
from dydiff_env.policies.draws import own_draws
from dydiff_env.policies.policy import Policy

WIDEST_GUESS = 512  # observation sizes tried when a policy refuses ours, to name the one it takes


class BoundedPolicy:
    """Any policy, with its contract held: (B, O) in, finite (B, A) float32 inside the action space out.

    Args:
        policy: what proposes the actions; its output may lie outside the space.
        observation_space: the source environment's, flattened size O.
        action_space: the source environment's Box, flattened size A.
        kind: where the policy came from, for reports ("torchscript", "sb3", …).
        fingerprint: a digest of the file (or source) it came from.
        world: the world its checkpoint names, if any.

    Attributes:
        proposed: how many actions it has given.
        clipped: how many of these lay outside the action space (by more than float noise) and were clipped.

    Raises:
        DyDiffError: when a first call on two observations shows wrong sizes or values that are not finite.
    """

    def __init__(
        self,
        policy: Policy,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        kind: str,
        fingerprint: str = "",
        world: str | None = None,
    ) -> None:
        if not isinstance(action_space, gym.spaces.Box):
            raise DyDiffError(f"The action space is {action_space}.", "Only Box action spaces are supported.")
        self.policy, self.kind, self.fingerprint, self.world = policy, kind, fingerprint, world
        self.observation_size = gym.spaces.flatdim(observation_space)
        self.action_size = gym.spaces.flatdim(action_space)
        self.low = torch.as_tensor(np.float32(action_space.low)).reshape(-1)
        self.high = torch.as_tensor(np.float32(action_space.high)).reshape(-1)
        self.proposed = self.clipped = 0
        with own_draws(torch.device("cpu")):
            self._probe()

    def __repr__(self) -> str:
        return f"BoundedPolicy({self.kind!r}, O={self.observation_size}, A={self.action_size})"

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) inside the space for observations (B, O).

        Raises:
            DyDiffError: when an action is not finite.
        """
        with torch.no_grad():
            actions = torch.as_tensor(self.policy.act(observations.float(), deterministic))
        actions = actions.to(observations.device, torch.float32).reshape(len(observations), -1)
        if not torch.isfinite(actions).all():
            raise DyDiffError(
                f"The {self.kind} policy returned NaN or infinite actions.",
                "Check its checkpoint and its observation normalisation.",
            )
        low, high = self.low.to(actions.device), self.high.to(actions.device)
        outside = (actions < low - 1e-5) | (actions > high + 1e-5)
        self.clipped += int(outside.any(-1).sum())
        self.proposed += len(actions)
        return actions.clamp(low, high)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is asked inside, to find out about the policy, counts neither as proposed nor as clipped."""
        counts = self.proposed, self.clipped
        try:
            yield
        finally:
            self.proposed, self.clipped = counts

    def __call__(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """The same as ``act``."""
        return self.act(observations, deterministic)

    def _probe(self) -> None:
        """One call on two observations, so that a wrong file fails before the first rollout."""
        try:
            actions = _shape(self.policy, self.observation_size)
        except DyDiffError:
            raise
        except Exception as error:
            width = self._accepted_width()
            if width is None:
                reason = str(error).strip() or type(error).__name__
                raise DyDiffError(
                    f"The {self.kind} policy fails on observations of size {self.observation_size}: "
                    f"{' '.join(reason.split())[-300:]}",
                    f"Check the policy on a (2, {self.observation_size}) float32 batch.",
                ) from error
            raise DyDiffError(
                f"The {self.kind} policy takes observations of size {width}, "
                f"but these are of size {self.observation_size}.",
                "Use a policy made for the world's source environment.",
            ) from error
        if actions != (2, self.action_size):
            raise DyDiffError(
                f"The {self.kind} policy gives actions of shape {actions} for 2 observations, "
                f"but the action space needs (2, {self.action_size}).",
                "Use a policy made for the world's source environment.",
            )
        self.act(_some(self.observation_size))
        self.proposed = self.clipped = 0

    def _accepted_width(self) -> int | None:
        """The first observation size the policy does take; None when it takes none."""
        for width in range(1, WIDEST_GUESS + 1):
            try:
                _shape(self.policy, width)
                return width
            except Exception:
                continue
        return None


def _some(width: int) -> Tensor:
    """Two observations; none is zero, by whose length a policy may divide."""
    return torch.linspace(0.1, 0.9, 2 * width).reshape(2, width)


def _shape(policy: Policy, width: int) -> tuple[int, ...]:
    with torch.no_grad():
        result: Any = policy.act(_some(width), True)
    if isinstance(result, (tuple, dict)):
        raise DyDiffError(f"The policy returns a {type(result).__name__} of {len(result)}, not actions.",
                          "Wrap it, so that it returns the actions alone.")
    return tuple(torch.as_tensor(result).shape)
