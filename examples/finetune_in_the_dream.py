"""Fine-tune a policy in the dream by Stable-Baselines3's PPO, and judge it in the real environment.

    python examples/finetune_in_the_dream.py --world world/ --policy td3bc.pt   # without either, the embedded maze and its policy

PPO learns a correction, a = clip(π(s) + scale · δ(s)) (residual policy learning; Silver et al. 2018), so training starts from
the policy, whatever made it (--trust for Stable-Baselines3 files). Rewards pay for the model's uncertainty (MOPO).
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from dydiff_env import load_policy
from dydiff_env.data.flattening import flatten_batch, unflatten_batch
from dydiff_env.envs.sb3 import DreamVecEnv
from dydiff_env.envs.worlds import find_world
from dydiff_env.evaluation.scores import environment_of, evaluate_returns
from dydiff_env.policies import Policy, as_policy


class Corrected(VecEnvWrapper):
    """Dreams whose actions correct a policy's own."""

    def __init__(self, venv: DreamVecEnv, policy: Policy, scale: float) -> None:
        super().__init__(venv, action_space=gym.spaces.Box(-1, 1, venv.action_space.shape, np.float32))
        self.policy, self.scale, self.space = policy, scale, venv.action_space

    def reset(self):
        self.seen = self.venv.reset()
        return self.seen

    def step_async(self, actions: np.ndarray) -> None:
        rows = torch.from_numpy(flatten_batch(self.observation_space, self.seen))
        own = self.policy.act(rows).numpy().reshape(actions.shape)
        self.venv.step_async(np.clip(own + self.scale * actions, self.space.low, self.space.high))

    def step_wait(self):
        self.seen, *rest = self.venv.step_wait()
        return self.seen, *rest


def main(world: str | None = None, policy: str = "demo", steps: int = 200_000, seeds: int = 3, penalty: float = 1.0,
         scale: float = 0.5, episodes: int = 20, horizon: int = 100, num_envs: int = 64, n_steps: int = 64, trust: bool = False,
) -> list[tuple[float, float]]:  # fmt: skip
    dreamt_in = find_world(world, policy=policy)
    spec, base, found = dreamt_in.spec, load_policy(policy, dreamt_in.spec, trust=trust), []
    kind = "MultiInputPolicy" if isinstance(spec.observation_space, gym.spaces.Dict) else "MlpPolicy"
    for seed in range(seeds):
        env = VecNormalize(Corrected(DreamVecEnv(num_envs, penalty, world=dreamt_in, horizon=horizon), base, scale))
        model = PPO(kind, env, lambda left: 1e-3 * left, n_steps, min(512, n_steps * num_envs), seed=seed, device="cpu",
                    policy_kwargs={"log_std_init": -1.0}).learn(steps)  # fmt: skip

        def corrected(rows: torch.Tensor, model: PPO = model, env: VecNormalize = env) -> torch.Tensor:
            seen = env.normalize_obs(unflatten_batch(spec.observation_space, rows.numpy()))
            return base.act(rows) + scale * torch.from_numpy(model.predict(seen, deterministic=True)[0])

        pair = (base, as_policy(corrected, spec))
        before, after = (evaluate_returns(one, environment_of(spec), episodes, seed=1000).returns.mean() for one in pair)
        print(f"seed {seed}: real return {before:.2f} before, {after:.2f} after {steps} dreamt steps")
        found.append((float(before), float(after)))
    before, after = np.array(found).T
    print(f"{seeds} seeds: {before.mean():.2f} before, {after.mean():.2f} ± {after.std():.2f} after")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world")
    parser.add_argument("--trust", action="store_true")
    defaults = {"policy": "demo", "steps": 200_000, "seeds": 3, "penalty": 1.0, "scale": 0.5, "episodes": 20, "horizon": 100}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    main(**vars(parser.parse_args()))
