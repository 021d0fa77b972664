"""The single-step model T_φ(s, a): an ensemble of Gaussian networks with elites (Eq. 5, after MBPO)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dydiff_env.world.networks import EnsembleLinear, Units, initial, waves

LEAST = 1e-3  # deviation of a change, standardised, as far as memory goes
FAR = 10.0  # a remembered change is cut off at so many deviations
MANY = 16384  # rows a call: what lies between the layers of more takes gigabytes
CACHED = 256  # rows a call on a processor: what lies between the layers of more leaves its cache, and takes half as long again


@dataclass(frozen=True)
class DynamicsConfig:
    """Size of the ensemble.

    Args:
        members: networks trained.
        elites: networks used, those with the smallest held-out error.
        width: units of a hidden layer.
        depth: hidden layers.
        beta: of the β-NLL (Seitzer et al., 2022): 0 is the Gaussian likelihood (MBPO), 1 trains the mean as squared error
            does, with the variance learned beside it. The likelihood gives way where the data are hard, at contacts above
            all: it predicts a large variance there instead of the right mean, and a rollout only uses the mean.
        frequencies: of the waves that the networks see of each number of the standardised state
            (:func:`dydiff_env.world.networks.waves`), besides the number itself. None: `fit` tries some, and keeps those that pay
            (:mod:`dydiff_env.world.sight`).
        hard: share of the training transitions that are drawn in proportion to how wrong the model is about them
            (:mod:`dydiff_env.world.hard_examples`), the rest being drawn uniformly.
        unroll: K, steps of the rollouts that the last part of the training is about (:meth:`Dynamics.loss`); 1 for single steps to the
            end.
        unrolled: how large that part is, from 0 to 1.
        memory: whether the networks are also shown the step before: the change that led here, and the action. What an observation leaves
            out shows there, as a velocity beyond the bound at which it is cut off. None: `fit` tries it, and keeps it where it pays.
    """

    members: int = 7
    elites: int = 5
    width: int = 200
    depth: int = 4
    beta: float = 0.0
    frequencies: tuple[float, ...] | None = ()
    hard: float = 0.0
    unroll: int = 1
    unrolled: float = 0.25
    memory: bool | None = False


class Prediction(NamedTuple):
    """What the elites say of the next state, in normalised units."""

    mean: Tensor  # (B, O)
    disagreement: Tensor  # (B, O), standard deviation over the elites
    first: Tensor  # (B, O), what the first elite alone says


class Dynamics(nn.Module):
    """T_φ in normalised units: s' = s + delta_mean + delta_std · f(s, a).

    Predicting the scaled change keeps the targets of every dimension at unit variance, however slowly it moves.
    """

    delta_mean: Tensor
    delta_std: Tensor
    elites: Tensor

    def __init__(self, observation_size: int, action_size: int, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.frequencies = config.frequencies or ()
        self.memory_size = observation_size + action_size + 1 if config.memory else 0
        seen = observation_size * (1 + 2 * len(self.frequencies)) + action_size + self.memory_size
        sizes = [seen] + [config.width] * config.depth
        self.units = Units(action_size)
        self.hidden = nn.ModuleList(EnsembleLinear(config.members, i, o) for i, o in pairwise(sizes))
        self.output = EnsembleLinear(config.members, sizes[-1], 2 * observation_size)
        self.log_variance_max = nn.Parameter(torch.full((observation_size,), 0.5))
        self.log_variance_min = nn.Parameter(torch.full((observation_size,), -10.0))
        self.register_buffer("delta_mean", torch.zeros(observation_size))
        self.register_buffer("delta_std", torch.ones(observation_size))
        elites = initial((config.elites,), lambda: torch.arange(config.elites), torch.int64)
        self.register_buffer("elites", elites)

    def recall(self, before: Tensor, actions: Tensor, states: Tensor, known: Tensor | None = None) -> Tensor:
        """What the networks are shown of the step that led to states: (…, P), where P is 0 without memory.

        Args:
            before: (…, O), the states before.
            actions: (…, A), what was done there.
            states: (…, O), what it led to.
            known: (…,) bool, where there was such a step; nothing is remembered elsewhere. Default: everywhere.
        """
        if not self.memory_size:
            return states[..., :0]
        # What hardly ever changes, a goal, has next to no deviation: the slightest correction of it would be all that is recalled.
        change = ((states - before - self.delta_mean) / self.delta_std.clamp(min=LEAST)).clamp(-FAR, FAR)
        step = torch.cat([change, self.units(actions), torch.ones_like(change[..., :1])], -1)
        return step if known is None else torch.where(known[..., None], step, 0.0)

    def inputs(self, states: Tensor, actions: Tensor, memory: Tensor | None = None) -> Tensor:
        """What the networks see of states (…, O), actions (…, A) and what :meth:`recall` said, by default nothing."""
        if memory is None:
            memory = states.new_zeros(*states.shape[:-1], self.memory_size)
        return torch.cat([states, *waves(states, self.frequencies), self.units(actions), memory], -1)

    def forward(self, states: Tensor, actions: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the scaled change, (E, B, O) each, for states (E, B, O), actions (E, B, A) and memory (E, B, P)."""
        x = self.inputs(states, actions, memory)
        for layer in self.hidden:
            x = F.silu(layer(x))
        mean, log_variance = self.output(x).chunk(2, -1)
        log_variance = self.log_variance_max - F.softplus(self.log_variance_max - log_variance)
        log_variance = self.log_variance_min + F.softplus(log_variance - self.log_variance_min)
        return mean, log_variance

    def loss(
        self,
        starts: Tensor,
        actions: Tensor,
        following: Tensor,
        weights: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Eq. 5 along rollouts of K steps: Gaussian negative log-likelihood, weighted by variance^β.

        Each member goes on from the mean it has predicted, and is told what the log says came next. K = 1 is the paper's loss; more
        steps teach it to make no errors that grow, and to come back from those it makes.

        Args:
            starts: s_0 (E, B, O), each member's own.
            actions: a_0 … a_{K−1} (E, B, K, A).
            following: s_1 … s_K (E, B, K, O).
            weights: (E, B, K), how much each step counts; default: all alike.
            memory: (E, B, P), of the steps before; default: nothing. After that each member recalls its own steps.
        """
        now, total = starts, starts.new_zeros(())
        for t in range(actions.shape[2]):
            target = (following[:, :, t] - now - self.delta_mean) / self.delta_std
            mean, log_variance = self(now, actions[:, :, t], memory)
            likelihood = (mean - target).square() * (-log_variance).exp() + log_variance
            if self.config.beta:
                likelihood = likelihood * (self.config.beta * log_variance.detach()).exp()
            if weights is not None:
                likelihood = likelihood * weights[:, :, t, None].to(likelihood.device)
            total = total + likelihood.mean((1, 2)).sum() / actions.shape[2]
            after = now + self.delta_mean + self.delta_std * mean
            memory, now = self.recall(now, actions[:, :, t], after), after
        return total + 0.01 * (self.log_variance_max.sum() - self.log_variance_min.sum())

    @torch.no_grad()
    def errors(
        self, starts: Tensor, actions: Tensor, following: Tensor, real: Tensor, memory: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of each member (E,) along rollouts of its own, in units of the change's standard deviation.

        Args:
            starts: s_0 (B, O).
            actions: a_0 … a_{K−1} (B, K, A).
            following: s_1 … s_K (B, K, O).
            real: (B, K), 1 where a step was taken.
            memory: (B, P), of the steps before; default: nothing.
        """
        members = self.config.members
        memory = starts.new_zeros(len(starts), self.memory_size) if memory is None else memory
        total = torch.zeros(members, device=starts.device)
        for s, a, y, w, m in zip(*(x.split(4096) for x in (starts, actions, following, real, memory)), strict=True):
            now, m = (x.expand(members, *x.shape) for x in (s, m))
            for t in range(a.shape[1]):
                action = a[:, t].expand(members, *a[:, t].shape)
                after = now + self.delta_mean + self.delta_std * self(now, action, m)[0]
                m, now = self.recall(now, action, after), after
                total += (w[:, t] * ((now - y[:, t]) / self.delta_std).square().mean(-1)).sum(1)
        return total / real.sum()

    @torch.no_grad()
    def distances(
        self, states: Tensor, actions: Tensor, next_states: Tensor, memory: Tensor | None = None
    ) -> Tensor:
        """Root mean squared error (B,) of each row (B, ·) under one member; members take the rows in turn."""
        members = self.config.members
        memory = states.new_zeros(len(states), self.memory_size) if memory is None else memory
        rows = torch.cat([states, actions, (next_states - states - self.delta_mean) / self.delta_std, memory], -1)
        spare = -len(rows) % members
        dealt = F.pad(rows, (0, 0, 0, spare)).reshape(-1, members, rows.shape[-1]).transpose(0, 1)
        s, a, y, m = dealt.split([x.shape[-1] for x in (states, actions, next_states, memory)], -1)
        distance = (self(s, a, m)[0] - y).square().mean(-1).sqrt()
        return distance.T.reshape(-1)[: len(rows)]

    def choose_elites(self, errors: Tensor) -> None:
        """Keep the members with the smallest held-out errors (E,)."""
        self.elites.copy_(errors.argsort()[: self.config.elites])
        self.cache_elites()

    def cache_elites(self) -> None:
        """The elites' mean heads as plain tensors: a rollout then skips the other members and the variances."""
        size = self.delta_mean.shape[0]
        hidden = (layer for layer in self.hidden if isinstance(layer, EnsembleLinear))
        self._layers = [
            (layer.weight[self.elites].detach(), layer.bias[self.elites].detach()) for layer in hidden
        ]
        self._layers.append(
            (
                self.output.weight[self.elites, :, :size].detach().contiguous(),
                self.output.bias[self.elites, :, :size].detach().contiguous(),
            )
        )

    def only(self, members: Iterable[int]) -> Dynamics:
        """The same model with these members for its elites; the weights are shared."""
        some = copy.copy(self)
        some._buffers = {**self._buffers, "elites": torch.tensor(list(members), device=self.elites.device)}
        some.cache_elites()
        return some

    def train(self, mode: bool = True) -> Dynamics:
        """Training makes the cached weights stale; evaluation makes them anew."""
        super().train(mode)
        if not mode:
            self.cache_elites()
        return self

    @torch.no_grad()
    def predict(self, states: Tensor, actions: Tensor, memory: Tensor | None = None) -> Prediction:
        """The elites' mean next state and their disagreement, (B, O) each, for states (B, O), actions (B, A) and memory (B, P)."""
        if len(states) > MANY:
            parts = (states, actions) if memory is None else (states, actions, memory)
            found = [self.predict(*some) for some in zip(*(part.split(MANY) for part in parts), strict=True)]
            return Prediction(*(torch.cat(part) for part in zip(*found, strict=True)))
        change = _change(self.inputs(states, actions, memory).expand(len(self.elites), -1, -1), self._layers)
        mean = change.mean(0)
        variance = (change - mean).square_().mean(0)  # torch.var_mean takes thirty times as long over so few
        here = states + self.delta_mean
        return Prediction(
            here + self.delta_std * mean, self.delta_std * variance.sqrt(), here + self.delta_std * change[0]
        )

    def each(self, states: Tensor, actions: Tensor, memory: Tensor | None = None) -> Tensor:
        """Every elite's next states (elites, B, O), for states (elites, B, O), actions (elites, B, A) and memory of its own."""
        return states + self.delta_mean + self.delta_std * _change(self.inputs(states, actions, memory), self._layers)


def _change(x: Tensor, layers: Sequence[tuple[Tensor, ...]]) -> Tensor:
    if x.device.type == "cpu" and x.shape[1] > CACHED:
        return torch.cat([_change(rows, layers) for rows in x.split(CACHED, 1)], 1)
    for weight, bias in layers[:-1]:
        x = F.silu(torch.baddbmm(bias, x, weight), inplace=True)
    return torch.baddbmm(layers[-1][1], x, layers[-1][0])


@torch.no_grad()
def keep_members(best: nn.Module, module: nn.Module, improved: Tensor) -> None:
    """Copy the members (E,) that improved from ``module`` to ``best``; what is not a member's goes along whole."""
    for old, new in zip(best.parameters(), module.parameters(), strict=True):
        if old.dim() == 3:
            old[improved] = new[improved]
        else:
            old.copy_(new)
