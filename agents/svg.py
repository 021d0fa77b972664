"""SVG(H): a policy that learns by gradients through dreams of a few steps, with a critic for all that comes after.

Stochastic value gradients (Heess et al. 2015, arXiv 1510.09142), in the form for batched differentiable simulators (SHAC; Xu et al. 2022,
arXiv 2204.07137). The world is a learned one here: rewards pay for its uncertainty (MOPO; Yu et al. 2020, arXiv 2005.13239), and most
short dreams are those of single members of the ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.networks import MLP, frozen
from dydiff_env.data.dataset import check_same_spaces
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.policies.draws import own_draws, stream
from dydiff_env.policies.policy import Policy
from dydiff_env.products import fast_products
from dydiff_env.world.imagine import imagine
from dydiff_env.world.world import World

FAR = 10.0  # standardised observations are cut off there
COPY_STEPS = 5_000  # of gradient descent, until a copy acts like its model
ROUTINE, STARTS, ROLLOUTS = range(3)  # what a seed decides


@dataclass(frozen=True)
class SVGConfig:
    """Hyper-parameters.

    Args:
        rounds: the step size falls to nothing over them.
        warm_up: rounds in which only the critic learns, in the first of them four times as long; at most a fifth of all.
        rollouts: dreams of a round.
        length: their steps, no more than those of an episode.
        carried: share of them that go on where those of the round before ended, from the first state of an episode on; the others begin
            at any logged state.
        episode: a carried one begins anew at the end of the dream in which it has come to so many steps.
        lookahead: H, steps that gradients go through.
        actor_steps: of a round.
        batch_size: short dreams a step of the actor; transitions a step of the critic are four times as many.
        member_share: of the short dreams that are single members'.
        penalty: λ. Where the ensemble is as unsure as it is on the mean in dreams of the policy one begins with, λ deviations of these
            dreams' rewards are taken off (at least a tenth of the log's standard deviation); elsewhere in proportion. The deviation is
            the standard one, or what it would be of a Gaussian with the same mean absolute one, if that is less: a blow at an episode's
            end is not to set the price of every step.
        discount: γ; 1 − 3 / ``episode`` when None: dreams of short episodes, cut off and begun anew, tell a far-sighted critic nothing of
            what comes after, and TD(λ) then diverges.
        trace: λ of the critic's targets, TD(λ).
        noise: standard deviation of the noise on actions, in units of half their range.
        epochs: the critic's passes over a round's dreams.
        learning_rate: Adam's, of the actor.
        critic_rate: of the critic.
        gradient_norm: bound of the actor's.
        hidden: widths of the hidden layers.
    """

    rounds: int = 80
    warm_up: int = 15
    rollouts: int = 128
    length: int = 100
    carried: float = 0.8
    episode: int = 1000
    lookahead: int = 16
    actor_steps: int = 8
    batch_size: int = 256
    member_share: float = 0.75
    penalty: float = 1.0
    discount: float | None = None
    trace: float = 0.95
    noise: float = 0.1
    epochs: int = 6
    learning_rate: float = 1e-4
    critic_rate: float = 1e-3
    gradient_norm: float = 1.0
    hidden: tuple[int, ...] = (256, 256)

    @property
    def gamma(self) -> float:
        """γ."""
        return 1 - 3 / max(self.episode, 4) if self.discount is None else self.discount


class SVG(Agent):
    """π(s) and a critic V(s). It begins as a copy of another policy (``begin``) and learns from a world alone (``fit``)."""

    algorithm = "svg"
    config_class = SVGConfig
    config: SVGConfig
    reward_scale: Tensor
    price: Tensor
    carried: Tensor

    def build(self, observation_size: int, action_size: int) -> None:
        """An actor and a critic; and where the dreams are that go on."""
        config = self.config
        self.actor = MLP((observation_size, *config.hidden, action_size), "mish")
        self.critic = MLP((observation_size, *config.hidden, 1), "mish")
        self.actor_optimizer = self.adam("actor", self.actor, rate=config.learning_rate)
        self.critic_optimizer = self.adam("critic", self.critic, rate=config.critic_rate)
        self.register_buffer("reward_scale", torch.ones(()))
        self.register_buffer("price", torch.zeros(()))  # of a unit of uncertainty
        rows = round(config.carried * config.rollouts)
        # A row: the state, the step before it (NaN: not known), the episode's steps so far (NaN: it is to begin anew).
        self.register_buffer("carried", torch.full((rows, 2 * observation_size + action_size + 1), torch.nan))

    def begin(self, world: World, policy: Policy, steps: int | None = None) -> float:
        """Become a copy of ``policy``, and take from its dreams what rewards and uncertainty are counted in.

        Args:
            world: where.
            policy: of the world's spaces.
            steps: of gradient descent; ``COPY_STEPS`` when None.

        Returns:
            The root mean squared distance between its actions and the policy's, in units of half their range.
        """
        config, seed = self.config, stream(self.seed, ROUTINE)
        starts, before = world.sample_starts(512, seed=seed), world.sample_before(512, seed=seed)
        routine = world.dream(policy, starts, config.length, 0, seed=seed, before=before)
        assert routine.uncertainties is not None
        real, logged_spread = routine.mask, float(world.models.reward.std)
        rewards, doubt = routine.rewards[real], float(routine.uncertainties[real].mean())
        spread = min(float(rewards.std()), math.sqrt(math.pi / 2) * float(np.abs(rewards - rewards.mean()).mean()))
        # A policy that earns next to nothing says little about what rewards are; a lone member is never in doubt.
        self.price.fill_(config.penalty * max(spread, 0.1 * logged_spread) / doubt if doubt > 1e-6 else 0.0)
        worth = discounted(self._earned(routine), torch.as_tensor(real, device=self.device), config.gamma)
        self.reward_scale.copy_(worth[torch.as_tensor(real, device=self.device)].std().clamp(min=1e-6))
        logged = world.sample_starts(20_000, seed=stream(seed, STARTS))
        observations = torch.as_tensor(np.concatenate([routine.observations[:, :-1][real], logged]), device=self.device)
        std, mean = torch.std_mean(observations.double(), 0, correction=0)
        self.observation_mean.copy_(mean)
        self.observation_std.copy_(std + 1e-3 * world.normalizer.std)  # in any unit
        with own_draws(self.device, stream(self.seed, ROUTINE, 1)):
            actions = torch.cat([torch.as_tensor(policy.act(rows)).to(self.device) for rows in observations.split(8192)])
        wanted = (actions - self.action_centre) / self.action_scale
        return self._clone(self._seen(observations), wanted, COPY_STEPS if steps is None else steps)

    def _clone(self, seen: Tensor, actions: Tensor, steps: int) -> float:
        errors: list[Tensor] = []
        with fast_products(self.device):
            for step in range(steps):
                self.actor_optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps)) / 2
                rows = torch.randint(len(seen), (512,), generator=self.generator, device=self.device)
                loss = F.mse_loss(self.actor(seen[rows]), actions[rows])
                self.optimizers["actor"].descend(loss)
                errors.append(loss.detach())
        self.actor_optimizer.state.clear()  # Adam's moments are of another loss
        return float(torch.stack(errors[-max(1, steps // 10) :]).mean().sqrt())

    def fit(  # type: ignore[override]  # it learns from a world, not from a replay
        self, world: World, steps: int, callback: Callable[[int, dict[str, Tensor]], None] | None = None
    ) -> Self:
        """Dream and learn for ``steps`` more rounds, after ``begin``.

        Args:
            world: where.
            steps: number of rounds.
            callback: called after each with the number of rounds so far and the losses.

        Raises:
            DyDiffError: where the world's spaces are others.
        """
        check_same_spaces(self.spec, world.spec)
        for _ in range(steps):
            rollouts, before = self._practise(world)
            with fast_products(self.device):
                losses = self._value(rollouts)
                if self.updates >= min(self.config.warm_up, self.config.rounds // 5):
                    losses |= self._improve(world, rollouts, before)
            self.updates += 1
            if callback:
                callback(self.updates, losses)
        return self

    def policy(self, observations: Tensor, deterministic: bool) -> Tensor:
        """π(s), or a draw around it."""
        mean = self.actor(observations.clamp(-FAR, FAR))
        return mean if deterministic else mean + self.config.noise * torch.randn_like(mean)

    def _practise(self, world: World) -> tuple[Trajectories, Tensor]:
        """The round's dreams, and the steps before each of their states, (B, L, O + A)."""
        config, o, seed = self.config, len(self.observation_mean), stream(self.seed, STARTS, self.updates)
        rows = len(self.carried)
        logged = config.rollouts - rows
        fresh = torch.as_tensor(world.sample_starts(max(rows, 1), seed=seed, kind="initial"), device=self.device)[:rows]
        anew = self.carried[:, -1:].isnan()
        unknown = torch.full_like(self.carried[:, o:-1], torch.nan)
        starts = torch.cat([
            torch.where(anew, fresh, self.carried[:, :o]),
            torch.as_tensor(world.sample_starts(max(logged, 1), seed=seed), device=self.device)[:logged],
        ])  # fmt: skip
        before = torch.cat([
            torch.where(anew, unknown, self.carried[:, o:-1]),
            torch.as_tensor(world.sample_before(max(logged, 1), seed=seed), device=self.device)[:logged],
        ])  # fmt: skip
        rollouts = world.dream(
            self, starts, config.length, 0, deterministic=False, seed=stream(self.seed, ROLLOUTS, self.updates), before=before
        )
        observations, actions, lengths = (
            torch.as_tensor(part, device=self.device) for part in (rollouts.observations, rollouts.actions, rollouts.lengths)
        )
        steps = torch.cat([before[:, None], torch.cat([observations[:, :-1], actions], -1)], 1)  # (B, L + 1, O + A)
        some = torch.arange(rows, device=self.device)
        ages = torch.where(anew[:, 0], 0.0, self.carried[:, -1]) + lengths[:rows]
        over = torch.as_tensor(rollouts.terminations[:rows], device=self.device) | (ages >= config.episode)
        last = lengths[:rows]
        self.carried.copy_(
            torch.cat([observations[some, last], steps[some, last], torch.where(over, torch.nan, ages)[:, None]], -1)
        )
        return rollouts, steps[:, :-1]

    def _value(self, rollouts: Trajectories) -> dict[str, Tensor]:
        """The critic's passes over a round, towards TD(λ)."""
        config = self.config
        seen = self._seen(torch.as_tensor(rollouts.observations, device=self.device))
        real = torch.as_tensor(rollouts.mask, device=self.device)
        steps = torch.arange(rollouts.horizon)
        ends = torch.as_tensor(rollouts.terminations)[:, None] & (steps == torch.as_tensor(rollouts.lengths)[:, None] - 1)
        rewards, now = self._earned(rollouts) / self.reward_scale, seen[:, :-1][real]
        loss = rewards.new_zeros(())
        for _ in range(config.epochs * (1 if self.updates else 4)):
            with torch.no_grad():
                values = torch.cat([self.critic(rows) for rows in seen.flatten(0, 1).split(4096)]).view(seen.shape[:2])
                errors = (rewards + config.gamma * values[:, 1:] * ~ends.to(self.device) - values[:, :-1]) * real
                targets = (values[:, :-1] + discounted(errors, real, config.gamma * config.trace))[real]
            order = torch.randperm(len(now), generator=self.generator, device=self.device)
            for rows in order.split(4 * config.batch_size):
                loss = F.mse_loss(self.critic(now[rows]).squeeze(-1), targets[rows])
                self.optimizers["critic"].descend(loss)
        return {"critic_loss": loss.detach()}

    def _improve(self, world: World, rollouts: Trajectories, before: Tensor) -> dict[str, Tensor]:
        """Steps of the actor, up the value of short dreams from states of the round's."""
        config, members = self.config, world.models.dynamics.config.members
        real = torch.as_tensor(rollouts.mask, device=self.device)
        observations, before = torch.as_tensor(rollouts.observations, device=self.device)[:, :-1][real], before[real]
        powers = config.gamma ** torch.arange(config.lookahead + 1, device=self.device)
        self.actor_optimizer.param_groups[0]["lr"] = config.learning_rate * max(0.0, 1 - self.updates / config.rounds)
        value = powers.new_zeros(())
        for _ in range(config.actor_steps):
            rows = torch.randint(len(observations), (config.batch_size,), generator=self.generator, device=self.device)
            draws = torch.rand(3, config.batch_size, generator=self.generator, device=self.device)
            member = torch.where(draws[0] < config.member_share, (draws[1] * members).long(), -1)
            noise = 2 * config.noise * draws[2]  # from none, which is how it will act, to twice as much

            def act(now: Tensor, noise: Tensor = noise) -> Tensor:
                mean = self.actor(self._seen(now))
                drawn = torch.randn(mean.shape, generator=self.generator, device=self.device)
                return (mean + noise[:, None] * drawn).clamp(-1, 1) * self.action_scale + self.action_centre

            with frozen(self.critic):
                dreamt = imagine(world, act, observations[rows], before[rows], config.lookahead, member)
                earned = (dreamt.rewards - self.price * dreamt.uncertainties) / self.reward_scale
                lived = torch.cat([torch.ones_like(dreamt.lives[:, :1]), dreamt.lives.cumprod(1)], 1)
                after = lived[:, -1] * self.critic(self._seen(dreamt.last)).squeeze(-1)
                value = ((powers[:-1] * lived[:, :-1] * earned).sum(1) + powers[-1] * after).mean()
                self.optimizers["actor"].descend(-value, config.gradient_norm)
        return {"actor_loss": -value.detach()}

    def _seen(self, observations: Tensor) -> Tensor:
        """Standardised, and cut off far away."""
        return ((observations - self.observation_mean) / self.observation_std).clamp(-FAR, FAR)

    def _earned(self, rollouts: Trajectories) -> Tensor:
        """(B, L): rewards, less the price of uncertainty."""
        assert rollouts.uncertainties is not None
        rewards, doubts = (torch.as_tensor(part, device=self.device) for part in (rollouts.rewards, rollouts.uncertainties))
        return rewards - self.price * doubts


def discounted(values: Tensor, real: Tensor, discount: float) -> Tensor:
    """Σ_k discount^k x_{t+k} (B, L), over the real steps (B, L) of x (B, L)."""
    found, following = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        following = (values[:, t] + discount * following) * real[:, t]
        found[:, t] = following
    return found
