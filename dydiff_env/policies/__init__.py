"""Policies from any checkpoint format, behind one protocol: one loader a format."""

from dydiff_env.policies.loader import as_policy, load_policy
from dydiff_env.policies.policy import Policy

__all__ = ["Policy", "as_policy", "load_policy"]
