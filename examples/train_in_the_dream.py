"""Train a Stable-Baselines3 agent inside a world, and judge it in the real environment.

python examples/train_in_the_dream.py world/ 20000
"""

from __future__ import annotations

import sys

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import dydiff_env  # registers DyDiffDream-v0
from dydiff_env.evaluation.scores import environment_of


def main(world_path: str, steps: int, episodes: int = 5) -> float:
    world = dydiff_env.World.load(world_path)
    dream = gym.make("DyDiffDream-v0", world=world, horizon=100)
    kind = "MultiInputPolicy" if isinstance(dream.observation_space, gym.spaces.Dict) else "MlpPolicy"
    agent = PPO(kind, dream, n_steps=512, seed=0, verbose=0)
    agent.learn(steps)
    real = Monitor(gym.make(environment_of(world.spec)))
    mean, spread = evaluate_policy(agent, real, n_eval_episodes=episodes)
    print(f"{steps} dreamt steps; real return {mean:.1f} ± {spread:.1f}")
    return float(mean)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
