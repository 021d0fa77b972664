"""Offline agents that eat logged and synthetic data together: TD3BC, CQL, DiffQL and behaviour cloning."""

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.algorithms import ALGORITHMS, agent_class, load_agent, resume_agent
from dydiff_env.agents.bc import BC, BCConfig
from dydiff_env.agents.cql import CQL, CQLConfig
from dydiff_env.agents.diffql import DiffQL, DiffQLConfig
from dydiff_env.agents.judge import Judge
from dydiff_env.agents.replay import Batch, Replay
from dydiff_env.agents.seeds import Run, train_seeds
from dydiff_env.agents.td3bc import TD3BC, TD3BCConfig
from dydiff_env.agents.trainer import Schedule, train

__all__ = [
    "ALGORITHMS",
    "BC",
    "CQL",
    "TD3BC",
    "Agent",
    "BCConfig",
    "Batch",
    "CQLConfig",
    "DiffQL",
    "DiffQLConfig",
    "Judge",
    "Replay",
    "Run",
    "Schedule",
    "TD3BCConfig",
    "agent_class",
    "load_agent",
    "resume_agent",
    "train",
    "train_seeds",
]
