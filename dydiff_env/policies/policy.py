"""What everything here means by a policy."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Policy(Protocol):
    """Anything that acts on a batch of flattened observations, in environment units."""

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A), float32, within the action space, for observations (B, O)."""
        ...
